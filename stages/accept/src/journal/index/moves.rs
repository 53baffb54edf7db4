//! What the journal knows of records that are carried over from one segment to another.

use std::time::Duration;

use proto::{MailId, Millis};

use super::super::mark::Mark;
use super::super::record::Place;
use super::{Entry, Index, Segment};

/// A segment is sparse when less than one part in this of its bytes is alive: carrying that over costs a quarter of
/// what it frees.
const SPARSE: u64 = 4;

impl Index {
    /// A mail's record is in this place now, and with it all that is counted for it.
    pub(super) fn relocate(&mut self, id: MailId, place: Place) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let recipients = entry.recipients.len() as u64;
        let before = std::mem::replace(&mut entry.place, place);
        let mut doubt = None;
        if let Some(old) = self.segments.get_mut(&before.segment) {
            old.open.remove(&id);
            old.live = old.live.saturating_sub(before.length());
            old.books.accepted -= recipients;
            doubt = old.unheard.remove(&id);
        }
        let new = self.segments.entry(place.segment).or_default();
        new.open.insert(id);
        new.live += place.length();
        new.newest = new.newest.max(id.arrived());
        new.books.accepted += recipients;
        new.unheard.extend(doubt.map(|doubt| (id, doubt)));
        if before.segment != place.segment {
            new.bound.insert(before.segment);
        }
    }

    /// The closed segment that is best carried over: hardly anything in it is alive, and nothing in it is so young that
    /// it may well end by itself.
    pub(in super::super) fn sparse(&self, current: Option<u64>, now: Millis, after: Duration) -> Option<u64> {
        let is_old = |segment: &Segment| now.since(segment.newest) >= after;
        let is_sparse =
            |segment: &Segment| !segment.open.is_empty() && segment.live.saturating_mul(SPARSE) < segment.bytes;
        let mut old = self.segments.iter().filter(|(number, _)| Some(**number) != current);
        // One that cannot go because of another would only leave one more behind.
        let may_go = |segment: &Segment| segment.bound.iter().all(|number| !self.segments.contains_key(number));
        old.find(|(_, segment)| now >= segment.stays_until && may_go(segment) && is_sparse(segment) && is_old(segment))
            .map(|(number, _)| *number)
    }

    /// Pending mails of a segment, of so many bytes together, one at least: from now on they stay until
    /// [`Self::end_move`]. With each, the marks that say what became of it.
    pub(in super::super) fn begin_move(&mut self, number: u64, most: u64) -> Vec<(MailId, Vec<Mark>)> {
        let Some(segment) = self.segments.get(&number) else { return Vec::new() };
        let (mut bytes, mut moving) = (0, Vec::new());
        for id in &segment.open {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            bytes += entry.place.length();
            if bytes > most && !moving.is_empty() {
                break;
            }
            entry.moves = true;
            moving.push((*id, marks(entry, segment.unheard.contains_key(id))));
        }
        moving
    }

    /// The mail lies in this place now, or stays where it was. Gives the marks that say that it has ended meanwhile, if
    /// it has.
    pub(in super::super) fn end_move(&mut self, id: MailId, place: Option<Place>) -> Vec<Mark> {
        if let Some(place) = place {
            self.relocate(id, place);
        }
        let Some(entry) = self.entries.get_mut(&id) else { return Vec::new() };
        entry.moves = false;
        let is_unheard =
            self.segments.get(&entry.place.segment).is_some_and(|segment| segment.unheard.contains_key(&id));
        let marks = marks(entry, is_unheard);
        if self.close_if_over(id) { marks } else { Vec::new() }
    }

    /// What cannot be carried over stays where it is, for so long.
    pub(in super::super) fn stays_until(&mut self, number: u64, at: Millis) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.stays_until = at;
        }
    }
}

/// The marks that bring a new entry to the same state.
fn marks(entry: &Entry, is_unheard: bool) -> Vec<Mark> {
    let mut marks = Vec::new();
    marks.extend((!is_unheard).then_some(Mark::WentOn));
    marks.extend(entry.held.clone().map(Mark::Held));
    marks.extend(entry.cleared.then_some(Mark::Cleared));
    (0..).zip(&entry.recipients).for_each(|(index, recipient)| recipient.marks(index, &mut marks));
    marks
}
