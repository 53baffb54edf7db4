//! Mails whose senders may not know that we have them, by what they are recognised by; so many at most, the oldest go.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proto::{MailId, Millis};

use super::books::is_young;
use super::index::Doubt;

/// Mails that are not in doubt any more and of which the order may still speak.
const SWEEP: usize = 1000;

/// The doubtful mails.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// By key, the first mail whose sender has not gone on.
    first: HashMap<Doubt, MailId>,
    /// In the order of arrival, to forget the oldest.
    order: VecDeque<(MailId, Doubt)>,
    pub(super) most: usize,
    pub(super) lasts: Duration,
}

impl Doubts {
    pub(super) fn new(most: usize, lasts: Duration) -> Self {
        Self { most, lasts, ..Self::default() }
    }

    /// A first mail that was too old when this one arrived is not recognised any more, so this one takes its place: without
    /// that, every further attempt of the same sender would be one more copy.
    pub(super) fn insert(&mut self, id: MailId, key: Doubt) {
        let first = self.first.entry(key).or_insert(id);
        if !is_young(*first, id.arrived(), self.lasts) {
            *first = id;
        }
        self.order.push_back((id, key));
        while self.first.len() > self.most {
            let Some((id, key)) = self.order.pop_front() else { break };
            self.remove(id, &key);
        }
        // Nearly all senders go on at once: those must not push out the few that have not.
        if self.order.len() > 2 * self.first.len() + SWEEP {
            let first = &self.first;
            self.order.retain(|(id, key)| first.get(key) == Some(id));
        }
    }

    pub(super) fn remove(&mut self, id: MailId, key: &Doubt) {
        if self.is_first(id, key) {
            self.first.remove(key);
        }
    }

    pub(super) fn is_first(&self, id: MailId, key: &Doubt) -> bool {
        self.first.get(key) == Some(&id)
    }

    pub(super) fn get(&self, key: &Doubt, now: Millis) -> Option<MailId> {
        self.first.get(key).copied().filter(|id| is_young(*id, now, self.lasts))
    }

    pub(super) fn keys(&self) -> Vec<Doubt> {
        self.first.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);

    fn mail(number: u32) -> (MailId, Doubt) {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        (MailId::new(NOW, number.into()), key)
    }

    #[test]
    fn those_who_go_on_push_nobody_out() {
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        let (first, key) = mail(0);
        doubts.insert(first, key);
        for (id, key) in (1..5_000).map(mail) {
            doubts.insert(id, key);
            doubts.remove(id, &key);
        }
        assert_eq!(doubts.get(&key, NOW), Some(first));
        assert!(doubts.order.len() <= SWEEP + 3);
        assert_eq!(doubts.get(&key, NOW.plus(Duration::from_secs(61))), None);
    }

    /// From the day after the first on, every attempt of a sender that never hears our 250 was a new copy.
    #[test]
    fn the_copy_of_the_second_day_is_recognised_from_then_on() {
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        let ((first, key), at) = (mail(0), |seconds| NOW.plus(Duration::from_secs(seconds)));
        let second = MailId::new(at(61), 1);
        doubts.insert(first, key);
        doubts.insert(MailId::new(at(59), 2), key);
        assert_eq!(doubts.get(&key, at(59)), Some(first), "it stays the first as long as it is known");
        doubts.insert(second, key);
        assert_eq!(doubts.get(&key, at(62)), Some(second));
        assert!(doubts.is_first(second, &key) && !doubts.is_first(first, &key), "this one is carried on");
        doubts.remove(first, &key);
        assert_eq!(
            doubts.get(&key, at(120)),
            Some(second),
            "who went on after the first has said nothing of the second"
        );
        // The same segments are read in another order: a first one that was carried over comes behind.
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        doubts.insert(second, key);
        doubts.insert(first, key);
        assert_eq!(doubts.get(&key, at(62)), Some(second));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        (0..15).map(mail).for_each(|(id, key)| doubts.insert(id, key));
        let known = (0..15).filter(|number| doubts.get(&mail(*number).1, NOW).is_some()).collect::<Vec<_>>();
        assert_eq!(known, (5..15).collect::<Vec<_>>());
    }
}
