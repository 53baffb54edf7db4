//! Pulls messages off a consumer: as many as there is room for, whatever happens to the broker.
//!
//! Room first, message second. Errors are looked at one by one: most are not the end. The consumer is bound anew when
//! the connection or lost streams came back, when the server says that it is gone, and by the watchdog: when it has
//! messages pending and none arrives for a while. A stream that is found missing then is made anew by `streams`.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::consumer::pull::{BatchConfig, Config as ConsumerConfig};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, Info};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{ErrorCode, Message};
use async_nats::{StatusCode, Subscriber};
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::in_hand::InHand;
use crate::sweep::Sweeper;
use crate::tasks::Tasks;
use crate::telemetry;

/// The server forgets a pull request after that, and says so.
const REQUEST_LIFE: Duration = Duration::from_secs(30);

/// How much later that must have been heard.
const REQUEST_LATE: Duration = Duration::from_secs(5);

/// How long until a consumer that seems to be ahead of its stream is asked again. Servers of a cluster that are further
/// behind each other than that have lost each other.
const ASK_TWICE: Duration = Duration::from_secs(1);

/// How long between two attempts to bind.
const BIND_AGAIN: Duration = Duration::from_millis(300);

/// Which consumer, and how it is pulled.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The stream.
    pub stream: String,
    /// The durable consumer's name.
    pub consumer: String,
    /// The subject that it filters.
    pub subject: String,
    /// Messages in hand at most.
    pub room: usize,
    /// The server delivers a message again when it has not heard of it for so long.
    pub ack_wait: Duration,
    /// A consumer that has messages pending and gets none for so long is bound anew.
    pub watchdog: Duration,
}

/// A consumer that is being pulled.
pub struct Pull {
    broker: Broker,
    settings: Settings,
    tasks: Tasks,
    room: Arc<Semaphore>,
    bound: Option<Bound>,
    epoch: watch::Receiver<u64>,
    /// The epoch in which it was bound.
    bound_in: u64,
    sweeper: Arc<Sweeper>,
}

struct Bound {
    consumer: Consumer<ConsumerConfig>,
    inbox: String,
    messages: Subscriber,
    /// Room taken for messages that were asked for and have not come.
    taken: Option<OwnedSemaphorePermit>,
    /// Messages asked for that have not come. At most what `taken` holds.
    asked: usize,
    /// When the latest request was made.
    requested: Instant,
    /// When something was heard, or the watchdog looked.
    last: Instant,
    /// When it was looked last whether the stream still holds what was confirmed.
    swept: Option<Instant>,
}

impl Pull {
    /// A pull that binds at the first [`Pull::next`].
    pub fn new(broker: Broker, settings: Settings, tasks: Tasks) -> Self {
        let room = Arc::new(Semaphore::new(settings.room.max(1)));
        let epoch = broker.epoch();
        let sweeper = Sweeper::new(broker.clone(), &settings);
        Self { broker, settings, tasks, room, bound: None, epoch, bound_in: 0, sweeper: Arc::new(sweeper) }
    }

    /// The next message, or nothing once the shutdown has begun.
    pub async fn next(&mut self) -> Option<InHand> {
        loop {
            if self.tasks.is_stopping() {
                return None;
            }
            if self.epoch.has_changed().unwrap_or(false) {
                self.bound_in = *self.epoch.borrow_and_update();
                self.unbind("the connection came back, or lost streams did");
            }
            if self.bound.is_none() && !self.bind().await {
                continue;
            }
            if let Some(bound) = self.bound.as_mut() {
                self.sweeper.begin_when_due(&mut bound.swept, &self.tasks);
            }
            if !self.request().await {
                continue;
            }
            if let Some(message) = self.receive().await {
                return Some(message);
            }
        }
    }

    fn unbind(&mut self, why: &str) {
        if self.bound.take().is_some() {
            tracing::info!(consumer = self.settings.consumer, why, "binding anew");
            telemetry::rebound(&self.settings.stream);
        }
    }

    async fn bind(&mut self) -> bool {
        let bound = tokio::select! {
            () = self.tasks.stopping() => return false,
            bound = self.try_bind() => bound,
        };
        match bound {
            Ok(bound) => {
                self.bound = Some(bound);
                true
            }
            Err(error) => {
                tracing::debug!(consumer = self.settings.consumer, error = format!("{error:#}"), "cannot be bound yet");
                self.pause(BIND_AGAIN).await;
                false
            }
        }
    }

    async fn pause(&self, span: Duration) {
        tokio::select! {
            () = self.tasks.stopping() => {}
            () = tokio::time::sleep(span) => {}
        }
    }

