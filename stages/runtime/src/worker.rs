//! The worker loop: takes mail off a consumer, hands it to its stage, and carries out what `settle` says.
//!
//! A message is confirmed only after everything that follows from it is safe. When a step fails, the message is given
//! back, so that it is tried again soon; when even that is lost, the server delivers it again by itself. A panic costs
//! one message's attempt, not the process.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use async_nats::jetstream::AckKind;
use futures::FutureExt as _;
use proto::{Burial, DeadLetter, Decision, Disposition, Ended, Envelope, Millis, Notice, Verdict, subjects};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span};

use crate::bodies::{Bodies, Room};
use crate::broker::Broker;
use crate::clock;
use crate::config::Section;
use crate::fault::Fault;
use crate::in_hand::InHand;
use crate::pull::{Pull, Settings};
use crate::settle::{Answer, Attempt, Patience, Plan, Step, backoff, is_overdue, settle};
use crate::stage::{Mail, Route, Stage};
use crate::suspects::Suspects;
use crate::targets::{concerned, named};
use crate::tasks::Tasks;
use crate::telemetry;
use crate::trace;

/// How long accept may take to decide about a rejected mail. It may have to send it on.
const ARBITRATION: Duration = Duration::from_secs(10);

/// How long accept may take to say whether a mail has ended.
const INQUIRY: Duration = Duration::from_secs(2);

/// What every worker loop can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Messages that are worked on at once.
    pub workers: usize,
    /// A message that takes longer counts as one that hangs the stage.
    pub time_limit: Duration,
    /// The server delivers a message again when it has not heard of it for so long.
    pub ack_wait: Duration,
    /// See [`crate::pull::Settings`].
    pub watchdog: Duration,
    /// See [`Patience`].
    pub patience: Patience,
}

impl Config {
    /// Reads the section `work` of a stage, whose default number of workers is given.
    pub fn read(stage: &mut Section, workers: u64) -> Self {
        let mut section = stage.section("work");
        let config = Self {
            workers: usize::try_from(section.count("workers", workers, 1..=4096, "Messages that one process works on at once.")).unwrap_or(1),
            time_limit: section.span("time_limit", "5min", "100ms"..="1h", "A message that takes longer counts as one that hangs the stage. Well above the stage's own deadlines.").0,
            ack_wait: section.span("ack_wait", "10s", "1s"..="5min", "The broker hands a message to another process when it has not heard of it for so long. Progress is told three times as often.").0,
            watchdog: section.span("watchdog", "10s", "100ms"..="10min", "A consumer that has mail pending and gets none for so long is bound anew.").0,
            patience: Patience {
                backoff_first: section.span("backoff_first", "1s", "10ms"..="1h", "The wait before the second attempt; it doubles from there.").0,
                backoff_most: section.span("backoff_most", "1min", "10ms"..="1day", "The longest wait between two attempts. Short enough that mail flows soon after an outage.").0,
                warn_after: section.span("warn_after", "10min", "1s"..="5days", "Mail that waits for longer raises the alarm metric.").0,
                give_up_after: section.span("give_up_after", "5days", "1s"..="30days", "Mail that has waited for longer is put to the dead letters. The usual life of a queue, RFC 5321 section 4.5.4.1.").0,
                crashes: section.count("crashes", 3, 1..=100, "Mail that has made the stage of one process panic or hang so often is put to the dead letters."),
            },
        };
        section.finish();
        config
    }
}

/// Where a stage stands in the chain.
#[derive(Debug, Clone)]
pub struct Place {
    /// The stage's name.
    pub stage: String,
    /// The stage behind it.
    pub next: String,
    /// The stream it reads.
    pub stream: String,
    /// Its consumer.
    pub consumer: String,
    /// Its subject.
    pub subject: String,
}

/// Everything that a worker loop needs beside its stage.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// The broker.
    pub broker: Broker,
    /// The bodies.
    pub bodies: Bodies,
    /// Background work.
    pub tasks: Tasks,
}

struct Worker<S> {
    stage: S,
    place: Place,
    config: Config,
    shop: Workshop,
    free: Semaphore,
    room: Room,
    suspects: Suspects,
}

