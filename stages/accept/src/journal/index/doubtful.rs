//! Which mails are in doubt: their senders may not know that we have them.

use std::collections::HashSet;

use proto::{MailId, Millis};

use super::{Doubt, Index};

impl Index {
    pub(in super::super) fn all_doubts(&self) -> (Vec<Doubt>, Vec<Doubt>) {
        self.doubts.keys()
    }

    pub(in super::super) fn doubtful(&self, key: &Doubt, now: Millis) -> Option<MailId> {
        self.doubts.get(key, now)
    }

    /// Mails whose refusal may be on disk.
    pub(in super::super) fn note_unsure(&mut self, number: u64, ids: impl Iterator<Item = MailId>) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.unsure.extend(ids);
        }
    }

    /// None of this segment's mails has such a mark any more.
    pub(in super::super) fn note_sure(&mut self, number: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.unsure.clear();
        }
    }

    pub(in super::super) fn is_unsure(&self, id: MailId) -> bool {
        self.segments.values().any(|segment| segment.unsure.contains(&id))
    }

    /// A sender knows that brought the mail for these recipients. Those of whom nobody has gone on stay in doubt, in memory:
    /// a restart takes all for doubtful again, unless the whole mail is over. Gives the segment for the mark then.
    pub(in super::super) fn went_on_for(&mut self, id: MailId, heard: &HashSet<Doubt>) -> Option<u64> {
        let carried = self.ledger.unheard.iter().find(|unheard| unheard.id == id).map(|unheard| unheard.key);
        let key =
            carried.or_else(|| self.segments.values().rev().find_map(|segment| segment.unheard.get(&id).copied()))?;
        if self.doubts.settle(id, &key, heard) { self.went_on(id) } else { None }
    }

    /// The sender knows. Gives the segment for the mark, if the mail's record is still there.
    pub(in super::super) fn went_on(&mut self, id: MailId) -> Option<u64> {
        if let Some(at) = self.ledger.unheard.iter().position(|unheard| unheard.id == id) {
            let unheard = self.ledger.unheard.swap_remove(at);
            self.doubts.remove(id, &unheard.key);
            return None;
        }
        let (number, key) = self
            .segments
            .iter_mut()
            .rev()
            .find_map(|(number, segment)| segment.unheard.remove(&id).map(|key| (*number, key)))?;
        self.doubts.remove(id, &key);
        Some(number)
    }
}
