//! Mails whose senders may not know that we have them, by what they are recognised by; so many at most, the oldest go.
//!
//! What the recipients of a mail are recognised by has a bound of its own, and of that the mail with the most goes
//! first: a client that brings a few mails to a thousand recipients each and hangs up must not have the mails of others
//! forgotten.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use proto::{MailId, Millis};

use super::books::is_young;
use super::index::Doubt;

/// Mails that are not in doubt any more and of which the order may still speak.
const SWEEP: usize = 1000;

/// The doubtful mails.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// By its key, the last mail whose sender has not gone on.
    newest: HashMap<Doubt, MailId>,
    /// The same by the keys of recipients. What is there is not here.
    parts: HashMap<Doubt, MailId>,
    /// Of mails with several recipients, the keys of those whose sender has not gone on. A mail with one has no other
    /// than its own.
    each: HashMap<MailId, Vec<Doubt>>,
    /// The same mails by how many keys they have there.
    largest: BTreeSet<(usize, Reverse<MailId>)>,
    /// All those keys.
    each_all: usize,
    /// In the order of arrival, to forget the oldest.
    order: VecDeque<(MailId, Doubt)>,
    /// Segments are being read: what comes last is not always what arrived last.
    is_reading: bool,
    pub(super) most: usize,
    pub(super) lasts: Duration,
}

impl Doubts {
    pub(super) fn new(most: usize, lasts: Duration) -> Self {
        Self { most, lasts, is_reading: true, ..Self::default() }
    }

    pub(super) fn reading_is_over(&mut self) {
        self.is_reading = false;
    }

    /// The newest mail is the one from now on. It was kept because the one before was not recognised any more: that
    /// would not be by the next attempt either, and each would be one more copy. The clock may have been set back since
    /// the one before.
    pub(super) fn insert(&mut self, id: MailId, key: Doubt, each: Vec<Doubt>) {
        self.remove_parts(id);
        if self.is_last(id, &key) {
            self.parts.remove(&key);
            self.newest.insert(key, id);
        }
        self.order.push_back((id, key));
        if !each.is_empty() {
            for one in &each {
                if self.is_last(id, one) {
                    self.newest.remove(one);
                    self.parts.insert(*one, id);
                }
            }
            self.each_all += each.len();
            self.largest.insert((each.len(), Reverse(id)));
            self.each.insert(id, each);
        }
        self.bound();
    }

    fn is_last(&self, id: MailId, key: &Doubt) -> bool {
        !self.is_reading || self.find(key).is_none_or(|newest| newest <= id)
    }

    fn find(&self, key: &Doubt) -> Option<MailId> {
        self.newest.get(key).or_else(|| self.parts.get(key)).copied()
    }

    fn bound(&mut self) {
        while self.each_all > self.most {
            let Some((_, Reverse(id))) = self.largest.last().copied() else { break };
            self.remove_parts(id);
        }
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
        if self.is_newest(id, key) {
            self.newest.remove(key);
        }
        self.remove_parts(id);
    }

    /// The mail is recognised with all its recipients only.
    fn remove_parts(&mut self, id: MailId) {
        let Some(each) = self.each.remove(&id) else { return };
        self.each_all -= each.len();
        self.largest.remove(&(each.len(), Reverse(id)));
        each.iter().for_each(|one| self.remove_part(id, one));
    }

    fn remove_part(&mut self, id: MailId, one: &Doubt) {
        if self.parts.get(one) == Some(&id) {
            self.parts.remove(one);
        }
    }

    /// A sender has gone on that brought the mail for these recipients. Says whether it was in doubt for no others.
    pub(super) fn settle(&mut self, id: MailId, key: &Doubt, heard: &HashSet<Doubt>) -> bool {
        if heard.contains(key) {
            return true;
        }
        let Some(each) = self.each.get_mut(&id) else { return false };
        let before = each.len();
        each.retain(|one| !heard.contains(one));
        let left = each.len();
        self.each_all -= before - left;
        self.largest.remove(&(before, Reverse(id)));
        self.largest.insert((left, Reverse(id)));
        heard.iter().for_each(|one| self.remove_part(id, one));
        left == 0
    }

