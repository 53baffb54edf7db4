//! The end of DATA: what happens between a message's last dot and its final reply.
//!
//! The order is the promise: recognise, journal and sync, hand to the chain, wait for the verdict, answer. Nothing before
//! the sync may answer 250, and nothing after it may lose the mail: whatever fails from there on, the journal sends the
//! mail round again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::{Envelope, MailId, NodeName, subjects};
use runtime::bodies::Bodies;
use runtime::broker::{Broker, PublishError};
use runtime::{clock, telemetry};
use tokio::sync::watch;
use tokio::time::Instant;
use wire::smtp::{Message, Reply};

use crate::arbiter::{Arbiter, Word};
use crate::arrival::{self, Here, Peer};
use crate::budget::{Budget, Share};
use crate::config::Config;
use crate::journal::{self, AppendError, Doubt, Journal};
use crate::peers::{self, Other, Peers};
use crate::taking::Takings;

/// A mail that could not be handed to the chain is tried again after that.
const HAND_AGAIN: Duration = Duration::from_secs(5);
/// How long the same mail on another connection is waited for. It takes no longer than a sync and a question to another node.
const TAKING: Duration = Duration::from_secs(30);
/// How long a refusal's record is waited for, at the most.
const RECORDING: Duration = Duration::from_secs(30);

/// What the end of DATA needs; shared by all connections.
pub(crate) struct Intake {
    pub(crate) config: Config,
    pub(crate) hostname: String,
    pub(crate) node: NodeName,
    pub(crate) journal: Journal,
    pub(crate) arbiter: Arbiter,
    pub(crate) peers: Peers,
    pub(crate) takings: Takings,
    pub(crate) broker: Broker,
    pub(crate) bodies: Bodies,
    /// The first stage behind accept.
    pub(crate) first: String,
    pub(crate) scanner: Option<String>,
    /// Memory for mails that go round again.
    pub(crate) refill: Budget,
}

/// What a sender was told about, until it goes on.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) id: MailId,
    pub(crate) doubt: Doubt,
}

