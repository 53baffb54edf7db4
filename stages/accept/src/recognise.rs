//! A sender that comes again with a mail that we have, because it never heard our 250 (RFC 1047): nothing is kept twice.
//!
//! It may come with other recipients than before: one that was told 451 is taken now, another is told 451 this time. So a
//! mail is recognised for each recipient. There is one reply for all of them: those that have the mail are promised it, so
//! what is new for the rest is kept without waiting for a verdict, and what a stage rejects of it is held. When it is not
//! certain that a mail stays kept, the sender is told to come again.
//!
//! A mail that says neither when it was written nor which one it is looks like the next one of the same device. Taken for the
//! one before, the next would be lost behind a 250: so such mail is recognised for a shorter time, and the log tells of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::{MailId, Millis, NodeName};
use runtime::{clock, telemetry};
use tokio::time::Instant;
use wire::smtp::Reply;

use crate::arbiter::Word;
use crate::arrival::{self, Keys, Peer};
use crate::intake::{Arrived, Intake, Told, refusal, told};
use crate::journal::Doubt;
use crate::peers::{self, Other};
use crate::taking::Taking;

/// What is known of a mail.
#[derive(Debug)]
pub(crate) enum Known {
    /// Nothing.
    New,
    /// It is this one, which is kept here.
    As(MailId),
    /// It is this one, which another node keeps.
    Elsewhere(MailId),
    /// Some recipients have it already, by their places, and there is more than one mail in question.
    InPart(Vec<Part>),
    /// Another node may have it, and cannot say so.
    Unsure,
}

impl Known {
    /// The mails that were kept before.
    fn mails(&self) -> BTreeSet<MailId> {
        match self {
            Self::New | Self::Unsure => BTreeSet::new(),
            Self::As(first) | Self::Elsewhere(first) => BTreeSet::from([*first]),
            Self::InPart(parts) => parts.iter().filter_map(Part::mail).collect(),
        }
    }
}

/// How a mail is known for one of its recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    New,
    Here(MailId),
    Elsewhere(MailId),
}

impl Part {
    fn mail(&self) -> Option<MailId> {
        match self {
            Self::New => None,
            Self::Here(first) | Self::Elsewhere(first) => Some(*first),
        }
    }
}

/// Recipients of a mail for whom other nodes are asked at once.
const AT_ONCE: usize = 256;
/// All other nodes have so long to answer for all recipients. The sender's next connection waits for that.
const ASKING: Duration = Duration::from_secs(10);
/// Clocks of nodes that run well differ by less.
const AHEAD: Duration = Duration::from_secs(30);

/// For how long a mail is taken for another that looks the same.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lasts {
    /// It says when it was written or which one it is.
    Named(Duration),
    /// It says neither. What arrived in the future did so by a clock that was ahead, nobody knows how long ago: all that a
    /// device sends would be taken for that one until then.
    Bare(Duration),
}

impl Lasts {
    /// Whether it is taken for one that arrived at this time.
    pub(crate) fn covers(self, arrived: Millis, now: Millis) -> bool {
        match self {
            Self::Named(span) => now.since(arrived) < span,
            Self::Bare(span) => now.since(arrived) < span && arrived <= now.plus(AHEAD),
        }
    }
}

impl Intake {
    /// As what a mail was kept before.
    pub(crate) async fn recognise(&self, arrived: &Arrived) -> Known {
        let is_bare = !arrival::is_told_apart(&arrived.message.body);
        let journal = &self.config.journal;
        let lasts = if is_bare { Lasts::Bare(journal.doubt_bare_for) } else { Lasts::Named(journal.doubt_for) };
        let known = match tokio::time::timeout(ASKING, self.recognise_by(&arrived.keys, lasts)).await {
            Ok(Ok(known)) => known,
            Ok(Err(node)) => {
                tracing::warn!(
                    %node,
                    "the node that took a mail up cannot say whether it has it; its sender is told to come again"
                );
                Known::Unsure
            }
            Err(_) => {
                tracing::warn!(
                    "other nodes take too long to say which mail they have; its sender is told to come again"
                );
                Known::Unsure
            }
        };
        let first = known.mails();
        if is_bare && !first.is_empty() {
            tracing::warn!(
                mails = ?first,
                "a mail with neither Message-ID nor Date is taken for one that came before, of the same content"
            );
        }
        known
    }