    /// By what a mail is recognised for each recipient of several.
    pub(super) fn each(&self, id: MailId) -> Vec<Doubt> {
        self.each.get(&id).cloned().unwrap_or_default()
    }

    pub(super) fn is_newest(&self, id: MailId, key: &Doubt) -> bool {
        self.newest.get(key) == Some(&id)
    }

    pub(super) fn get(&self, key: &Doubt, now: Millis) -> Option<MailId> {
        self.find(key).filter(|id| is_young(*id, now, self.lasts))
    }

    /// By what all mails are recognised, and by what their recipients.
    pub(super) fn keys(&self) -> (Vec<Doubt>, Vec<Doubt>) {
        (self.newest.keys().copied().collect(), self.parts.keys().copied().collect())
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
        assert!(!doubts.settle(id, &key, &HashSet::from([ann])));
        assert_eq!(known(&doubts), [true, false, true]);
        assert_eq!(doubts.each(id), [bob]);
        assert!(doubts.settle(id, &key, &HashSet::from([bob])), "nobody is left");
        doubts.insert(id, key, vec![ann, bob]);
        assert!(doubts.settle(id, &key, &HashSet::from([key])), "the mail as a whole");
        doubts.remove(id, &key);
        assert_eq!(known(&doubts), [false; 3]);
        assert_eq!((doubts.each.len(), doubts.largest.len(), doubts.each_all), (0, 0, 0));
    }

    /// A hundred mails to a thousand recipients each had every mail of others forgotten.
    #[test]
    fn a_mail_to_many_pushes_out_no_other() {
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        let to_some = |doubts: &mut Doubts, number: u32, recipients: u32| {
            let (id, key) = mail(number);
            doubts.insert(id, key, (0..recipients).map(|one| mail(1000 * number + one).1).collect());
        };
        to_some(&mut doubts, 1, 1);
        to_some(&mut doubts, 2, 3);
        to_some(&mut doubts, 3, 20);
        to_some(&mut doubts, 4, 4);
        to_some(&mut doubts, 5, 4);
        let known = |number: u32| doubts.get(&mail(number).1, NOW) == Some(mail(number % 1000).0);
        assert!((1..=5).all(known), "with all their recipients");
        assert_eq!(doubts.get(&mail(1000).1, NOW), Some(mail(1).0));
        let parts = [2000, 3000, 4000, 5000].map(|key| doubts.get(&mail(key).1, NOW).is_some());
        assert_eq!(parts, [true, false, false, true], "of two with as many, the older");
        assert_eq!((doubts.parts.len(), doubts.each_all), (8, 8));
        let (id, key) = mail(4);
        assert!(!doubts.settle(id, &key, &HashSet::from([mail(4000).1])), "nobody can say of whom it was heard");
    }

    /// What arrived by a clock that was ahead is not the last one for as long as that was.
    #[test]
    fn the_last_mail_is_the_one_that_came_last() {
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        let ((ahead, key), then) = (mail(0), Millis(NOW.0 - 3_600_000));
        let second = MailId::new(then, 1);
        doubts.insert(ahead, key, Vec::new());
        doubts.insert(second, key, Vec::new());
        assert_eq!(doubts.get(&key, then), Some(ahead), "in which order they were written is not known");
        doubts.reading_is_over();
        doubts.insert(second, key, Vec::new());
        assert_eq!(doubts.get(&key, then), Some(second));
    }

    #[test]
    fn the_recipients_of_a_mail_are_forgotten_with_it() {
        let mut doubts = Doubts::new(10, Duration::from_secs(60));
        for number in 0..3_000 {
            let (id, key) = mail(number);
            doubts.insert(id, key, (0..4).map(|one| mail(10_000 + 4 * number + one).1).collect());
        }
        assert!(
            doubts.newest.len() <= 10
                && doubts.each.len() == 2
                && doubts.parts.len() == 8
                && doubts.order.len() <= SWEEP + 21
        );
    }
}
