//! A sender that comes again with a mail that we have, because it never heard our 250 (RFC 1047): nothing is kept
//! twice.
//!
//! It may come with other recipients than before: one that was told 451 is taken now, another is told 451 this time. So
//! a mail is recognised for each recipient. There is one reply for all of them: those that have the mail are promised
//! it, so what is new for the rest is kept without waiting for a verdict, and what a stage rejects of it is held. When
//! it is not certain that a mail stays kept, the sender is told to come again.
//!
//! A mail that says neither when it was written nor which one it is looks like the next one of the same device. Taken
//! for the one before, the next would be lost behind a 250: so such mail is recognised for a shorter time, and the log
//! tells of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::{MailId, Millis, NodeName};
use runtime::{clock, telemetry};
use tokio::time::Instant;
use wire::smtp::Reply;

use crate::arbiter::{Arbiter, Word};
use crate::arrival::{self, Keys, Peer};
use crate::intake::{Arrived, Intake, Told, refusal, told};
use crate::journal::{Doubt, Journal};
use crate::peers::{self, Other};
use crate::taking::{Taking, Takings};

/// What is known of a mail.
#[derive(Debug, PartialEq, Eq)]
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
    /// It says neither. What arrived in the future did so by a clock that was ahead, nobody knows how long ago: all
    /// that a device sends would be taken for that one until then.
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
            None if is_decided(first, &keys, &self.journal) => Word::Kept,
            // Refused at this moment, and its reason is gone with it: sent again, it is judged anew.
            None => Word::Failed,
        };
        telemetry::recognised();
        tracing::info!(mail = %first, "its sender had not heard our 250 and sent it again");
        told(&word, first, keys)
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
        if !here.iter().all(|(first, keys)| is_promised(*first, keys, &self.journal, &self.arbiter)) {
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

    /// What another node is told about a mail that its sender brought there.
    pub(crate) fn says_of(&self, key: &Doubt) -> Bytes {
        says_of(key, &self.takings, &self.journal, &self.arbiter)
    }
}

/// The id of a mail if it is in doubt here, `no` if it is not, nothing while it is being kept or its refusal recorded,
/// or when nobody knows whether the disk has it. With the id, a sender was promised that the mail is kept.
fn says_of(key: &Doubt, takings: &Takings, journal: &Journal, arbiter: &Arbiter) -> Bytes {
    // Looked at first: what leaves this state meanwhile is in the journal, or may be left there.
    let is_taking = takings.has(key);
    if journal.may_be_left(&[*key]) {
        return Bytes::new();
    }
    let Some(first) = journal.doubtful(key, clock::now()) else {
        return Bytes::from_static(if is_taking { b"" } else { peers::NO });
    };
    let is_kept = is_promised(first, &[*key], journal, arbiter);
    if is_kept { Bytes::copy_from_slice(&first.to_bytes()) } else { Bytes::new() }
}

/// Whether a mail is kept for certain, whatever a stage says of it from here on. Its sender waits no longer.
fn is_promised(first: MailId, keys: &[Doubt], journal: &Journal, arbiter: &Arbiter) -> bool {
    arbiter.expire(first) && is_decided(first, keys, journal)
}

/// Whether a mail for which nobody waits is kept for certain: no refusal was completed since we looked, nor is there
/// one that could not be taken back.
fn is_decided(first: MailId, keys: &[Doubt], journal: &Journal) -> bool {
    let now = clock::now();
    let is_kept = keys.iter().any(|key| journal.doubtful(key, now) == Some(first));
    is_kept && !journal.is_unsure(first)
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
    #![allow(clippy::unwrap_used)]
    use crate::arbiter::Stand;
    use crate::journal::tests::{config, leave, mail};
    use crate::journal::{Mail, Refusal};

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

    #[test]
    fn a_mail_that_all_recipients_have_is_that_one() {
        let [one, two] = [1, 2].map(|number| MailId::from_bytes([number; 16]));
        let (here, elsewhere) = (Part::Here(one), Part::Elsewhere(one));
        for (parts, want) in [
            (vec![], Known::New),
            (vec![Part::New, Part::New], Known::New),
            (vec![here, here], Known::As(one)),
            (vec![elsewhere, elsewhere], Known::Elsewhere(one)),
        ] {
            assert_eq!(sum_up(parts.clone()), want, "{parts:?}");
        }
        for parts in [[here, Part::New], [Part::New, elsewhere], [here, Part::Here(two)], [here, elsewhere]] {
            assert_eq!(sum_up(parts.to_vec()), Known::InPart(parts.to_vec()));
        }
        assert_eq!(sum_up(vec![here, Part::New, Part::Elsewhere(two)]).mails(), BTreeSet::from([one, two]));
    }

    const KEY: Doubt = [1; 32];

    /// A mail that was kept just now, with two recipients.
    async fn keep(folder: &std::path::Path) -> (Journal, MailId) {
        let (journal, _) = Journal::open(config(folder), "n", clock::now()).unwrap();
        let id = clock::new_mail_id();
        journal.append(Mail { id, each: vec![[11; 32], [12; 32]], ..mail(1, 2) }).await.unwrap();
        (journal, id)
    }

    #[tokio::test]
    async fn another_node_is_told_only_what_is_certain() {
        let folder = tempfile::tempdir().unwrap();
        let ((journal, id), arbiter, takings) = (keep(folder.path()).await, Arbiter::default(), Takings::default());
        let says = |key: &Doubt| says_of(key, &takings, &journal, &arbiter);
        assert_eq!(says(&[9; 32]), peers::NO);
        let taking = takings.take(vec![[9; 32], KEY], Instant::now()).await;
        assert_eq!(says(&[9; 32]), "", "it is being kept");
        assert_eq!(says(&KEY), id.to_bytes()[..], "it is, whoever brings it");
        drop(taking);
        leave(&journal, [9; 32]);
        assert_eq!(says(&[9; 32]), "", "the disk may have it");
        let heard = arbiter.open(id);
        assert_eq!(says(&[12; 32]), id.to_bytes()[..]);
        assert_eq!((heard.borrow().clone(), arbiter.reject(id)), (Some(Word::Kept), Stand::Answered), "it is promised");
        let heard = arbiter.open(id);
        assert_eq!(arbiter.reject(id), Stand::Waiting);
        assert_eq!((says(&KEY), heard.borrow().clone()), (Bytes::new(), None), "its refusal is being recorded");
        assert_eq!(journal.refuse(id).await.unwrap(), Refusal::Done);
        assert_eq!(says(&KEY), peers::NO);
    }

    /// Otherwise its sender had 250 for a mail that is refused.
    #[tokio::test]
    async fn what_is_being_refused_is_promised_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let ((journal, id), arbiter) = (keep(folder.path()).await, Arbiter::default());
        let is_promised = |keys: &[Doubt]| is_promised(id, keys, &journal, &arbiter);
        assert!(is_promised(&[[11; 32]]) && !is_promised(&[[9; 32]]));
        let _heard = arbiter.open(id);
        assert_eq!(arbiter.reject(id), Stand::Waiting);
        assert!(!is_promised(&[[11; 32]]), "it is not known yet");
        journal.refuse(id).await.unwrap();
        arbiter.decide(id, Word::Refused("spam".into()));
        assert!(!is_promised(&[[11; 32]]), "it is nowhere");
    }
}
