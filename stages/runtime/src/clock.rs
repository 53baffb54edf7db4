//! The only place that reads the wall clock and draws randomness, for ids and keys.
#![allow(clippy::disallowed_methods)]

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::{MailId, Millis};

/// The time by the wall clock. A clock set before 1970 reads as 1970.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The time by which something is old enough to be given up or forgotten: the wall clock's, but when that jumps ahead
/// it is believed only once it has stayed there for an hour. All that waits would else be given up at once, if only
/// because a clock was wrong for a moment. What is later than it should be for that costs little.
pub fn patient() -> Millis {
    static PATIENCE: LazyLock<(Instant, Mutex<Patience>)> =
        LazyLock::new(|| (Instant::now(), Mutex::new(Patience::new(now()))));
    let (began, patience) = &*PATIENCE;
    patience.lock().unwrap_or_else(PoisonError::into_inner).at(now(), began.elapsed())
}

/// How long a clock that has jumped ahead must have stayed there.
const STAYS: Duration = Duration::from_secs(3600);
/// A clock that is ahead by no more than this has not jumped.
const JUMP: Duration = Duration::from_secs(1);

/// What is believed of the wall clock.
#[derive(Debug)]
struct Patience {
    /// It showed this time, when the process had lived for so long.
    shown: Millis,
    lived: Duration,
    /// How long the process had lived when the clock was seen to be further ahead than that.
    ahead: Option<Duration>,
}

impl Patience {
    fn new(wall: Millis) -> Self {
        Self { shown: wall, lived: Duration::ZERO, ahead: None }
    }

    fn at(&mut self, wall: Millis, lived: Duration) -> Millis {
        let expected = self.shown.plus(lived.saturating_sub(self.lived));
        if wall > expected.plus(JUMP) && lived.saturating_sub(*self.ahead.get_or_insert(lived)) < STAYS {
            return expected;
        }
        *self = Self { shown: wall, lived, ahead: None };
        wall
    }
}

/// A new mail id for a mail that arrives at this moment.
pub fn new_mail_id() -> MailId {
    MailId::new(now(), rand::random::<u128>() >> 48)
}

/// A secret for keyed checksums.
pub fn new_key() -> [u8; 32] {
    rand::random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_ahead_makes_nothing_old() {
        let mut patience = Patience::new(Millis(1_000));
        for (lived, wall, want) in [
            (0, 1_000, 1_000),
            (5, 6_000, 6_000),
            // It jumps, and comes back.
            (6, 90_000_000, 7_000),
            (3_000, 93_000_000, 3_001_000),
            (3_100, 3_101_000, 3_101_000),
            // It jumps, and stays.
            (3_200, 90_000_000, 3_201_000),
            (6_799, 93_599_000, 6_800_000),
            (6_800, 93_600_000, 93_600_000),
            (6_801, 93_601_000, 93_601_000),
            // It is set back, and jumps again.
            (6_810, 5_000_000, 5_000_000),
            (6_811, 93_611_000, 5_001_000),
        ] {
            assert_eq!(patience.at(Millis(wall), Duration::from_secs(lived)), Millis(want), "{lived} {wall}");
        }
    }
}
