//! The only place that reads the wall clock and draws randomness, for ids and keys.
#![allow(clippy::disallowed_methods)]

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::{MailId, Millis};

/// The time by the wall clock. A clock set before 1970 reads as 1970.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The time by which something is old enough to be given up or forgotten: the wall clock's, but never further ahead
/// than this process has lived. A clock that jumps ahead, if only for a moment, would else have all that waits given up
/// at once. What is later than it should be for that costs nothing.
pub fn patient() -> Millis {
    static BEGAN: LazyLock<(Millis, Instant)> = LazyLock::new(|| (now(), Instant::now()));
    let (began, at) = *BEGAN;
    no_further(now(), began, at.elapsed())
}

fn no_further(wall: Millis, began: Millis, lived: Duration) -> Millis {
    wall.min(began.plus(lived))
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
        for (wall, lived, want) in [(1_000, 0, 1_000), (6_000, 5, 6_000), (900_000, 5, 6_000), (500, 5, 500)] {
            assert_eq!(no_further(Millis(wall), Millis(1_000), Duration::from_secs(lived)), Millis(want), "{wall}");
        }
    }
}
