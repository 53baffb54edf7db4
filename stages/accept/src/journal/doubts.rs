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
    /// By key, the last mail whose sender has not gone on.
    newest: HashMap<Doubt, MailId>,
    /// Of mails with several recipients, the keys of those whose sender has not gone on. A mail with one has no other than
    /// its own.
    each: HashMap<MailId, Vec<Doubt>>,
    /// In the order of arrival, to forget the oldest.
    order: VecDeque<(MailId, Doubt)>,
    pub(super) most: usize,
    pub(super) lasts: Duration,
}

impl Doubts {
    pub(super) fn new(most: usize, lasts: Duration) -> Self {
        Self { most, lasts, ..Self::default() }
    }

    /// The newest mail is the one from now on. It was kept because the one before was not recognised any more: that would
    /// not be by the next attempt either, and each would be one more copy.
    pub(super) fn insert(&mut self, id: MailId, key: Doubt, each: Vec<Doubt>) {
        for key in std::iter::once(&key).chain(&each) {
            let newest = self.newest.entry(*key).or_insert(id);
            *newest = id.max(*newest);
        }
        if !each.is_empty() {
            self.each.insert(id, each);
        }
        self.order.push_back((id, key));
        while self.newest.len() > self.most {
            let Some((id, key)) = self.order.pop_front() else { break };
            self.remove(id, &key);
        }
        // Nearly all senders go on at once: those must not push out the few that have not.
        if self.order.len() > 2 * self.newest.len() + SWEEP {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let order = std::mem::take(&mut self.order);
        for (id, key) in order {
            if self.is_newest(id, &key) {
                self.order.push_back((id, key));
            } else {
                self.remove(id, &key);
            }
        }
    }

    pub(super) fn remove(&mut self, id: MailId, key: &Doubt) {
        for key in self.each.remove(&id).iter().flatten().chain([key]) {
            if self.newest.get(key) == Some(&id) {
                self.newest.remove(key);
            }
        }
    }

    /// A sender has gone on that brought the mail for these recipients. Says whether it was in doubt for no others.
    pub(super) fn settle(&mut self, id: MailId, key: &Doubt, heard: &[Doubt]) -> bool {
        let Some(each) = self.each.get_mut(&id).filter(|_| !heard.contains(key)) else { return true };
        each.retain(|one| !heard.contains(one));
        let is_over = each.is_empty();
        for one in heard {
            if self.newest.get(one) == Some(&id) {
                self.newest.remove(one);
            }
        }
        is_over
    }

    /// By what a mail is recognised for each recipient of several.
    pub(super) fn each(&self, id: MailId) -> Vec<Doubt> {
        self.each.get(&id).cloned().unwrap_or_default()
    }

    pub(super) fn is_newest(&self, id: MailId, key: &Doubt) -> bool {
        self.newest.get(key) == Some(&id)
    }

    pub(super) fn get(&self, key: &Doubt, now: Millis) -> Option<MailId> {
        self.newest.get(key).copied().filter(|id| is_young(*id, now, self.lasts))
    }

    pub(super) fn keys(&self) -> Vec<Doubt> {
        self.newest.keys().copied().collect()
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
        doubts.insert(first, key, Vec::new());
        for (id, key) in (1..5_000).map(mail) {
            doubts.insert(id, key, Vec::new());
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
        doubts.insert(first, key, Vec::new());
        assert_eq!(doubts.get(&key, at(59)), Some(first));
        doubts.insert(second, key, Vec::new());
        assert_eq!(doubts.get(&key, at(62)), Some(second));
        assert!(doubts.is_newest(second, &key) && !doubts.is_newest(first, &key), "this one is carried on");
        doubts.remove(first, &key);
        assert_eq!(
            doubts.get(&key, at(120)),
            Some(second),
            "who went on after the first has said nothing of the second"
        );
        // The same segments are read in another order: a first one that was carried over comes behind.
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        doubts.insert(second, key, Vec::new());
        doubts.insert(first, key, Vec::new());
        assert_eq!(doubts.get(&key, at(62)), Some(second));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        (0..15).map(mail).for_each(|(id, key)| doubts.insert(id, key, Vec::new()));
        let known = (0..15).filter(|number| doubts.get(&mail(*number).1, NOW).is_some()).collect::<Vec<_>>();
        assert_eq!(known, (5..15).collect::<Vec<_>>());
    }

    #[test]
    fn a_mail_is_in_doubt_for_each_recipient() {
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        let ((id, key), [ann, bob]) = (mail(0), [mail(1).1, mail(2).1]);
        let known = |doubts: &Doubts| [key, ann, bob].map(|key| doubts.get(&key, NOW) == Some(id));
        doubts.insert(id, key, vec![ann, bob]);
        assert!(!doubts.settle(id, &key, &[ann]));
        assert_eq!(known(&doubts), [true, false, true]);
        assert_eq!(doubts.each(id), [bob]);
        assert!(doubts.settle(id, &key, &[bob]), "nobody is left");
        doubts.insert(id, key, vec![ann, bob]);
        assert!(doubts.settle(id, &key, &[key]), "the mail as a whole");
        doubts.remove(id, &key);
        assert_eq!(known(&doubts), [false; 3]);
        assert!(doubts.each.is_empty());
    }

    #[test]
    fn the_recipients_of_a_mail_are_forgotten_with_it() {
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        for number in 0..3_000 {
            let (id, key) = mail(number);
            doubts.insert(id, key, (0..4).map(|one| mail(10_000 + 4 * number + one).1).collect());
        }
        assert!(doubts.newest.len() <= 10 && doubts.each.len() == 2 && doubts.order.len() <= SWEEP + 21);
    }
}
