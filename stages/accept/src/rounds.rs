//! What happens to mail after it was kept: notices about it, its ends, and sending it round again.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use bytes::Bytes;
use futures::StreamExt as _;
use proto::{Decision, Disposition, Ended, Envelope, MailId, Millis, Notice, Verdict, subjects};
use runtime::bodies::CHUNK;
use runtime::broker::PublishError;
use runtime::clock;
use runtime::in_hand::InHand;
use runtime::pull::{Pull, Settings};
use runtime::tasks::Tasks;
use runtime::telemetry;
use tokio::time::Instant;

use crate::arbiter::{Stand, Word};
use crate::intake::Intake;
use crate::journal::Refusal;

/// How often the journal is asked for what is due.
const TICK: Duration = Duration::from_millis(250);
/// Mails that are sent round at once.
const AT_ONCE: usize = 64;
/// So often in a row, before it is looked at what else has happened.
const BATCHES: usize = 64;
/// A mail that could not be sent round is tried again after that.
const AGAIN: Duration = Duration::from_secs(5);
/// One whose record cannot be read, after that: a disk may come back.
const UNREADABLE: Duration = Duration::from_secs(600);
/// How long a broker that did not take a mail is left alone; twice as long each time, up to a minute.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// A clock that was set back by more than this has what is pending go round at once: it is due by the time that was. By
/// less it only waits so much longer.
const SET_BACK: Duration = Duration::from_secs(30);
/// Ends that are taken in at once.
const ENDS: usize = 512;

/// Hears the notices of the stages until the shutdown.
pub(crate) async fn notices(intake: Arc<Intake>, tasks: Tasks) -> anyhow::Result<()> {
    let mut notices = intake.broker.subscribe(subjects::notice(&intake.node)).await?;
    loop {
        let message = tokio::select! {
            () = tasks.stopping() => return Ok(()),
            message = notices.next() => message,
        };
        let Some(message) = message else { anyhow::bail!("the subscription to notices ended") };
        match Notice::decode(message.payload) {
            // The notice of a round may come after the mail has ended by another.
            Ok(Notice::Cleared(id)) if intake.journal.clear(id) => intake.arbiter.clear(id),
            Ok(Notice::Cleared(_)) => {}
            // While a refusal is being recorded, that is what its sender hears.
            Ok(Notice::Held(id)) => {
                intake.arbiter.expire(id);
            }
            Ok(Notice::Rejected(envelope)) => {
                let intake = Arc::clone(&intake);
                tasks.spawn("arbitration", async move {
                    let decision = intake.arbitrate(*envelope).await;
                    if let Some(reply) = message.reply {
                        intake.broker.reply(reply, decision.encode()).await;
                    }
                });
            }
            Ok(Notice::Missed(id)) => {
                let is_over = intake.journal.has_ended(id);
                if let Some(reply) = message.reply {
                    let decision = if is_over { Decision::Settled } else { Decision::Undecided };
                    intake.broker.reply(reply, decision.encode()).await;
                }
            }
            Err(error) => tracing::warn!(%error, "a notice cannot be read"),
        }
    }
}

/// Takes in the ends until the shutdown.
pub(crate) async fn ends(intake: Arc<Intake>, tasks: Tasks) -> anyhow::Result<()> {
    let settings = Settings {
        stream: subjects::ENDED.to_owned(),
        consumer: subjects::ended_consumer(&intake.node),
        subject: subjects::ended(&intake.node),
        room: ENDS,
        ack_wait: Duration::from_secs(10),
        watchdog: Duration::from_secs(10),
    };
    let mut pull = Pull::new(intake.broker.clone(), settings, tasks.clone());
    while let Some(in_hand) = pull.next().await {
        let intake = Arc::clone(&intake);
        tasks.spawn("end", async move { intake.end(&in_hand).await });
    }
    Ok(())
}

