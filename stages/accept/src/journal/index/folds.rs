//! Segments in which everything has ended: when they may go, and what stays of them in the ledger.

use proto::Millis;

use super::super::books::{Ledger, Unheard, is_young};
use super::{Index, Segment};

impl Index {
    /// The ledger with these segments taken in, to be written before their files go.
    pub(in super::super) fn folded(&self, numbers: &[u64], now: Millis) -> Ledger {
        let mut ledger = self.ledger.clone();
        ledger.folded.extend_from_slice(numbers);
        let is_damaged = |number: &&u64| self.segments.get(number).is_some_and(|segment| segment.damaged);
        ledger.damaged.extend(numbers.iter().filter(is_damaged));
        ledger.unheard.retain(|unheard| is_young(unheard.id, now, self.doubts.lasts));
        for unheard in ledger.unheard.iter_mut().filter(|unheard| !unheard.each.is_empty()) {
            unheard.each = self.doubts.each(unheard.id);
        }
        for segment in numbers.iter().filter_map(|number| self.segments.get(number)) {
            ledger.books.add(&segment.books);
            let young = segment.unheard.iter().filter(|(id, _)| is_young(**id, now, self.doubts.lasts));
            ledger.unheard.extend(young.map(|(id, key)| Unheard { key: *key, id: *id, each: self.doubts.each(*id) }));
        }
        ledger.unheard.sort_unstable_by_key(|unheard| unheard.id);
        ledger.unheard.drain(..ledger.unheard.len().saturating_sub(self.doubts.most));
        ledger
    }

    /// The ledger is on disk: the segments are no more, but for files that could not be removed.
    pub(in super::super) fn fold(&mut self, mut ledger: Ledger, left: Vec<u64>) {
        ledger.damaged.retain(|number| left.contains(number));
        for number in std::mem::replace(&mut ledger.folded, left) {
            let gone = self.segments.remove(&number);
            self.total -= gone.map_or(0, |segment| segment.bytes);
        }
        // Senders may have gone on while it was written.
        ledger.unheard.retain(|unheard| self.doubts.is_newest(unheard.id, &unheard.key));
        self.ledger = ledger;
    }

    /// A record of this segment cannot be read.
    pub(in super::super) fn note_damage(&mut self, number: u64) {
        self.segments.entry(number).or_default().damaged = true;
    }

    /// The highest number that a segment has, or had when the books were written last.
    pub(in super::super) fn last_segment(&self) -> u64 {
        self.segments.keys().chain(&self.ledger.folded).copied().max().unwrap_or(0)
    }

    /// Closed segments in which every mail has ended, and that are bound to no others than these and those that are
    /// gone.
    pub(in super::super) fn foldable(&self, current: Option<u64>) -> Vec<u64> {
        let over = |(number, segment): &(&u64, &Segment)| Some(**number) != current && segment.open.is_empty();
        let mut numbers: Vec<u64> = self.segments.iter().filter(over).map(|(number, _)| *number).collect();
        loop {
            let goes = |number: &u64| numbers.contains(number) || !self.segments.contains_key(number);
            let is_free =
                |number: &u64| self.segments.get(number).is_some_and(|segment| segment.bound.iter().all(goes));
            let free: Vec<u64> = numbers.iter().copied().filter(is_free).collect();
            if free.len() == numbers.len() {
                return numbers;
            }
            numbers = free;
        }
    }
}