impl Intake {
    /// Takes a message, and gives the final reply with the id of the mail that it is, if it is one.
    pub(crate) async fn take(
        self: &Arc<Self>,
        message: Message,
        peer: &Peer,
        share: Option<Share>,
    ) -> (Reply, Option<Told>) {
        let began = Instant::now();
        let deadline = began + self.config.verdict_wait;
        let body = Bodies::describe(&message.body);
        let doubt = arrival::doubt(&message, peer, &body);
        let now = clock::now();
        // Its sender may have given another connection up, where the same mail is on its way into the journal still.
        let Some(taking) = self.takings.take(doubt, began + TAKING).await else {
            return (Reply::local_error(), None);
        };
        if let Some(first) = self.kept_as(&doubt) {
            drop(taking);
            return self.again(first, doubt, deadline).await;
        }
        match self.peers.look(&self.broker, &doubt).await {
            Other::Nobody => {}
            Other::Keeps(first) => {
                telemetry::recognised();
                tracing::info!(mail = %first, "another node keeps it; its sender had not heard the 250 and sent it again");
                return (Reply::kept(&first.to_string()), None);
            }
            Other::Unsure => return (Reply::local_error(), None),
        }
        self.peers.take_up(&self.broker, doubt).await;
        let id = clock::new_mail_id();
        let verdict_deadline = now.plus(self.config.verdict_wait);
        let here = Here { hostname: &self.hostname, node: &self.node, id, now, verdict_deadline };
        let envelope = arrival::envelope(&message, peer, &here, body);
        let recipients = u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX);
        let kept = journal::Mail { id, recipients, envelope: envelope.encode(), body: message.body.clone(), doubt };
        // The case is opened before the mail can be known to anybody.
        let heard = self.arbiter.open(id);
        let appended = self.journal.append(kept).await;
        drop(taking);
        if let Err(error) = appended {
            self.arbiter.expire(id);
            self.peers.over(&self.broker, doubt).await;
            return (refusal(&error), None);
        }
        let handed = self.hand_over(&envelope, &message.body, &self.first).await;
        drop((message, share));
        let word = match handed {
            Ok(()) => self.hear(id, heard, deadline).await,
            Err(error) => {
                tracing::warn!(mail = %id, %error, "kept; it goes out when the broker takes it");
                self.journal.due_again(id, clock::now().plus(HAND_AGAIN));
                // It may have been handed over all the same, and a refusal be under way: then that is the answer.
                self.hear(id, heard, Instant::now()).await
            }
        };
        telemetry::answered(if matches!(word, Word::Refused(_)) { "550" } else { "250" }, began.elapsed());
        told(&word, id, doubt)
    }

    /// The mail as which this one was kept before; none if it is a new one.
    fn kept_as(&self, doubt: &Doubt) -> Option<MailId> {
        let first = self.journal.doubtful(doubt, clock::now())?;
        // A refusal may have been completed since: then it is nowhere, and this is a new mail.
        let is_kept = || self.journal.doubtful(doubt, clock::now()) == Some(first);
        (self.arbiter.join(first).is_some() || is_kept()).then_some(first)
    }

    /// What the sender is told of a mail that is kept already.
    async fn again(&self, first: MailId, doubt: Doubt, deadline: Instant) -> (Reply, Option<Told>) {
        let word = match self.arbiter.join(first) {
            Some(heard) => self.hear(first, heard, deadline).await,
            None if self.journal.is_unsure(first) => Word::Failed,
            None if self.journal.doubtful(&doubt, clock::now()) == Some(first) => Word::Kept,
            // Refused at this moment, and its reason is gone with it: sent again, it is judged anew.
            None => Word::Failed,
        };
        telemetry::recognised();
        tracing::info!(mail = %first, "its sender had not heard our 250 and sent it again");
        told(&word, first, doubt)
    }

    /// The sender went on after our reply: it will not send this mail again.
    pub(crate) async fn went_on(&self, told: Told) {
        self.journal.went_on(told.id).await;
        self.peers.over(&self.broker, told.doubt).await;
    }

    /// What another node is told about a mail that its sender brought there: the id if it is in doubt here, `no` if it is
    /// not, nothing while its refusal is being recorded. With the id, a sender was promised that the mail is kept.
    pub(crate) fn says_of(&self, doubt: &Doubt) -> Bytes {
        // Looked at first: what leaves this state meanwhile is in the journal.
        let is_taking = self.takings.has(doubt);
        let Some(first) = self.journal.doubtful(doubt, clock::now()) else {
            return Bytes::from_static(if is_taking { b"" } else { peers::NO });
        };
        if self.arbiter.join(first).is_none() {
            // Decided: it is kept, unless a refusal was completed since we looked, or could not be taken back.
            let is_kept = self.journal.doubtful(doubt, clock::now()) == Some(first) && !self.journal.is_unsure(first);
            return if is_kept { Bytes::copy_from_slice(&first.to_bytes()) } else { Bytes::new() };
        }
        if self.arbiter.expire(first) { Bytes::copy_from_slice(&first.to_bytes()) } else { Bytes::new() }
    }

    /// Puts body and envelope where the stages find them, side by side, and waits for both confirmations.
    pub(crate) async fn hand_over(&self, envelope: &Envelope, body: &Bytes, stage: &str) -> Result<(), PublishError> {
        let message_id = subjects::message_id(envelope.id, stage, envelope.round);
        let publish = self.broker.publish(subjects::stage(stage), Some(&message_id), envelope.encode());
        tokio::try_join!(self.bodies.put(envelope.id, envelope.round, &envelope.body, body), publish).map(|_| ())
    }

    /// The same for a later round: the body first, so that a broker without room for bodies is not given envelopes for which
    /// there is none.
    pub(crate) async fn hand_over_again(
        &self,
        envelope: &Envelope,
        body: &Bytes,
        stage: &str,
    ) -> Result<(), PublishError> {
        self.bodies.put(envelope.id, envelope.round, &envelope.body, body).await?;
        let message_id = subjects::message_id(envelope.id, stage, envelope.round);
        self.broker.publish(subjects::stage(stage), Some(&message_id), envelope.encode()).await
    }

    async fn hear(&self, id: MailId, mut heard: watch::Receiver<Option<Word>>, deadline: Instant) -> Word {
        let word = async {
            match heard.wait_for(Option::is_some).await {
                Ok(word) => word.clone(),
                Err(_) => None,
            }
        };
        tokio::pin!(word);
        if let Ok(word) = tokio::time::timeout_at(deadline, &mut word).await {
            return word.unwrap_or(Word::Kept);
        }
        if self.arbiter.expire(id) {
            return Word::Kept;
        }
        match tokio::time::timeout(RECORDING, word).await {
            Ok(word) => word.unwrap_or(Word::Failed),
            Err(_) => Word::Failed,
        }
    }
}

/// The reply, and what the sender shows by going on. After a failure it may be kept or not: it stays in doubt.
fn told(word: &Word, id: MailId, doubt: Doubt) -> (Reply, Option<Told>) {
    (reply(word, id), (*word != Word::Failed).then_some(Told { id, doubt }))
}

fn reply(word: &Word, id: MailId) -> Reply {
    match word {
        Word::Kept => Reply::kept(&id.to_string()),
        Word::Refused(reason) => Reply::refused(reason),
        Word::Failed => Reply::local_error(),
    }
}

fn refusal(error: &AppendError) -> Reply {
    match error {
        AppendError::Full(_) => Reply::no_room(),
        AppendError::Io(_) => Reply::local_error(),
    }
}
