//! Takes what was confirmed out of a work stream where the broker has left it. A broker that has met a full disk may
//! have noted a confirmation and not have deleted the message: it would lie there for ever, and look like mail that
//! waits.
//!
//! Mail that was taken out and not confirmed would come back late, with the journal's next round. So nothing is taken
//! out on a guess; and when it cannot be proved afterwards that the right messages were taken, everything goes round
//! again at once. It fails that way: twice rather than late.
//!
//! It runs beside the pull, which must go on pulling and hear the shutdown while a broker says nothing.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::pull::Settings;
use crate::streams;
use crate::tasks::Tasks;

/// How often it is looked whether the stream still holds what was confirmed: a consumer may stay bound for months.
const SWEEP: Duration = Duration::from_secs(20);

/// How long a sweep may take. A broker that needs longer for a few questions is left alone until the next.
const LIMIT: Duration = Duration::from_secs(2);

/// What makes a sweep due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// The consumer was bound just now.
    Bound,
    /// Some time has passed.
    Later,
}

/// Sweeps for one pull, one sweep at a time.
#[derive(Debug)]
pub(crate) struct Sweeper {
    broker: Broker,
    stream: String,
    consumer: String,
    subject: String,
    epoch: watch::Receiver<u64>,
    memory: Arc<Mutex<Memory>>,
}

/// What one sweep leaves for the next.
#[derive(Debug, Default)]
struct Memory {
    /// The consumer as it was when a purge was sent of which nobody knows yet what it took.
    doubt: Option<Seen>,
    /// The consumer as it was when it was bound, until what lies below its floor has been swept.
    bound: Option<Seen>,
}

/// A consumer at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// When it was made, in nanoseconds. It goes with its stream.
    made: i128,
    epoch: u64,
    pending: u64,
    in_hand: usize,
    floor: u64,
    delivered: u64,
}

/// Up to which message is taken out, and what that rests on.
#[derive(Debug, PartialEq, Eq)]
enum Take {
    Nothing,
    /// Everything was delivered and answered.
    Answered(u64),
    /// The server's word alone.
    Floor(u64),
}

impl Sweeper {
    pub(crate) fn new(broker: Broker, settings: &Settings) -> Self {
        let Settings { stream, consumer, subject, .. } = settings.clone();
        let epoch = broker.epoch();
        Self { broker, stream, consumer, subject, epoch, memory: Arc::default() }
    }

    /// Starts a sweep if one is due. `swept` is when that was done last since the consumer was bound.
    pub(crate) fn begin_when_due(self: &Arc<Self>, swept: &mut Option<Instant>, tasks: &Tasks) {
        let occasion = match *swept {
            None => Occasion::Bound,
            Some(at) if at.elapsed() >= SWEEP => Occasion::Later,
            Some(_) => return,
        };
        if self.begin(occasion, tasks) {
            *swept = Some(Instant::now());
        }
    }

    /// Starts a sweep, unless one is still under way. Says whether it did.
    fn begin(self: &Arc<Self>, occasion: Occasion, tasks: &Tasks) -> bool {
        let Ok(mut memory) = Arc::clone(&self.memory).try_lock_owned() else { return false };
        let (sweeper, stopping) = (Arc::clone(self), tasks.clone());
        tasks.spawn("sweep", async move {
            let swept = tokio::select! {
                () = stopping.stopping() => return,
                swept = tokio::time::timeout(LIMIT, sweeper.sweep(&mut memory, occasion)) => swept,
            };
            let stream = &sweeper.stream;
            match swept {
                Ok(Ok(())) => {}
                // Whatever is wrong with it, the watchdog finds out.
                Ok(Err(error)) => tracing::debug!(stream, %error, "what was confirmed may still lie there"),
                Err(_) => tracing::debug!(stream, "the broker did not answer in time; it is swept later"),
            }
        });
        true
    }

    async fn sweep(&self, memory: &mut Memory, occasion: Occasion) -> anyhow::Result<()> {
        let now = self.look().await?;
        if memory.doubt.take().is_some_and(|before| !is_unbroken(&before, &now)) {
            self.start_over().await;
        }
        if occasion == Occasion::Bound {
            memory.bound = Some(now);
        }
        let take = what_to_take(&now, memory.bound.as_ref(), occasion);
        let (Take::Answered(last) | Take::Floor(last)) = take else { return Ok(()) };
        memory.bound = None;
        // Nearly always nothing lies there, and no purge is under way that could come too late.
        if !self.broker.holds(&self.stream, &self.subject).await? {
            return Ok(());
        }
        memory.doubt = Some(now);
        let stream = self.broker.jetstream().get_stream_no_info(&self.stream).await?;
        let count = stream.purge().filter(&self.subject).sequence(last + 1).await?.purged;
        if count > 0 {
            tracing::info!(stream = self.stream, count, "took out what was confirmed and still lay there");
        }
        let is_proved = count == 0 || matches!(take, Take::Answered(_)) && is_unbroken(&now, &self.look().await?);
        memory.doubt = None;
        if !is_proved {
            self.start_over().await;
        }
        Ok(())
    }