    async fn try_bind(&self) -> anyhow::Result<Bound> {
        let wanted = ConsumerConfig {
            durable_name: Some(self.settings.consumer.clone()),
            filter_subject: self.settings.subject.clone(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.settings.ack_wait,
            // Beyond its limit the server forgets a message, so there is none; and a delayed nak keeps its slot, so the
            // slots must not run out while a scanner is away.
            max_deliver: -1,
            max_ack_pending: -1,
            ..ConsumerConfig::default()
        };
        let stream = self.broker.jetstream().get_stream_no_info(&self.settings.stream).await?;
        let consumer = stream.create_consumer(wanted).await.inspect_err(|error| {
            // Perhaps nobody publishes to it, who would find that out.
            if let ConsumerErrorKind::JetStream(why) = error.kind()
                && why.error_code() == ErrorCode::STREAM_NOT_FOUND
            {
                self.broker.miss_stream();
            }
        });
        let consumer = consumer.context("making the consumer")?;
        let first = self.is_ahead_of_stream(consumer.cached_info());
        let second = async { self.is_ahead_of_stream(&consumer.get_info().await?).await };
        if twice(first, self.pause(ASK_TWICE), second).await? {
            // The broker has lost the end of the stream and kept the consumer: what comes now would count as confirmed.
            stream.delete_consumer(&self.settings.consumer).await?;
            bail!("the consumer was ahead of its stream");
        }
        let inbox = self.broker.client().new_inbox();
        let messages = self.broker.client().subscribe(inbox.clone()).await?;
        let now = Instant::now();
        Ok(Bound { consumer, inbox, messages, taken: None, asked: 0, requested: now, last: now, swept: None })
    }

    async fn is_ahead_of_stream(&self, known: &Info) -> anyhow::Result<bool> {
        let (floor, delivered) = (known.ack_floor.stream_sequence, known.delivered.stream_sequence);
        if delivered == 0 {
            return Ok(false);
        }
        Ok(is_ahead(floor, delivered, self.broker.state(&self.settings.stream).await?.last_sequence))
    }

    /// Asks for as many messages as there is room for. Says whether there is anything to wait for.
    async fn request(&mut self) -> bool {
        let Some(bound) = self.bound.as_mut() else { return false };
        let spare = bound.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) - bound.asked;
        let least = if bound.asked == 0 { 1 } else { self.settings.room.div_ceil(4) };
        if spare < least && bound.asked == 0 && self.room.available_permits() == 0 {
            let room = tokio::select! {
                () = self.tasks.stopping() => return false,
                room = Arc::clone(&self.room).acquire_owned() => room,
            };
            merge(&mut bound.taken, room.ok());
        }
        let free = u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX);
        if free > 0 {
            merge(&mut bound.taken, Arc::clone(&self.room).try_acquire_many_owned(free).ok());
        }
        let ask = bound.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) - bound.asked;
        if ask < least {
            return bound.asked > 0;
        }
        let batch = BatchConfig { batch: ask, expires: Some(REQUEST_LIFE), ..BatchConfig::default() };
        match bound.consumer.request_batch(batch, bound.inbox.clone().into()).await {
            Ok(()) => {
                bound.asked += ask;
                bound.requested = Instant::now();
                true
            }
            Err(error) => {
                self.unbind(&error.to_string());
                self.pause(BIND_AGAIN).await;
                false
            }
        }
    }

    async fn receive(&mut self) -> Option<InHand> {
        let bound = self.bound.as_mut()?;
        // Room that becomes free while others are awaited is asked for at the latest then.
        let patience =
            if self.room.available_permits() > 0 { Duration::from_millis(5) } else { Duration::from_millis(250) };
        let patience = if bound.asked >= self.settings.room { self.settings.watchdog } else { patience };
        let next = tokio::select! {
            () = self.tasks.stopping() => return None,
            _ = self.epoch.changed() => { self.epoch.mark_changed(); return None }
            next = tokio::time::timeout(patience, bound.messages.next()) => next,
        };
        match next {
            Ok(Some(message)) => self.take(message).await,
            Ok(None) => {
                self.unbind("the subscription ended");
                None
            }
            Err(_) => {
                self.watch().await;
                None
            }
        }
    }

    async fn take(&mut self, message: async_nats::Message) -> Option<InHand> {
        let bound = self.bound.as_mut()?;
        bound.last = Instant::now();
        match message.status {
            None | Some(StatusCode::OK) if message.reply.is_some() => {
                bound.asked = bound.asked.saturating_sub(1);
                let room = bound.taken.as_mut().and_then(|taken| taken.split(1))?;
                let message = Message { message, context: self.broker.jetstream().clone() };
                Some(InHand::new(message, self.broker.clone(), self.bound_in, self.settings.ack_wait / 3, room))
            }
            Some(StatusCode::IDLE_HEARTBEAT) => None,
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                bound.asked = bound.asked.saturating_sub(unserved(&message).unwrap_or(bound.asked));
                None
            }
            status => {
                let why = format!("{:?} {}", status, message.description.as_deref().unwrap_or(""));
                self.unbind(&why);
                self.pause(BIND_AGAIN).await;
                None
            }
        }
    }

    /// Nothing came for a while, although something was asked for.
    async fn watch(&mut self) {
        let Some(bound) = self.bound.as_mut() else { return };
        if bound.asked == 0 || bound.last.elapsed() < self.settings.watchdog {
            return;
        }
        bound.last = Instant::now();
        let info = tokio::select! {
            () = self.tasks.stopping() => return,
            info = bound.consumer.get_info() => info,
        };
        let info = match info {
            Ok(info) => info,
            Err(error) => return self.unbind(&error.to_string()),
        };
        let is_over = bound.requested.elapsed() > REQUEST_LIFE + REQUEST_LATE;
        let Some(wrong) = what_is_wrong(info.num_pending, info.num_waiting, is_over) else { return };
        telemetry::watchdog(&self.settings.stream);
        let (consumer, pending) = (&self.settings.consumer, info.num_pending);
        tracing::warn!(consumer, pending, "{}", wrong.why());
        match wrong {
            // Should the request live after all, its messages still find their way here.
            Wrong::RequestLost => bound.asked = 0,
            Wrong::NoneArrives => self.unbind(wrong.why()),
        }
    }
}