/// Runs a stage until the shutdown: what is in hand then is finished, nothing new is pulled.
///
/// # Errors
/// None at present; the loop ends with the shutdown.
pub async fn run<S: Stage>(stage: S, place: Place, config: Config, shop: Workshop) -> anyhow::Result<()> {
    let settings = Settings {
        stream: place.stream.clone(),
        consumer: place.consumer.clone(),
        subject: place.subject.clone(),
        // Twice the workers: while one message is worked on, the next is already here.
        room: config.workers * 2,
        ack_wait: config.ack_wait,
        watchdog: config.watchdog,
    };
    let mut pull = Pull::new(shop.broker.clone(), settings, shop.tasks.clone());
    let tasks = shop.tasks.clone();
    telemetry::workers(&place.stage, config.workers);
    let free = Semaphore::new(config.workers);
    let room = Room::new(shop.broker.config().in_hand);
    let worker = Arc::new(Worker { stage, place, config, shop, free, room, suspects: Suspects::default() });
    while let Some(in_hand) = pull.next().await {
        let worker = Arc::clone(&worker);
        tasks.spawn("message", async move { worker.work(&in_hand).await });
    }
    Ok(())
}

impl<S: Stage> Worker<S> {
    async fn work(&self, in_hand: &InHand) {
        let envelope = Envelope::decode(in_hand.message.payload.clone()).map_err(|error| error.to_string());
        let span = self.span(in_hand, envelope.as_ref().ok());
        in_hand.during(self.attend(in_hand, envelope).instrument(span)).await;
    }

    /// Every line that is logged within carries the mail's id.
    fn span(&self, in_hand: &InHand, envelope: Option<&Envelope>) -> Span {
        let span = tracing::info_span!("mail", stage = self.place.stage, mail = Empty, trace = Empty, parent = Empty);
        if let Some(envelope) = envelope {
            span.record("mail", display(envelope.id));
        }
        let header = in_hand.message.headers.as_ref().and_then(|headers| headers.get(trace::HEADER));
        if let Some((trace, parent)) = header.and_then(|header| trace::read(header.as_str())) {
            span.record("trace", trace).record("parent", parent);
        }
        span
    }

    async fn attend(&self, in_hand: &InHand, envelope: Result<Envelope, String>) {
        let turn = self.free.acquire().await;
        if self.shop.tasks.is_stopping() {
            // Not begun: another process can have it at once.
            return in_hand.tell(AckKind::Nak(None)).await;
        }
        let began = Instant::now();
        let mut attempt = attempt(in_hand);
        let (envelope, mut answer) = match envelope {
            Ok(envelope) if is_overdue(attempt, &self.config.patience) => (Some(envelope), Answer::Overdue),
            Ok(envelope) => {
                let answer = self.ask(&envelope).await;
                attempt.crashes = self.suspects.after(envelope.id, &answer, self.config.patience.crashes);
                (Some(envelope), answer)
            }
            Err(error) => (None, Answer::Unreadable(error)),
        };
        // What follows is the broker's work and accept's, and may take long while they are away: others have their
        // turn. How many are in hand is bounded by the pull's room.
        drop(turn);
        if let Some(envelope) = &envelope {
            answer = self.unless_over(envelope, answer).await;
        }
        let elapsed = began.elapsed();
        let mut plan = settle(answer, attempt, &self.config.patience);
        stamp(&mut plan, &self.place.stage, elapsed);
        let done = self.carry_out(&plan, in_hand, envelope.as_ref(), attempt).await;
        if let Err(error) = &done {
            self.come_back(error, in_hand, envelope.as_ref(), attempt).await;
        }
        let name = if done.is_ok() { plan.name } else { "undone" };
        telemetry::settled(&self.place.stage, name, elapsed);
        tracing::info!(
            attempt = attempt.delivered,
            outcome = name,
            reason = plan.reason,
            ms = elapsed.as_millis(),
            "settled"
        );
    }

    async fn ask(&self, envelope: &Envelope) -> Answer {
        let mail = Mail::new(envelope.clone(), self.shop.bodies.clone(), self.room.clone());
        let handled = AssertUnwindSafe(self.stage.handle(&mail)).catch_unwind();
        match within(self.config.time_limit, || mail.waited(), handled).await {
            Some(Ok(Ok(outcome))) => Answer::Outcome(outcome),
            Some(Ok(Err(fault))) => Answer::Fault(fault),
            Some(Err(_)) => Answer::Panicked,
            None => Answer::TimedOut,
        }
    }