    /// When it is not certain, the node that could say.
    async fn recognise_by(&self, keys: &Keys, lasts: Lasts) -> Result<Known, NodeName> {
        match self.part(&keys.whole, lasts).await? {
            Part::New => {}
            Part::Here(first) => return Ok(Known::As(first)),
            Part::Elsewhere(first) => return Ok(Known::Elsewhere(first)),
        }
        let parts: Vec<_> = keys.each.iter().map(|key| self.part(key, lasts)).collect();
        futures::stream::iter(parts).buffered(AT_ONCE).try_collect().await.map(sum_up)
    }

    async fn part(&self, key: &Doubt, lasts: Lasts) -> Result<Part, NodeName> {
        let is_young = |first: &MailId| lasts.covers(first.arrived(), clock::now());
        if let Some(first) = self.kept_as(key).filter(is_young) {
            return Ok(Part::Here(first));
        }
        match self.peers.look(&self.broker, key, lasts).await {
            Other::Keeps(first) if is_young(&first) => Ok(Part::Elsewhere(first)),
            Other::Nobody | Other::Keeps(_) => Ok(Part::New),
            Other::Unsure(node) => Err(node),
        }
    }

    /// The mail as which this one was kept before; none if it is a new one.
    fn kept_as(&self, key: &Doubt) -> Option<MailId> {
        let first = self.journal.doubtful(key, clock::now())?;
        // A refusal may have been completed since: then it is nowhere, and this is a new mail.
        let is_kept = || self.journal.doubtful(key, clock::now()) == Some(first);
        (self.arbiter.join(first).is_some() || is_kept()).then_some(first)
    }

    /// What the sender is told of a mail that is kept already.
    pub(crate) async fn again(&self, first: MailId, keys: Vec<Doubt>, deadline: Instant) -> (Reply, Vec<Told>) {
        let word = match self.arbiter.join(first) {
            Some(heard) => self.hear(first, heard, deadline).await,
            None if self.is_decided(first, &keys) => Word::Kept,
            // Refused at this moment, and its reason is gone with it: sent again, it is judged anew.
            None => Word::Failed,
        };
        telemetry::recognised();
        tracing::info!(mail = %first, "its sender had not heard our 250 and sent it again");
        told(&word, first, keys)
    }

    /// Whether a mail for which nobody waits is kept for certain: no refusal was completed since we looked, nor is there one
    /// that could not be taken back.
    fn is_decided(&self, first: MailId, keys: &[Doubt]) -> bool {
        let now = clock::now();
        let is_kept = keys.iter().any(|key| self.journal.doubtful(key, now) == Some(first));
        is_kept && !self.journal.is_unsure(first)
    }

