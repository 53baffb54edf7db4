//! The end of DATA: what happens between a message's last dot and its final reply.
//!
//! The order is the promise: recognise, journal and sync, hand to the chain, wait for the verdict, answer. Nothing
//! before the sync may answer 250, and nothing after it may lose the mail: whatever fails from there on, the journal
//! sends the mail round again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::{BodyRef, Envelope, MailId, NodeName, subjects};
use runtime::bodies::Bodies;
use runtime::broker::{Broker, PublishError};
use runtime::{clock, telemetry};
use tokio::sync::watch;
use tokio::time::Instant;
use wire::smtp::{Message, Reply};

use crate::arbiter::{Arbiter, Word};
use crate::arrival::{self, Here, Keys, Peer};
use crate::budget::{Budget, Share};
use crate::config::Config;
use crate::journal::{self, AppendError, Doubt, Journal};
use crate::peers::Peers;
use crate::recognise::Known;
use crate::taking::{Taking, Takings};

/// A mail that could not be handed to the chain is tried again after that.
const HAND_AGAIN: Duration = Duration::from_secs(5);
/// How long the same mail on another connection is waited for. It takes no longer than a sync and the questions to
/// other nodes.
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
    /// Those of its keys for which it was told.
    pub(crate) keys: Vec<Doubt>,
}

/// A message that has just come.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) message: Message,
    pub(crate) body: BodyRef,
    pub(crate) keys: Keys,
    pub(crate) began: Instant,
    /// Until then its sender waits for the verdict.
    pub(crate) deadline: Instant,
}

impl Intake {
    /// Takes a message, and gives the final reply with the mails that it is, if it is any.
    pub(crate) async fn take(
        self: &Arc<Self>,
        message: Message,
        peer: &Peer,
        share: Option<Share>,
    ) -> (Reply, Vec<Told>) {
        let began = Instant::now();
        let deadline = began + self.config.verdict_wait;
        let body = Bodies::describe(&message.body);
        let keys = arrival::keys(&message, peer, &body);
        // Its sender may have given another connection up, where the same mail is on its way into the journal still.
        let Some(taking) = self.takings.take(keys.all(), began + TAKING).await else {
            return (Reply::local_error(), Vec::new());
        };
        let arrived = Arrived { message, body, keys, began, deadline };
        match self.recognise(&arrived).await {
            Known::New => self.take_new(arrived, peer, share, taking).await,
            Known::As(first) => {
                drop(taking);
                self.again(first, arrived.keys.all(), deadline).await
            }
            Known::Elsewhere(first) => {
                telemetry::recognised();
                tracing::info!(mail = %first, "another node keeps it; its sender had not heard the 250 and sent it \
                                               again");
                (Reply::kept(&first.to_string()), Vec::new())
            }
            Known::InPart(parts) => self.take_rest(arrived, parts, peer, taking).await,
            Known::Unsure => (Reply::local_error(), Vec::new()),
        }
    }

    async fn take_new(
        &self,
        arrived: Arrived,
        peer: &Peer,
        share: Option<Share>,
        taking: Taking<'_>,
    ) -> (Reply, Vec<Told>) {
        let id = clock::new_mail_id();
        // The case is opened before the mail can be known to anybody.
        let heard = self.arbiter.open(id);
        let kept = self.keep(id, &arrived, peer).await;
        drop(taking);
        let envelope = match kept {
            Ok(envelope) => envelope,
            Err(error) => {
                self.arbiter.expire(id);
                return (refusal(&error), Vec::new());
            }
        };
        let Arrived { message, keys, began, deadline, .. } = arrived;
        let handed = self.hand_over(&envelope, &message.body, &self.first).await;
        drop((message, share));
        let word = match handed {
            Ok(()) => self.hear(id, heard, deadline).await,
            Err(error) => {
                self.hand_later(id, &error);
                // It may have been handed over all the same, and a refusal be under way: then that is the answer.
                self.hear(id, heard, Instant::now()).await
            }
        };
        telemetry::answered(if matches!(word, Word::Refused(_)) { "550" } else { "250" }, began.elapsed());
        told(&word, id, keys.all())
    }

    /// Tells the other nodes, and keeps the mail. When that fails it is at most one whose sender was not told so; as
    /// long as it may be that, the other nodes ask and are not answered.
    pub(crate) async fn keep(&self, id: MailId, arrived: &Arrived, peer: &Peer) -> Result<Envelope, AppendError> {
        let Arrived { message, body, keys, .. } = arrived;
        let all = keys.all();
        self.peers.take_up(&self.broker, keys).await;
        let now = clock::now();
        let verdict_deadline = now.plus(self.config.verdict_wait);
        let here = Here { hostname: &self.hostname, node: &self.node, id, now, verdict_deadline };
        let envelope = arrival::envelope(message, peer, &here, *body);
        let kept = journal::Mail {
            id,
            recipients: u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX),
            envelope: envelope.encode(),
            body: message.body.clone(),
            doubt: keys.whole,
            each: keys.each.clone(),
        };
        let appended = self.journal.append(kept).await;
        if appended.is_err() && !self.journal.may_be_left(&all) {
            self.peers.over(&self.broker, &all).await;
        }
        appended.map(|()| envelope)
    }

    pub(crate) fn hand_later(&self, id: MailId, error: &PublishError) {
        tracing::warn!(mail = %id, %error, "kept; it goes out when the broker takes it");
        self.journal.due_again(id, clock::now().plus(HAND_AGAIN));
    }

    /// The sender went on after our reply: it will not send this mail again.
    pub(crate) async fn went_on(&self, told: Told) {
        self.journal.went_on(told.id, &told.keys).await;
        self.peers.over(&self.broker, &told.keys).await;
    }

    /// Puts body and envelope where the stages find them, side by side, and waits for both confirmations.
    pub(crate) async fn hand_over(&self, envelope: &Envelope, body: &Bytes, stage: &str) -> Result<(), PublishError> {
        let message_id = subjects::message_id(envelope.id, stage, envelope.round);
        let publish = self.broker.publish(subjects::stage(stage), Some(&message_id), envelope.encode());
        tokio::try_join!(self.bodies.put(envelope.id, envelope.round, &envelope.body, body), publish).map(|_| ())
    }

    /// The same for a later round: the body first, so that a broker without room for bodies is not given envelopes for
    /// which there is none.
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

    pub(crate) async fn hear(&self, id: MailId, mut heard: watch::Receiver<Option<Word>>, deadline: Instant) -> Word {
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
pub(crate) fn told(word: &Word, id: MailId, keys: Vec<Doubt>) -> (Reply, Vec<Told>) {
    let told = (*word != Word::Failed).then_some(Told { id, keys });
    (reply(word, id), told.into_iter().collect())
}

fn reply(word: &Word, id: MailId) -> Reply {
    match word {
        Word::Kept => Reply::kept(&id.to_string()),
        Word::Refused(reason) => Reply::refused(reason),
        Word::Failed => Reply::local_error(),
    }
}

pub(crate) fn refusal(error: &AppendError) -> Reply {
    match error {
        AppendError::Full(_) => Reply::no_room(),
        AppendError::Io(_) => Reply::local_error(),
    }
}