    /// A mail that went round twice leaves a copy behind when it ends, whose body is gone. Only accept knows that of
    /// one whose body is late, or of a copy that comes too late.
    async fn unless_over(&self, mail: &Envelope, answer: Answer) -> Answer {
        if !matches!(answer, Answer::Fault(Fault::Missed(_)) | Answer::Overdue) {
            return answer;
        }
        let notice = Notice::Missed(mail.id).encode();
        match self.shop.broker.ask(subjects::notice(&mail.node), notice, INQUIRY).await.map(Decision::decode) {
            Ok(Ok(Decision::Settled)) => Answer::Over,
            // Not ended, or nobody says so: it waits.
            _ => answer,
        }
    }

    /// A step failed. The message comes back; one that has come back for too long is put to the dead letters.
    async fn come_back(&self, error: &anyhow::Error, in_hand: &InHand, envelope: Option<&Envelope>, attempt: Attempt) {
        let (stage, patience) = (self.place.stage.as_str(), &self.config.patience);
        let reason = format!("{error:#}");
        tracing::warn!(reason, "a step failed; the message comes back");
        if attempt.age >= patience.warn_after {
            telemetry::alarm(stage);
        }
        let is_buried =
            attempt.age >= patience.give_up_after && self.bury(&reason, in_hand, envelope, attempt).await.is_ok();
        let again = AckKind::Nak(Some(backoff(attempt.delivered, patience)));
        in_hand.tell(if is_buried { AckKind::Term } else { again }).await;
    }

    async fn carry_out(
        &self,
        plan: &Plan,
        in_hand: &InHand,
        envelope: Option<&Envelope>,
        attempt: Attempt,
    ) -> anyhow::Result<()> {
        for step in &plan.steps {
            match (step, envelope) {
                (Step::Ack, _) => in_hand.tell(AckKind::Ack).await,
                (Step::Nak(wait), _) => in_hand.tell(AckKind::Nak(Some(*wait))).await,
                (Step::Term, _) => in_hand.tell(AckKind::Term).await,
                (Step::Alarm, _) => {
                    telemetry::alarm(&self.place.stage);
                    tracing::warn!(reason = plan.reason, "mail waits or is given up");
                }
                (Step::Bury(reason), _) => self.bury(reason, in_hand, envelope, attempt).await?,
                (Step::Forward(verdict), Some(mail)) => self.forward(mail, verdict, &self.place.next).await?,
                (Step::Divert(verdict), Some(mail)) => self.forward(mail, verdict, subjects::DELIVER_STAGE).await?,
                (Step::Back(stage), Some(mail)) => self.back(mail, stage).await?,
                (Step::Copies(routes), Some(mail)) => self.route(mail, routes).await?,
                (Step::Onward(routes), Some(mail)) => self.copies(mail, routes, "onward").await?,
                (Step::Arbitrate(verdict), Some(mail)) => self.arbitrate(mail, verdict).await?,
                (Step::End(ending), Some(mail)) => self.end(mail, ending).await?,
                (_, None) => anyhow::bail!("there is no envelope to do this with"),
            }
        }
        Ok(())
    }

    async fn forward(&self, mail: &Envelope, verdict: &Verdict, next: &str) -> anyhow::Result<()> {
        let mut mail = mail.clone();
        if verdict.disposition == Disposition::Hold && mail.held.is_none() {
            mail.held = Some(verdict.reason.clone());
        }
        mail.verdicts.push(verdict.clone());
        // With the verdicts so far: a mail may well come to a stage a second time.
        let hop = format!("{next}-{}", mail.verdicts.len());
        let message_id = subjects::message_id(mail.id, &hop, mail.round);
        Ok(self.shop.broker.publish(subjects::stage(next), Some(&message_id), mail.encode()).await?)
    }

    async fn back(&self, mail: &Envelope, stage: &str) -> anyhow::Result<()> {
        let message_id = subjects::message_id(mail.id, &format!("{stage}-again-{}", mail.verdicts.len()), mail.round);
        Ok(self.shop.broker.publish(subjects::stage(stage), Some(&message_id), mail.encode()).await?)
    }

    async fn route(&self, mail: &Envelope, routes: &[Route]) -> anyhow::Result<()> {
        self.copies(mail, routes, "store").await?;
        // The sender may still be waiting. A mail that is held gets its 250, too, but it has not passed every check.
        let is_held = mail.held.is_some() || routes.iter().all(|route| route.held.is_some());
        let notice = if is_held { Notice::Held(mail.id) } else { Notice::Cleared(mail.id) };
        self.shop.broker.notify(subjects::notice(&mail.node), notice.encode()).await;
        Ok(())
    }

