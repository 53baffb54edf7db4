//! Which mail is next: one whose retry has come, or one that is due; and when everything has its final word.
//!
//! A mail that is due while no connection is free keeps the moment at which it was due: its latency counts from there,
//! so that a chain that stalls is not spared the mails which would have come meanwhile.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::profile::Schedule;

/// A mail is given out so long before it is due: composing it is to be over then, and is none of the chain's latency.
const AHEAD: Duration = Duration::from_millis(100);

/// A mail in hand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter {
    /// Its number in the mix.
    pub(crate) number: u64,
    /// The recipients who have had no final word; none for all of them.
    pub(crate) to: Option<Vec<u32>>,
    /// When it was due.
    pub(crate) due: Instant,
    /// Attempts before.
    pub(crate) attempts: u32,
    /// Where the attempts before came from: a queue stays on its machine, by which a chain knows its mail again.
    pub(crate) source: Option<IpAddr>,
}

/// When the run ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// After so many mails.
    pub(crate) mails: u64,
    /// With the last mail that is due within that.
    pub(crate) time: Option<Duration>,
}

/// Mails to be sent.
#[derive(Debug)]
pub(crate) struct Queue {
    schedule: Schedule,
    limit: Limit,
    start: Instant,
    /// Whoever waits for the next mail holds it: one waits for the clock, the others in line behind.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    ended: bool,
    in_hand: usize,
    deferred: BinaryHeap<Reverse<(Instant, Letter)>>,
}

enum Next {
    Letter(Letter),
    /// Nothing before then, if nothing else happens.
    Wait(Option<Instant>),
    End,
}

impl Queue {
    /// A run that begins in a moment: its first mail, too, is composed before it is due.
    pub(crate) fn new(schedule: Schedule, limit: Limit) -> Self {
        let (turn, state, changed) = Default::default();
        // Without a rate the first mail is begun at once.
        let ahead = if schedule.rate.is_some() { AHEAD } else { Duration::ZERO };
        Self { schedule, limit, start: Instant::now() + ahead, turn, state, changed }
    }

    /// Whether mails are due at a time, and not whenever a connection is free.
    pub(crate) fn is_timed(&self) -> bool {
        self.schedule.rate.is_some()
    }

    /// When the run began.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Waits for the next mail, which may be due in a moment; none when every mail has its final word.
    pub(crate) async fn take(&self) -> Option<Letter> {
        let _turn = self.turn.lock().await;
        loop {
            match self.look(Instant::now()) {
                Next::Letter(letter) => return Some(letter),
                Next::End => return None,
                Next::Wait(None) => self.changed.notified().await,
                Next::Wait(Some(until)) => {
                    let _ = tokio::time::timeout_at(until, self.changed.notified()).await;
                }
            }
        }
    }

    /// A mail in hand has its final word.
    pub(crate) fn done(&self) {
        self.state().in_hand -= 1;
        self.changed.notify_one();
    }

    /// A mail in hand is to be tried again then.
    pub(crate) fn defer(&self, letter: Letter, at: Instant) {
        let mut state = self.state();
        state.in_hand -= 1;
        state.deferred.push(Reverse((at, letter)));
        drop(state);
        self.changed.notify_one();
    }

    /// Gives out no more new mails.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_one();
    }

    /// Mails that wait for another attempt.
    pub(crate) fn deferred(&self) -> usize {
        self.state().deferred.len()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, now: Instant) -> Next {
        let mut state = self.state();
        if state.deferred.peek().is_some_and(|Reverse((at, _))| *at <= now)
            && let Some(Reverse((_, letter))) = state.deferred.pop()
        {
            state.in_hand += 1;
            return Next::Letter(letter);
        }
        let due = self.schedule.due(state.next).map_or(now, |due| self.start + due);
        let is_late = self.limit.time.is_some_and(|time| due >= self.start + time);
        state.ended |= is_late || state.next >= self.limit.mails;
        if !state.ended && due <= now + AHEAD {
            let letter = Letter { number: state.next, to: None, due, attempts: 0, source: None };
            state.next += 1;
            state.in_hand += 1;
            return Next::Letter(letter);
        }
        let retry = state.deferred.peek().map(|Reverse((at, _))| *at);
        match (state.ended, retry) {
            (true, None) if state.in_hand == 0 => Next::End,
            (true, retry) => Next::Wait(retry),
            (false, retry) => Next::Wait(Some(retry.map_or(due - AHEAD, |retry| retry.min(due - AHEAD)))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::profile::Profile;

    fn queue(rate: Option<f64>, mails: u64, time: Option<u64>) -> Queue {
        let second = Duration::from_secs(1);
        let schedule = Schedule { rate, profile: Profile::Steady, every: second, burst: second };
        Queue::new(schedule, Limit { mails, time: time.map(Duration::from_secs) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_that_had_to_wait_was_due_before() {
        let queue = queue(Some(10.0), 20, None);
        for number in 0..20 {
            let letter = queue.take().await.unwrap();
            assert_eq!(
                (letter.number, letter.due),
                (number, queue.start() + Duration::from_millis(100) * number as u32)
            );
            if number == 5 {
                // The only connection stalls; five mails fall due meanwhile.
                tokio::time::advance(Duration::from_millis(550)).await;
            }
            let early = letter.due.saturating_duration_since(Instant::now());
            assert!(early <= AHEAD && (number != 7 || early.is_zero()));
            queue.done();
        }
        assert_eq!(queue.take().await, None);
        assert_eq!(queue.start().elapsed().as_millis(), 1800);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_begins_with_the_first_mail() {
        for (rate, begins_in) in [(None, Duration::ZERO), (Some(10.0), AHEAD)] {
            let queue = queue(rate, 1, None);
            assert_eq!(queue.start() - Instant::now(), begins_in, "{rate:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_come_first_and_are_waited_for() {
        let queue = queue(None, 2, None);
        let first = queue.take().await.unwrap();
        let again = queue.start() + Duration::from_secs(3);
        queue.defer(Letter { attempts: 1, ..first }, again);
        let second = queue.take().await.unwrap();
        assert_eq!((second.number, queue.deferred()), (1, 1));
        queue.done();
        let first = queue.take().await.unwrap();
        assert_eq!((first.number, first.attempts, Instant::now()), (0, 1, again));
        queue.done();
        assert_eq!(queue.take().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_what_is_in_hand() {
        let queue = queue(None, 1, None);
        let letter = queue.take().await.unwrap();
        let (next, ()) = tokio::join!(queue.take(), async {
            queue.defer(letter.clone(), Instant::now() + Duration::from_secs(1));
        });
        assert_eq!(next, Some(letter));
    }

    #[tokio::test(start_paused = true)]
    async fn time_ends_a_run() {
        let queue = queue(Some(10.0), u64::MAX, Some(2));
        let mut count = 0;
        while queue.take().await.is_some() {
            count += 1;
            queue.done();
        }
        assert_eq!(count, 20);
    }
}
