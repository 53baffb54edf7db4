//! Bodies whose records were sound a short while ago.
//!
//! A new delivery of a body that is there already only refers to its record. If that is damaged, the new mail would be
//! lost with it, although its text has just come; so the record is read before it is referred to, and the body is
//! stored anew if it is not what it was. That costs a read, and it is rarely paid: the copies of one mail come
//! together, and what was written or read within the hour is taken as sound. Disks do not spoil what they hold so fast
//! that more were gained by reading it, most likely from the system's memory, for each of a thousand copies.

use std::collections::HashSet;
use std::time::{Duration, Instant};

/// A body is taken as sound for so long, and at most twice that.
const SOUND_FOR: Duration = Duration::from_secs(1800);
/// Bodies that are remembered, in each half: a quarter of a MiB for both.
const SOUND_MOST: usize = 4096;

/// Two halves: when the young one is full or old, it takes the place of the other.
pub(super) struct Sound {
    young: HashSet<[u8; 32]>,
    old: HashSet<[u8; 32]>,
    begun: Instant,
}

impl Sound {
    pub(super) fn new(now: Instant) -> Self {
        Self { young: HashSet::new(), old: HashSet::new(), begun: now }
    }

    pub(super) fn knows(&self, digest: &[u8; 32]) -> bool {
        self.young.contains(digest) || self.old.contains(digest)
    }

    /// Forgets what is too old by now: before each look, for a shard may have had nothing to do for long.
    pub(super) fn age(&mut self, now: Instant) {
        let age = now.duration_since(self.begun);
        if age >= 2 * SOUND_FOR {
            *self = Self::new(now);
        } else if age >= SOUND_FOR {
            self.old = std::mem::take(&mut self.young);
            self.begun += SOUND_FOR;
        }
    }

    /// Remembers these.
    pub(super) fn remember(&mut self, digests: impl Iterator<Item = [u8; 32]>, now: Instant) {
        self.age(now);
        if self.young.len() >= SOUND_MOST {
            self.old = std::mem::take(&mut self.young);
            self.begun = now;
        }
        self.young.extend(digests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sound_is_forgotten_in_time() {
        let begin = Instant::now();
        let mut sound = Sound::new(begin);
        sound.remember([[1; 32]].into_iter(), begin);
        sound.remember([[2; 32]].into_iter(), begin + SOUND_FOR);
        assert!(sound.knows(&[1; 32]) && sound.knows(&[2; 32]) && !sound.knows(&[3; 32]));
        sound.remember([].into_iter(), begin + 2 * SOUND_FOR);
        assert!(!sound.knows(&[1; 32]) && sound.knows(&[2; 32]));
        sound.remember([].into_iter(), begin + 4 * SOUND_FOR);
        assert!(!sound.knows(&[2; 32]));
    }

    #[test]
    fn what_was_sound_is_forgotten_while_nothing_is_done() {
        let begin = Instant::now();
        for (idle, is_known) in [(SOUND_FOR, true), (2 * SOUND_FOR, false), (48 * SOUND_FOR, false)] {
            let mut sound = Sound::new(begin);
            sound.remember([[1; 32]].into_iter(), begin);
            sound.age(begin + idle);
            assert_eq!(sound.knows(&[1; 32]), is_known, "{idle:?}");
        }
        // Not longer because there was a look late in its life.
        let mut sound = Sound::new(begin);
        sound.remember([[1; 32]].into_iter(), begin);
        sound.age(begin + SOUND_FOR * 19 / 10);
        sound.age(begin + 2 * SOUND_FOR);
        assert!(!sound.knows(&[1; 32]));
    }
}
