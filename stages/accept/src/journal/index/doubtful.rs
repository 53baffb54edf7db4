//! Which mails are in doubt: their senders may not know that we have them.

use std::collections::HashSet;

use proto::{MailId, Millis};

use super::{Doubt, Index};

/// Where it stands that the sender of a mail does not know that we have it: in one place only.
enum Unheard {
    /// With this segment.
    In(u64),
    /// In the ledger, at this place.
    Carried(usize),
}

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

    /// Mails of which a failed append may have left a record.
    pub(in super::super) fn note_left(&mut self, keys: impl Iterator<Item = Doubt>) {
        self.left.extend(keys);
    }

    /// It is cut off.
    pub(in super::super) fn none_left(&mut self) {
        self.left.clear();
    }

    pub(in super::super) fn may_be_left(&self, keys: &[Doubt]) -> bool {
        keys.iter().any(|key| self.left.contains(key))
    }

    /// A sender knows that brought the mail for these recipients. Those of whom nobody has gone on stay in doubt, in
    /// memory: a restart takes all for doubtful again, unless the whole mail is over. Gives the segment for the mark
    /// then.
    pub(in super::super) fn went_on_for(&mut self, id: MailId, heard: &HashSet<Doubt>) -> Option<u64> {
        let (unheard, key) = self.unheard(id)?;
        if self.doubts.settle(id, &key, heard) { self.hears(id, unheard, &key) } else { None }
    }

    /// The sender knows. Gives the segment for the mark, if the mail's record is still there.
    pub(in super::super) fn went_on(&mut self, id: MailId) -> Option<u64> {
        let (unheard, key) = self.unheard(id)?;
        self.hears(id, unheard, &key)
    }

    fn hears(&mut self, id: MailId, unheard: Unheard, key: &Doubt) -> Option<u64> {
        self.doubts.remove(id, key);
        match unheard {
            Unheard::In(number) => {
                self.segments.get_mut(&number)?.unheard.remove(&id);
                Some(number)
            }
            Unheard::Carried(at) => {
                self.ledger.unheard.swap_remove(at);
                None
            }
        }
    }

    /// Where it stands that a sender does not know. Nearly all go on at once: of those the segment is there, and the
    /// ledger need not be searched.
    fn unheard(&self, id: MailId) -> Option<(Unheard, Doubt)> {
        let mut segments = self.segments.iter().rev();
        let kept = segments.find_map(|(number, segment)| Some((Unheard::In(*number), *segment.unheard.get(&id)?)));
        kept.or_else(|| {
            let at = self.ledger.unheard.iter().position(|unheard| unheard.id == id)?;
            Some((Unheard::Carried(at), self.ledger.unheard[at].key))
        })
    }
}
