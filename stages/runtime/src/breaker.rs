//! Leaves alone for a while what has not answered so often in a row, so that nobody waits for it in vain. Then one asks
//! again, while the others go on without: by that it recovers.
//!
//! In a row means one after another: many who asked at the same moment, and heard nothing, have heard it once.
//! Otherwise a burst of mail would take the second that a name server needs to read its zones anew for a long silence.
//!
//! It fails open: what is left alone is unknown to whoever would have asked. So it is for lists and name servers, never
//! for a scanner.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Section;

/// When something is left alone, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// It has not answered so often in a row.
    pub silent_after: u64,
    /// It is left alone for so long, and then tried once.
    pub silent_for: Duration,
}

impl Settings {
    /// Reads the keys `silent_after` and `silent_for` of a section.
    pub fn read(section: &mut Section) -> Self {
        let silent_after = section.count(
            "silent_after",
            5,
            1..=1000,
            "Who says nothing so often in a row is asked no more for a while: more than a few lost packets, less than \
             many would wait for. What was asked at the same time counts once.",
        );
        let silent_for = section.span(
            "silent_for",
            "10s",
            "100ms"..="10min",
            "For so long; then one question finds out whether it answers again. Meanwhile its answers are unknown at \
             once.",
        );
        Self { silent_after, silent_for: silent_for.0 }
    }
}

/// Whether to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// It answers, as far as is known.
    Ask,
    /// It is silent, and the time has come to try: for whoever hears this, and nobody else.
    Try,
    /// It is silent.
    Leave,
}

/// What is known of somebody who is asked.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How often in a row it has not answered.
    silences: u64,
    /// When the last of these was told.
    counted: Option<Instant>,
    /// It is left alone until then.
    until: Option<Instant>,
}

impl Breaker {
    /// Somebody of whom nothing is known yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: Mutex::default() }
    }

    /// Whether to ask now.
    pub fn advice(&self) -> Advice {
        let now = Instant::now();
        self.state(|state| match state.until {
            None => Advice::Ask,
            Some(until) if now < until => Advice::Leave,
            Some(_) => {
                // Should whoever tries now never tell, another does.
                state.until = Some(now + self.settings.silent_for);
                Advice::Try
            }
        })
    }

    /// It has answered, whatever that was. Says whether it had been left alone until now.
    pub fn answered(&self) -> bool {
        self.state(|state| std::mem::take(state).until.is_some())
    }

    /// It has not answered what was asked then. Says whether it is left alone from now on.
    pub fn silent(&self, asked: Instant) -> bool {
        let now = Instant::now();
        self.state(|state| {
            if state.counted.is_some_and(|counted| asked < counted) {
                return false;
            }
            state.silences += 1;
            state.counted = Some(now);
            let is_first = state.until.is_none() && state.silences >= self.settings.silent_after;
            if is_first {
                state.until = Some(now + self.settings.silent_for);
            }
            is_first
        })
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Met {
        /// It has not answered, and this is said of it.
        Silent(bool),
        /// The same, and it was asked so many seconds ago.
        SilentFor(u64, bool),
        Answered(bool),
        /// So many seconds went by.
        Later(u64),
        Advice(Advice),
    }
    use Met::{Answered, Later, Silent, SilentFor};

    /// One that is left alone for ten seconds after three silences.
    async fn check(met: &[Met]) {
        let breaker = Breaker::new(Settings { silent_after: 3, silent_for: Duration::from_secs(10) });
        for (step, met) in met.iter().enumerate() {
            match *met {
                Silent(want) => assert_eq!(breaker.silent(Instant::now()), want, "{step}"),
                SilentFor(seconds, want) => {
                    assert_eq!(breaker.silent(Instant::now() - Duration::from_secs(seconds)), want, "{step}");
                }
                Answered(want) => assert_eq!(breaker.answered(), want, "{step}"),
                Met::Advice(want) => assert_eq!(breaker.advice(), want, "{step}"),
                Later(seconds) => tokio::time::advance(Duration::from_secs(seconds)).await,
            }
        }
    }

    const ASK: Met = Met::Advice(Advice::Ask);
    const TRY: Met = Met::Advice(Advice::Try);
    const LEAVE: Met = Met::Advice(Advice::Leave);

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_in_a_row_is_left_alone() {
        check(&[ASK, Silent(false), Silent(false), ASK, Silent(true), LEAVE, Silent(false), LEAVE]).await;
        check(&[Silent(false), Silent(false), Answered(false), Silent(false), Silent(false), ASK]).await;
    }

    /// A burst of mail heard one silence, and each mail counted it.
    #[tokio::test(start_paused = true)]
    async fn what_was_asked_together_counts_once() {
        let burst = [Later(5), SilentFor(3, false), SilentFor(3, false), SilentFor(2, false), SilentFor(1, false), ASK];
        check(&burst).await;
        let later = [Later(3), SilentFor(2, false), SilentFor(1, false), Later(2), SilentFor(2, true), LEAVE];
        check(&[&burst[..], &later].concat()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_tries_and_the_others_go_on_without() {
        let silent = [Silent(false), Silent(false), Silent(true), Later(9), LEAVE, Later(1), TRY, LEAVE];
        check(&[&silent[..], &[Silent(false), LEAVE, Later(10), TRY, LEAVE]].concat()).await;
        check(&[&silent[..], &[Answered(true), ASK, Silent(false), Silent(false), ASK, Silent(true)]].concat()).await;
    }

    /// The mail that tried was given up meanwhile.
    #[tokio::test(start_paused = true)]
    async fn a_try_that_never_ends_is_not_the_last() {
        check(&[Silent(false), Silent(false), Silent(true), Later(10), TRY, Later(10), TRY, Answered(true), ASK]).await;
    }
}