/// Sends round what has not ended, until the shutdown: what is due, and everything after the connection was lost. A
/// broker that takes nothing is left alone for a while: each attempt would bring it one more body.
pub(crate) async fn refill(intake: Arc<Intake>, tasks: Tasks) -> anyhow::Result<()> {
    let mut epoch = intake.broker.epoch();
    let mut looks_for_letters = true;
    let (mut pause, mut resume) = (PAUSE_FIRST, Instant::now());
    let mut seen = Seen(clock::now());
    loop {
        tokio::select! {
            () = tasks.stopping() => return Ok(()),
            changed = epoch.changed() => {
                changed?;
                intake.journal.all_due(clock::now());
                looks_for_letters = true;
                (pause, resume) = (PAUSE_FIRST, Instant::now());
            }
            () = tokio::time::sleep(TICK) => intake.journal.tidy(),
        }
        if seen.was_set_back(clock::now()) {
            tracing::warn!("the clock was set back; all that is pending goes round");
            intake.journal.all_due(clock::now());
        }
        looks_for_letters = looks_for_letters && !intake.dig_up().await;
        let (mails, bytes) = intake.journal.size();
        telemetry::journal(mails, bytes);
        for _ in 0..BATCHES {
            if !intake.broker.is_connected() || tasks.is_stopping() || Instant::now() < resume {
                break;
            }
            let due = intake.journal.due(clock::now(), AT_ONCE);
            if due.is_empty() {
                break;
            }
            telemetry::refilled(due.len());
            if intake.send_all_round(due).await {
                pause = PAUSE_FIRST;
            } else {
                resume = Instant::now() + pause;
                pause = (pause * 2).min(PAUSE_MOST);
            }
        }
    }
}

/// When the clock was looked at last.
struct Seen(Millis);

impl Seen {
    fn was_set_back(&mut self, now: Millis) -> bool {
        std::mem::replace(&mut self.0, now).since(now) > SET_BACK
    }
}

impl Intake {
    async fn arbitrate(&self, mut mail: Envelope) -> Decision {
        let id = mail.id;
        let Some(pending) = self.journal.pending(id) else { return self.hold_unknown(mail).await };
        // Whoever has a copy needs no second one.
        mail.open = pending.open;
        if mail.open.is_empty() {
            // What is not over waits for an operator.
            return Decision::Settled;
        }
        if pending.held.is_some() {
            // What another round was held for is not delivered because of this one.
            mail.held = pending.held;
            return self.send_on(&mail, Decision::Held).await;
        }
        let reason = rejection(&mail);
        match self.arbiter.reject(id) {
            Stand::Waiting => match self.refuse(id, &reason).await {
                Some(decision) => decision,
                None => self.hold_late(mail, reason).await,
            },
            Stand::Deciding => Decision::Undecided,
            Stand::Answered => self.hold_late(mail, reason).await,
        }
    }

    /// A stage rejects a mail whose sender was told 250.
    async fn hold_late(&self, mut mail: Envelope, reason: String) -> Decision {
        if self.is_cleared(mail.id) && !self.is_by_scanner(&mail) {
            // Another round of the same body was passed by every check, and its copy may be under way still: one in a
            // mailbox and one in the quarantine would be two.
            mail.verdicts.retain(|verdict| verdict.disposition != Disposition::Reject);
            return self.send_on(&mail, Decision::Settled).await;
        }
        // A scanner that has learned a virus since is right, whatever it said before.
        self.hold(mail, reason).await
    }

    async fn hold(&self, mut mail: Envelope, reason: String) -> Decision {
        match self.journal.hold(mail.id, &reason).await {
            // It may have ended by another round while this one was looked at, wholly or in part.
            None => return self.hold_unknown(mail).await,
            Some(open) if open.is_empty() => return Decision::Settled,
            Some(open) => mail.open = open,
        }
        mail.held = Some(reason);
        self.send_on(&mail, Decision::Held).await
    }