/// Whether a consumer is ahead of its stream, seen twice with a pause in between. The two are asked one after the
/// other, perhaps of two servers: once may be the one's being late, and whoever believed it would throw away what is
/// confirmed.
async fn twice(
    first: impl Future<Output = anyhow::Result<bool>>,
    pause: impl Future<Output = ()>,
    second: impl Future<Output = anyhow::Result<bool>>,
) -> anyhow::Result<bool> {
    if !first.await? {
        return Ok(false);
    }
    pause.await;
    second.await
}

#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// Nobody has asked the server for messages.
    RequestLost,
    /// It has messages and requests, and does not bring them together.
    NoneArrives,
}

impl Wrong {
    fn why(&self) -> &'static str {
        match self {
            Self::RequestLost => "the request for messages was lost; asking again",
            Self::NoneArrives => "messages wait and none arrives",
        }
    }
}

/// Whether a consumer knows of messages that its stream has never had.
fn is_ahead(floor: u64, delivered: u64, last: u64) -> bool {
    floor.max(delivered) > last
}

/// What is wrong with a consumer that was asked and has sent nothing for a while. Messages that wait to be delivered
/// again are not among the pending ones, so a lost request is told by the requests that the server knows, of this
/// process or of another; and when it must have been over and was not heard of.
fn what_is_wrong(pending: u64, requests: usize, is_over: bool) -> Option<Wrong> {
    match (pending, requests, is_over) {
        (_, 0, _) | (_, _, true) => Some(Wrong::RequestLost),
        (0, _, false) => None,
        (_, _, false) => Some(Wrong::NoneArrives),
    }
}

fn merge(taken: &mut Option<OwnedSemaphorePermit>, more: Option<OwnedSemaphorePermit>) {
    match (taken.as_mut(), more) {
        (Some(taken), Some(more)) => taken.merge(more),
        (None, more) => *taken = more,
        (Some(_), None) => {}
    }
}

/// How many messages of a pull request the server did not serve, as it says in its last word about the request.
fn unserved(message: &async_nats::Message) -> Option<usize> {
    message.headers.as_ref()?.get("Nats-Pending-Messages")?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ahead() {
        for (floor, delivered, last, want) in
            [(0, 0, 0, false), (0, 5, 5, false), (4, 5, 9, false), (0, 6, 5, true), (7, 5, 6, true)]
        {
            assert_eq!(is_ahead(floor, delivered, last), want, "{floor} {delivered} {last}");
        }
    }

    /// Servers of a cluster are behind each other for a moment: the consumer that was ahead is not any more.
    #[tokio::test]
    async fn a_consumer_is_not_taken_away_at_the_first_look() {
        for (first, second, want, steps) in [
            (Some(false), Some(true), Some(false), "first"),
            (Some(true), Some(false), Some(false), "first pause second"),
            (Some(true), Some(true), Some(true), "first pause second"),
            (Some(true), None, None, "first pause second"),
            (None, Some(true), None, "first"),
        ] {
            let done = std::cell::RefCell::new(Vec::new());
            let look = async |name, seen: Option<bool>| {
                done.borrow_mut().push(name);
                seen.context("it does not answer")
            };
            let pause = async { done.borrow_mut().push("pause") };
            assert_eq!(twice(look("first", first), pause, look("second", second)).await.ok(), want);
            assert_eq!(done.borrow().join(" "), steps);
        }
    }

    #[test]
    fn what_the_watchdog_makes_of_it() {
        for (pending, requests, is_over, want) in [
            (0, 1, false, None),
            (0, 0, false, Some(Wrong::RequestLost)),
            (7, 0, false, Some(Wrong::RequestLost)),
            // The requests are those of another process.
            (0, 3, true, Some(Wrong::RequestLost)),
            (7, 1, false, Some(Wrong::NoneArrives)),
        ] {
            let found = what_is_wrong(pending, requests, is_over);
            assert_eq!(found, want, "{pending} pending, {requests} requests, over: {is_over}");
        }
    }
}
