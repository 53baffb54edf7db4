//! A message in hand: the room that it takes, and what is said of it to the server.
//!
//! The server knows a message by its number alone. When it has lost the end of its stream, another message has that
//! number, and would be taken for done. So once the connection or streams were lost, it is looked first whether the
//! number still means the message that is in hand: the same number and the same nanosecond of its publishing. In doubt
//! nothing is said, and the message comes back: it fails towards doing work twice.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::{AckKind, Message};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, interval_at};

use crate::broker::Broker;

/// A message with the room that it takes. Its holder says what becomes of it; until then the server is told that it is
/// being worked on.
#[derive(Debug)]
pub struct InHand {
    /// The message.
    pub message: Message,
    broker: Broker,
    progress: Duration,
    epoch: watch::Receiver<u64>,
    known: Mutex<Known>,
    _room: OwnedSemaphorePermit,
}

/// What is known of the message's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It means this message, as long as the epoch is this one.
    In(u64),
    /// It means nothing, or another message, and always will.
    Gone,
}

impl InHand {
    /// A message that came in this epoch. Progress is told so often.
    pub(crate) fn new(
        message: Message,
        broker: Broker,
        came_in: u64,
        progress: Duration,
        room: OwnedSemaphorePermit,
    ) -> Self {
        let epoch = broker.epoch();
        Self { message, broker, progress, epoch, known: Mutex::new(Known::In(came_in)), _room: room }
    }

    /// Runs `work` and tells the server meanwhile, again and again, that the message is being worked on.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            done = self.tell_progress() => done,
        }
    }

    async fn tell_progress<T>(&self) -> T {
        let mut ticks = interval_at(Instant::now() + self.progress, self.progress);
        loop {
            ticks.tick().await;
            self.tell(AckKind::Progress).await;
        }
    }

    /// Tells the server something about the message. When that is lost, the message comes back: every step bears it.
    pub async fn tell(&self, what: AckKind) {
        if !self.is_there().await {
            tracing::debug!("an acknowledgement comes too late; the message comes back");
            return;
        }
        if let Err(error) = self.message.ack_with(what).await {
            tracing::debug!(%error, "an acknowledgement was not sent; the message comes back");
        }
    }

    /// Whether its number is known to mean this message, to the server that would hear of it.
    async fn is_there(&self) -> bool {
        // What is said now would wait for a connection, and go to a server at which nobody has looked.
        if !self.broker.is_connected() {
            return false;
        }
        let epoch = *self.epoch.borrow();
        match self.known() {
            Known::Gone => return false,
            Known::In(known) if known == epoch => return true,
            Known::In(_) => {}
        }
        let found = match self.look().await {
            Ok(true) => Known::In(epoch),
            Ok(false) => Known::Gone,
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "it is not known whether the message is still there");
                return false;
            }
        };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = found;
        // The connection may have been lost once more meanwhile.
        found == Known::In(*self.epoch.borrow())
    }

    fn known(&self) -> Known {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self) -> anyhow::Result<bool> {
        let info = self.message.info().map_err(anyhow::Error::from_boxed)?;
        let stream = self.broker.jetstream().get_stream_no_info(info.stream).await?;
        match stream.get_raw_message(info.stream_sequence).await {
            Ok(found) => Ok(found.time == info.published),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