    /// A mail that is not pending. When the journal has lost it, by damage or with its folder, the broker's copy is the
    /// only one, and its sender may have had 250: it is held, for those for whom it is under way. A mail that has ended
    /// gets no second copy.
    async fn hold_unknown(&self, mut mail: Envelope) -> Decision {
        if self.journal.has_ended(mail.id) {
            return Decision::Settled;
        }
        tracing::warn!(mail = %mail.id, "a stage rejects it, and the journal does not know it: it goes on as held");
        let reason = mail.held.take().unwrap_or_else(|| rejection(&mail));
        mail.held = Some(reason);
        self.send_on(&mail, Decision::Held).await
    }

    /// When the broker has lost dead letters, no operator knows of the mail that is buried: it goes round again, and
    /// what cannot be delivered still comes back as a letter. False while the broker does not say what it has.
    async fn dig_up(&self) -> bool {
        for id in self.journal.buried() {
            match self.broker.holds(subjects::DEAD, &subjects::dead_of(id)).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(mail = %id, "its dead letter is lost; what was buried of it goes round again");
                    if let Err(error) = self.journal.replay(id, &[], clock::now()).await {
                        tracing::error!(mail = %id, error = format!("{error:#}"), "it stays buried, without a letter");
                        return false;
                    }
                }
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "the dead letters are not known yet");
                    return false;
                }
            }
        }
        true
    }

    /// Records a refusal, and gives the sender its word. None if some recipient has the mail already, or all checks
    /// were passed: its sender is told 250.
    async fn refuse(&self, id: MailId, reason: &str) -> Option<Decision> {
        let refused = self.journal.refuse(id).await;
        let (word, decision) = match &refused {
            Ok(Refusal::Done) => (Word::Refused(reason.to_owned()), Some(Decision::Refused)),
            // Another round was passed by every check and has ended meanwhile.
            Ok(Refusal::Ended) => (Word::Kept, Some(Decision::Settled)),
            Ok(Refusal::Begun) => (Word::Kept, None),
            Err(error) => {
                tracing::error!(mail = %id, error = format!("{error:#}"), "a refusal cannot be recorded");
                (Word::Failed, Some(Decision::Undecided))
            }
        };
        self.arbiter.decide(id, word);
        if matches!(refused, Ok(Refusal::Done)) {
            self.forget_body(id, None).await;
        }
        decision
    }

    fn is_cleared(&self, id: MailId) -> bool {
        self.journal.pending(id).is_some_and(|pending| pending.cleared)
    }

    fn is_by_scanner(&self, mail: &Envelope) -> bool {
        let by_scanner = |verdict: &Verdict| Some(&verdict.stage) == self.scanner.as_ref();
        mail.verdicts.iter().any(|verdict| verdict.disposition == Disposition::Reject && by_scanner(verdict))
    }

    /// Where a mail goes that is past its checks, or held: to the scanner as long as that has not seen it.
    fn behind_checks(&self, mail: &Envelope) -> &str {
        let is_new = |scanner: &&String| !mail.verdicts.iter().any(|verdict| verdict.stage == **scanner);
        self.scanner.as_ref().filter(is_new).map_or(subjects::DELIVER_STAGE, String::as_str)
    }

    async fn send_on(&self, mail: &Envelope, decision: Decision) -> Decision {
        let stage = self.behind_checks(mail);
        let message_id = subjects::message_id(mail.id, &format!("{stage}-held"), mail.round);
        match self.broker.publish(subjects::stage(stage), Some(&message_id), mail.encode()).await {
            Ok(()) => decision,
            Err(error) => {
                tracing::warn!(mail = %mail.id, %error, "a rejected mail cannot be sent on yet");
                Decision::Undecided
            }
        }
    }

    async fn end(&self, in_hand: &InHand) {
        match Ended::decode(in_hand.message.payload.clone()) {
            Ok(ended) => {
                let size = self.journal.body_size(ended.id);
                if self.journal.ended(&ended).await {
                    self.forget_body(ended.id, size).await;
                }
            }
            Err(error) => tracing::error!(%error, "an end cannot be read; the mail goes round again"),
        }
        in_hand.tell(AckKind::Ack).await;
    }

    async fn forget_body(&self, id: MailId, size: Option<u64>) {
        self.arbiter.forget(id);
        let chunks = size.map_or(1, |size| size.div_ceil(CHUNK as u64));
        self.bodies.purge(id, u32::try_from(chunks).unwrap_or(u32::MAX)).await;
    }

    /// Says whether the broker takes mail: false when it took none of those that were tried. When it says nothing to
    /// one, the others that wait for room are not tried.
    async fn send_all_round(&self, mut due: Vec<MailId>) -> bool {
        let mut rounds = futures::stream::iter(due.clone())
            .map(|id| async move { (id, self.send_round(id).await) })
            .buffer_unordered(AT_ONCE);
        let (mut taken, mut failed) = (false, false);
        while let Some((id, sent)) = rounds.next().await {
            due.retain(|other| *other != id);
            match sent {
                Ok(is_sent) => taken |= is_sent,
                // What is refused is refused for itself: others may be taken.
                Err(PublishError::Refused { .. }) => failed = true,
                Err(_) => {
                    (taken, failed) = (false, true);
                    break;
                }
            }
        }
        drop(rounds);
        for id in due {
            self.journal.due_again(id, clock::now().plus(AGAIN));
        }
        taken || !failed
    }

    /// Sends a mail round. Says whether there was anything to send.
    async fn send_round(&self, id: MailId) -> Result<bool, PublishError> {
        // Room first: mails of the largest size would take more memory together than there is.
        let Some(size) = self.journal.body_size(id) else { return Ok(false) };
        let _share = self.refill.wait(size).await;
        let (envelope, body) = match self.next_round(id).await {
            Ok(Some(round)) => round,
            Ok(None) => return Ok(false),
            Err(_) if self.journal.pending(id).is_none() => return Ok(false),
            Err(error) => {
                tracing::error!(mail = %id, error = format!("{error:#}"), "it cannot be read and is not sent round");
                self.journal.due_again(id, clock::now().plus(UNREADABLE));
                return Ok(false);
            }
        };
        let stage = if envelope.held.is_some() { self.behind_checks(&envelope) } else { &self.first };
        let sent = self.hand_over_again(&envelope, &body, stage).await;
        if let Err(error) = &sent {
            tracing::warn!(mail = %id, %error, "cannot be sent round yet");
            self.journal.due_again(id, clock::now().plus(AGAIN));
        }
        sent.map(|()| true)
    }

    /// Without recipients that are open a mail has ended, or waits for an operator: an empty list would mean all.
    async fn next_round(&self, id: MailId) -> anyhow::Result<Option<(Envelope, Bytes)>> {
        let Some(pending) = self.journal.pending(id).filter(|pending| !pending.open.is_empty()) else {
            return Ok(None);
        };
        let (envelope, body) = self.journal.read(id).await?;
        let mut envelope = Envelope::decode(envelope)?;
        envelope.round = pending.round;
        // Who has the mail is not asked again: a store does not remember for ever what it has delivered.
        envelope.open = pending.open;
        envelope.held = pending.held;
        Ok(Some((envelope, body)))
    }
}

/// What the rejecting stage gave as its reason.
fn rejection(mail: &Envelope) -> String {
    let verdict = mail.verdicts.iter().rev().find(|verdict| verdict.disposition == Disposition::Reject);
    verdict.map_or_else(|| "rejected".to_owned(), |verdict| verdict.reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is due tomorrow by a clock that was ahead waited for tomorrow.
    #[test]
    fn a_clock_that_is_set_back_is_noticed_once() {
        let mut seen = Seen(Millis(1_000_000));
        for (now, want) in [(1_000_250, false), (1_000_250, false), (970_250, false), (940_249, true), (940_499, false)]
        {
            assert_eq!(seen.was_set_back(Millis(now)), want, "{now}");
        }
    }
}