    async fn look(&self) -> anyhow::Result<Seen> {
        let epoch = *self.epoch.borrow();
        let stream = self.broker.jetstream().get_stream_no_info(&self.stream).await?;
        let known = stream.consumer_info(&self.consumer).await?;
        Ok(Seen::new(&known, epoch))
    }

    /// What may have been taken wrongly must come again, as what was in a lost stream must.
    async fn start_over(&self) {
        tracing::warn!(
            stream = self.stream,
            "mail may have been taken out that was not confirmed; it goes round again"
        );
        streams::tell_made(&self.broker, &self.stream).await;
    }
}

impl Seen {
    fn new(known: &Info, epoch: u64) -> Self {
        Self {
            made: known.created.unix_timestamp_nanos(),
            epoch,
            pending: known.num_pending,
            in_hand: known.num_ack_pending,
            floor: known.ack_floor.stream_sequence,
            delivered: known.delivered.stream_sequence,
        }
    }
}

/// Whether it is still the same consumer, of the same stream, at a broker that has forgotten nothing meanwhile.
fn is_unbroken(before: &Seen, after: &Seen) -> bool {
    before.made == after.made && before.epoch == after.epoch && before.delivered <= after.delivered
}

/// With nothing to deliver and nothing in hand, all that was delivered is answered.
///
/// A consumer that is never found idle has the floor alone, below which nothing is said to be in hand; a server has
/// been seen to have it above a message that was given back. So it is used once after each bind, and what it takes out
/// goes round again. That bounds what is left over: only a full disk leaves anything, and a stream takes nothing more
/// after that until the server is started again and every consumer is bound anew. What the floor was at the bind is
/// swept at the next occasion, when a confirmation that was only on its way then has long arrived.
fn what_to_take(now: &Seen, bound: Option<&Seen>, occasion: Occasion) -> Take {
    if now.pending == 0 && now.in_hand == 0 {
        return if now.delivered > 0 { Take::Answered(now.delivered) } else { Take::Nothing };
    }
    match bound {
        Some(bound) if occasion == Occasion::Later && bound.floor > 0 && is_unbroken(bound, now) => {
            Take::Floor(bound.floor)
        }
        _ => Take::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen { made: 1, epoch: 1, pending: 0, in_hand: 0, floor: 4, delivered: 7 };

    #[track_caller]
    fn check(now: Seen, bound: Option<Seen>, occasion: Occasion, want: &Take) {
        assert_eq!(what_to_take(&now, bound.as_ref(), occasion), *want, "{now:?} {bound:?} {occasion:?}");
    }

    #[test]
    fn an_idle_consumer_has_answered_all() {
        for occasion in [Occasion::Bound, Occasion::Later] {
            check(SEEN, None, occasion, &Take::Answered(7));
            check(SEEN, Some(SEEN), occasion, &Take::Answered(7));
            check(Seen { floor: 0, delivered: 0, ..SEEN }, None, occasion, &Take::Nothing);
        }
    }

    #[test]
    fn the_floor_counts_once_after_a_bind() {
        for busy in [Seen { pending: 3, ..SEEN }, Seen { in_hand: 2, ..SEEN }, Seen { in_hand: 1, floor: 6, ..SEEN }] {
            check(busy, Some(SEEN), Occasion::Later, &Take::Floor(4));
            check(busy, Some(SEEN), Occasion::Bound, &Take::Nothing);
            check(busy, None, Occasion::Later, &Take::Nothing);
            check(busy, Some(Seen { made: 0, ..SEEN }), Occasion::Later, &Take::Nothing);
            check(busy, Some(Seen { floor: 0, ..SEEN }), Occasion::Later, &Take::Nothing);
        }
    }

    #[test]
    fn what_proves_that_nothing_was_lost() {
        for (after, want) in [
            (SEEN, true),
            (Seen { delivered: 9, floor: 9, in_hand: 2, ..SEEN }, true),
            (Seen { made: 2, ..SEEN }, false),
            (Seen { epoch: 2, ..SEEN }, false),
            (Seen { delivered: 6, ..SEEN }, false),
        ] {
            assert_eq!(is_unbroken(&SEEN, &after), want, "{after:?}");
        }
    }
}