    async fn copies(&self, mail: &Envelope, routes: &[Route], way: &str) -> anyhow::Result<()> {
        let publish = routes.iter().map(|route| {
            let mut copy = mail.clone();
            copy.targets.clone_from(&route.targets);
            copy.held = copy.held.or_else(|| route.held.clone());
            // By its targets: another attempt may route otherwise, and two stores hand on to one quarantine.
            let hop = format!("{way}-{}-{}-{}", named(&route.targets), route.node, u8::from(route.held.is_some()));
            let message_id = subjects::message_id(mail.id, &hop, mail.round);
            let subject = subjects::store(&route.node);
            async move { self.shop.broker.publish(subject, Some(&message_id), copy.encode()).await }
        });
        futures::future::try_join_all(publish).await?;
        Ok(())
    }

    async fn arbitrate(&self, mail: &Envelope, verdict: &Verdict) -> anyhow::Result<()> {
        let mut mail = mail.clone();
        mail.verdicts.push(verdict.clone());
        let subject = subjects::notice(&mail.node);
        let notice = Notice::Rejected(Box::new(mail)).encode();
        let answer = self.shop.broker.ask(subject, notice, ARBITRATION).await?;
        match Decision::decode(answer)? {
            Decision::Undecided => Err(anyhow!("accept could not decide about the rejected mail")),
            Decision::Refused | Decision::Held | Decision::Settled => Ok(()),
        }
    }

    async fn end(&self, mail: &Envelope, ending: &Ended) -> anyhow::Result<()> {
        Ok(self.shop.broker.publish(subjects::ended(&mail.node), None, ending.encode()).await?)
    }

    async fn bury(
        &self,
        reason: &str,
        in_hand: &InHand,
        envelope: Option<&Envelope>,
        attempt: Attempt,
    ) -> anyhow::Result<()> {
        let stage = self.place.stage.clone();
        let letter = DeadLetter {
            stage: stage.clone(),
            reason: reason.to_owned(),
            attempts: attempt.delivered,
            age: attempt.age,
            buried: clock::now(),
            payload: in_hand.message.payload.clone(),
        };
        let broker = &self.shop.broker;
        let message_id = envelope.map(|mail| subjects::message_id(mail.id, &format!("dead-{stage}"), mail.round));
        let subject = subjects::dead(&stage, envelope.map(|mail| mail.id));
        broker.publish(subject, message_id.as_deref(), letter.encode()).await?;
        if let Some(mail) = envelope {
            let burial = Burial { stage, reason: reason.to_owned(), recipients: concerned(mail) };
            let ended = Ended { id: mail.id, ends: Vec::new(), burial: Some(burial) };
            broker.publish(subjects::ended(&mail.node), None, ended.encode()).await?;
        }
        Ok(())
    }
}

/// Does `work`, if it takes no longer than `limit` beside what it has `waited` for others.
async fn within<T>(limit: Duration, waited: impl Fn() -> Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let began = Instant::now();
    loop {
        let until = began + limit + waited();
        match tokio::time::timeout_at(until, &mut work).await {
            Ok(done) => return Some(done),
            Err(_) if began + limit + waited() > until => {}
            Err(_) => return None,
        }
    }
}

fn attempt(in_hand: &InHand) -> Attempt {
    let Ok(info) = in_hand.message.info() else { return Attempt { delivered: 1, crashes: 0, age: Duration::ZERO } };
    let published = u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    let age = clock::patient().since(Millis(published));
    Attempt { delivered: u64::try_from(info.delivered).unwrap_or(1), crashes: 0, age }
}

/// Puts the stage's name and its time into the verdicts of a plan.
fn stamp(plan: &mut Plan, stage: &str, elapsed: Duration) {
    for step in &mut plan.steps {
        if let Step::Forward(verdict) | Step::Divert(verdict) | Step::Arbitrate(verdict) = step {
            stage.clone_into(&mut verdict.stage);
            verdict.millis = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Work that waits for others for so many seconds and then works for so many, within five.
    async fn check(waits: u64, works: u64) -> Option<()> {
        let waited = AtomicU64::new(0);
        let work = async {
            for _ in 0..waits {
                tokio::time::sleep(Duration::from_secs(1)).await;
                waited.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_secs(works)).await;
        };
        within(Duration::from_secs(5), || Duration::from_secs(waited.load(Ordering::Relaxed)), work).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_others_does_not_hang() {
        assert_eq!(check(0, 4).await, Some(()));
        assert_eq!(check(0, 6).await, None);
        assert_eq!(check(60, 4).await, Some(()));
        assert_eq!(check(60, 6).await, None);
    }
}