    /// Some recipients have the mail already: it is kept for the others.
    pub(crate) async fn take_rest(
        &self,
        mut arrived: Arrived,
        parts: Vec<Part>,
        peer: &Peer,
        taking: Taking<'_>,
    ) -> (Reply, Vec<Told>) {
        let (mut here, mut elsewhere): (BTreeMap<MailId, Vec<Doubt>>, Vec<MailId>) = Default::default();
        for (part, key) in parts.iter().zip(&arrived.keys.each) {
            match part {
                Part::Here(first) => here.entry(*first).or_default().push(*key),
                Part::Elsewhere(first) if !elsewhere.contains(first) => elsewhere.push(*first),
                Part::Elsewhere(_) | Part::New => {}
            }
        }
        // From here on they are not refused.
        if !here.iter().all(|(first, keys)| self.arbiter.expire(*first) && self.is_decided(*first, keys)) {
            return (Reply::local_error(), Vec::new());
        }
        let mut ids: Vec<String> = here.keys().chain(&elsewhere).map(MailId::to_string).collect();
        telemetry::recognised();
        tracing::info!(mails = ?ids, "some recipients have it; its sender had not heard our 250 and sent it again");
        let mut told: Vec<Told> = here.into_iter().map(|(id, keys)| Told { id, keys }).collect();
        if parts.contains(&Part::New) {
            let mut is_new = parts.iter().map(|part| *part == Part::New);
            arrived.message.recipients.retain(|_| is_new.next().unwrap_or(true));
            arrived.keys = arrival::keys(&arrived.message, peer, &arrived.body);
            let id = clock::new_mail_id();
            let envelope = match self.keep(id, &arrived, peer).await {
                Ok(envelope) => envelope,
                Err(error) => return (refusal(&error), Vec::new()),
            };
            if let Err(error) = self.hand_over(&envelope, &arrived.message.body, &self.first).await {
                self.hand_later(id, &error);
            }
            ids.push(id.to_string());
            told.push(Told { id, keys: arrived.keys.all() });
        }
        drop(taking);
        telemetry::answered("250", arrived.began.elapsed());
        (Reply::kept(&ids.join(", ")), told)
    }

    /// What another node is told about a mail that its sender brought there: the id if it is in doubt here, `no` if it is
    /// not, nothing while it is being kept or its refusal recorded, or when nobody knows whether the disk has it. With the
    /// id, a sender was promised that the mail is kept.
    pub(crate) fn says_of(&self, key: &Doubt) -> Bytes {
        // Looked at first: what leaves this state meanwhile is in the journal, or may be left there.
        let is_taking = self.takings.has(key);
        if self.journal.may_be_left(&[*key]) {
            return Bytes::new();
        }
        let Some(first) = self.journal.doubtful(key, clock::now()) else {
            return Bytes::from_static(if is_taking { b"" } else { peers::NO });
        };
        let is_kept = match self.arbiter.join(first) {
            // Decided: it is kept, unless a refusal was completed since we looked.
            None => self.is_decided(first, &[*key]),
            Some(_) => self.arbiter.expire(first),
        };
        if is_kept { Bytes::copy_from_slice(&first.to_bytes()) } else { Bytes::new() }
    }
}

/// When all recipients have it, and as one mail, its sender waits for the word on that.
fn sum_up(parts: Vec<Part>) -> Known {
    let first = parts.first().copied().unwrap_or(Part::New);
    if parts.iter().any(|part| *part != first) {
        return Known::InPart(parts);
    }
    match first {
        Part::New => Known::New,
        Part::Here(id) => Known::As(id),
        Part::Elsewhere(id) => Known::Elsewhere(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);
    const SPAN: Duration = Duration::from_secs(600);

    /// By a clock that was ahead by two days, one alarm had swallowed all that followed in them.
    #[test]
    fn a_mail_of_the_future_is_taken_for_another_only_when_it_says_which_one_it_is() {
        let ago = |seconds: u64| Millis(NOW.0 - 1000 * seconds);
        let ahead = |seconds: u64| Millis(NOW.0 + 1000 * seconds);
        for (arrived, named, bare) in [
            (ago(601), false, false),
            (ago(600), false, false),
            (ago(599), true, true),
            (NOW, true, true),
            (ahead(30), true, true),
            (ahead(31), true, false),
            (ahead(2 * 86_400), true, false),
        ] {
            assert_eq!(Lasts::Named(SPAN).covers(arrived, NOW), named, "{arrived:?}");
            assert_eq!(Lasts::Bare(SPAN).covers(arrived, NOW), bare, "{arrived:?}");
        }
    }
}
