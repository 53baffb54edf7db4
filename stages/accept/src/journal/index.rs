//! What the journal knows of its mails, in memory: where each lies, what became of its recipients, when it goes round.
//!
//! Bodies are not kept here. An entry takes some 300 bytes; how many there can be is a high-water mark.

mod doubtful;
mod folds;
mod moves;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use proto::{Ended, MailId, Millis};

use super::books::{Books, Ledger};
use super::doubts::Doubts;
use super::mark::{EndMark, Mark};
use super::recipients::{Recipient, count};
use super::record::{Head, Key, Place};

/// By what a mail is recognised that its sender sends again: a digest of client network, reverse path, recipients,
/// body.
pub type Doubt = [u8; 32];

/// What the refill has to know of a pending mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// How often it was sent round from here.
    pub round: u32,
    /// Why it goes on as held, if it does.
    pub held: Option<String>,
    /// Whether all checks were passed in some round, whose copy may be under way still.
    pub cleared: bool,
    /// Its recipients that have not ended and are not buried, by their indexes.
    pub open: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    recipients: Vec<Recipient>,
    held: Option<String>,
    cleared: bool,
    round: u32,
    /// Rounds that the broker has taken: each makes the next wait longer.
    waits: u32,
    due: Millis,
    /// Its record is being carried over: it must not leave.
    moves: bool,
}

/// What is known of one segment.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// Bytes of its mail file.
    bytes: u64,
    key: Key,
    /// Mails in it that have not ended.
    pub(super) open: HashSet<MailId>,
    /// Bytes of their records.
    live: u64,
    /// The last arrival in it.
    newest: Millis,
    /// Some record cannot be read.
    damaged: bool,
    /// Its records cannot be carried over before this.
    stays_until: Millis,
    /// Segments that have other records of mails that this one has, too: none of them may outlive it, nor it them, or a
    /// record without what was said of it later would be left.
    bound: BTreeSet<u64>,
    /// Counts of its mails; those in flight are counted when asked.
    books: Books,
    unheard: HashMap<MailId, Doubt>,
    /// Mails that may be refused on disk, although they are not: their marks were written, could not be synced, and
    /// cannot be cut off yet.
    unsure: HashSet<MailId>,
}

/// Everything that the journal knows.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<MailId, Entry>,
    due: BTreeSet<(Millis, MailId)>,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Bytes of all segments.
    total: u64,
    ledger: Ledger,
    doubts: Doubts,
    /// By what mails are recognised of which a failed append may have left a record that is not cut off yet.
    left: HashSet<Doubt>,
    /// Mails that have ended, as long as segments are being read: another record of one may follow.
    ended: Option<HashMap<MailId, u64>>,
    /// With what new segments are written.
    pub(super) key: Key,
    /// Bytes free on the journal's disk.
    pub(super) free: u64,
}

impl Index {
    pub(super) fn new(mut ledger: Ledger, key: Key, doubt_most: usize, doubt_for: Duration) -> Self {
        let doubts = Doubts::new(doubt_most, doubt_for);
        let ended = Some(HashMap::new());
        ledger.key = Some(key);
        let mut index = Self { ledger, key, doubts, ended, free: u64::MAX, ..Self::default() };
        for unheard in index.ledger.unheard.clone() {
            index.doubts.insert(unheard.id, unheard.key, unheard.each);
        }
        index
    }

    /// All segments were read.
    pub(super) fn reading_is_over(&mut self) {
        self.ended = None;
        self.doubts.reading_is_over();
    }

    /// Of mails that arrived before this moment, the journal may not know everything.
    pub(super) fn vouch_from(&mut self, now: Millis) {
        self.ledger.begun = now;
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether it is certain that every recipient of this mail has ended.
    pub(super) fn has_ended(&self, id: MailId) -> bool {
        id.arrived() >= self.ledger.begun && self.pending_state(id).is_none()
    }

    /// There is a segment with so many bytes.
    pub(super) fn begin_segment(&mut self, number: u64, key: Key, bytes: u64) {
        let segment = self.segments.entry(number).or_default();
        self.total = self.total - segment.bytes + bytes;
        (segment.key, segment.bytes) = (key, bytes);
    }

    /// A mail was synced, or found again, with the keys of its recipients if there are several. A second record of a
    /// mail is one that was carried over.
    pub(super) fn insert(&mut self, head: &Head, each: Vec<Doubt>, place: Place, due: Millis) {
        if self.entries.contains_key(&head.id) {
            return self.relocate(head.id, place);
        }
        if let Some(number) = self.ended.as_ref().and_then(|ended| ended.get(&head.id)).copied() {
            // What was said of it last is there.
            if let Some(segment) = self.segments.get_mut(&number) {
                segment.bound.insert(place.segment);
            }
            return;
        }
        let recipients = vec![Recipient::new(); head.recipients as usize];
        let (held, cleared) = (None, false);
        let entry = Entry { place, recipients, held, cleared, round: 0, waits: 0, due, moves: false };
        let segment = self.segments.entry(place.segment).or_default();
        segment.open.insert(head.id);
        segment.live += place.length();
        segment.newest = segment.newest.max(head.id.arrived());
        segment.books.accepted += u64::from(head.recipients);
        segment.unheard.insert(head.id, head.doubt);
        self.doubts.insert(head.id, head.doubt, each);
        self.due.insert((due, head.id));
        self.entries.insert(head.id, entry);
    }

    pub(super) fn place(&self, id: MailId) -> Option<Place> {
        self.entries.get(&id).map(|entry| entry.place)
    }

    /// Where a mail's record is, and the key of its checksum.
    pub(super) fn record(&self, id: MailId) -> Option<(Place, Key)> {
        let place = self.place(id)?;
        Some((place, self.segments.get(&place.segment)?.key))
    }

    pub(super) fn segment_of(&self, id: MailId) -> Option<u64> {
        self.place(id).map(|place| place.segment)
    }

    pub(super) fn pending(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.total
    }

    pub(super) fn pending_state(&self, id: MailId) -> Option<Pending> {
        let entry = self.entries.get(&id).filter(|entry| !entry.recipients.iter().all(Recipient::is_over))?;
        let open = (0..).zip(&entry.recipients).filter(|(_, recipient)| recipient.is_open());
        let open = open.map(|(index, _)| index).collect();
        Some(Pending { round: entry.round, held: entry.held.clone(), cleared: entry.cleared, open })
    }

    /// Whether some recipient has a copy already, or has one under way that nothing stops: such a mail cannot be
    /// refused any more.
    pub(super) fn is_begun(&self, id: MailId) -> bool {
        let is_begun = |entry: &Entry| entry.cleared || entry.recipients.iter().any(Recipient::is_begun);
        self.entries.get(&id).is_some_and(is_begun)
    }

    /// Every recipient that has not ended is rejected. Says whether the mail was pending. A sender that did not hear of
    /// it and comes again brings a new mail: recognised as this one, it would hear 250 for a mail that is nowhere.
    fn refuse(&mut self, id: MailId) -> bool {
        self.went_on(id);
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.recipients.iter_mut().for_each(Recipient::reject);
        self.close_if_over(id);
        true
    }

    /// Gives the segment for the mark, and the recipients that are open.
    pub(super) fn hold(&mut self, id: MailId, reason: &str) -> Option<(u64, Vec<u32>)> {
        let open = self.pending_state(id)?.open;
        let entry = self.entries.get_mut(&id)?;
        entry.held = Some(reason.to_owned());
        Some((entry.place.segment, open))
    }

    /// Gives the segment for the mark, if this was not known. Says nothing of a mail that is not pending.
    pub(super) fn clear(&mut self, id: MailId) -> Option<u64> {
        let entry = self.entries.get_mut(&id)?;
        let is_known = std::mem::replace(&mut entry.cleared, true);
        (!is_known).then_some(entry.place.segment)
    }

    /// Gives the segment for the marks, and whether the mail is over by this.
    pub(super) fn ended(&mut self, ended: &Ended) -> Option<(u64, bool)> {
        let segment = self.segment_of(ended.id)?;
        for end in &ended.ends {
            self.end(ended.id, end.into());
        }
        for recipient in ended.burial.iter().flat_map(|burial| &burial.recipients) {
            self.bury(ended.id, *recipient);
        }
        Some((segment, self.close_if_over(ended.id)))
    }

    fn recipient(&mut self, id: MailId, recipient: u32) -> Option<&mut Recipient> {
        self.entries.get_mut(&id)?.recipients.get_mut(recipient as usize)
    }

    fn end(&mut self, id: MailId, end: EndMark) {
        if let Some(recipient) = self.recipient(id, end.recipient) {
            recipient.end(end);
        }
    }

    fn bury(&mut self, id: MailId, recipient: u32) {
        if let Some(recipient) = self.recipient(id, recipient) {
            recipient.bury();
        }
    }

    /// Which of these recipients of a mail are buried; of all, without any.
    pub(super) fn buried_of(&self, id: MailId, recipients: &[u32]) -> Vec<u32> {
        let Some(entry) = self.entries.get(&id) else { return Vec::new() };
        let buried =
            (0..).zip(&entry.recipients).filter(|(_, recipient)| recipient.is_buried()).map(|(index, _)| index);
        buried.filter(|index| recipients.is_empty() || recipients.contains(index)).collect()
    }

    pub(super) fn buried(&self) -> Vec<MailId> {
        let is_buried = |entry: &Entry| entry.recipients.iter().any(Recipient::is_buried);
        self.entries.iter().filter(|(_, entry)| is_buried(entry)).map(|(id, _)| *id).collect()
    }

    /// A mail whose recipients have all ended leaves the index, unless it is being carried over; its counts stay with
    /// its segment. Says whether all have.
    fn close_if_over(&mut self, id: MailId) -> bool {
        let Some(entry) = self.entries.get(&id).filter(|entry| entry.recipients.iter().all(Recipient::is_over)) else {
            return false;
        };
        if entry.moves {
            return true;
        }
        let place = entry.place;
        self.due.remove(&(entry.due, id));
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.open.remove(&id);
            segment.live = segment.live.saturating_sub(entry.place.length());
            segment.books.add(&count(&entry.recipients));
        }
        self.entries.remove(&id);
        if let Some(ended) = &mut self.ended {
            ended.insert(id, place.segment);
        }
        true
    }

    /// Carries out a mark that was found with a segment. It speaks of the record in that segment alone: of a mail that
    /// was not carried over after all, it may be older than what stands with the mail's own record.
    pub(super) fn recall(&mut self, number: u64, id: MailId, mark: Mark) {
        if mark == Mark::WentOn {
            let doubt = self.segments.get_mut(&number).and_then(|segment| segment.unheard.remove(&id));
            if let Some(doubt) = doubt {
                self.doubts.remove(id, &doubt);
            }
        } else if self.segment_of(id) == Some(number) {
            self.apply(id, mark);
        }
    }

    /// Carries out a mark. Says whether it changed anything that was pending.
    pub(super) fn apply(&mut self, id: MailId, mark: Mark) -> bool {
        match mark {
            Mark::WentOn => self.went_on(id).is_some(),
            Mark::Refused => self.refuse(id),
            Mark::Held(reason) => self.hold(id, &reason).is_some(),
            Mark::Cleared => self.clear(id).is_some(),
            Mark::End(end) => {
                self.end(id, end);
                self.close_if_over(id)
            }
            Mark::Buried(recipient) => {
                self.bury(id, recipient);
                true
            }
            Mark::Replayed(recipient) => self.recipient(id, recipient).is_some_and(Recipient::replay),
            Mark::Dropped(recipient) => {
                let is_given_up = self.recipient(id, recipient).is_some_and(Recipient::give_up);
                self.close_if_over(id);
                is_given_up
            }
            Mark::Rejected(recipient) => {
                if let Some(recipient) = self.recipient(id, recipient) {
                    recipient.reject();
                }
                self.close_if_over(id)
            }
        }
    }

    /// The last round was not taken: it does not count, and the next is due at this time.
    pub(super) fn due_again(&mut self, id: MailId, at: Millis) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.waits = entry.waits.saturating_sub(1);
        }
        self.set_due(id, at);
    }

    pub(super) fn set_due(&mut self, id: MailId, at: Millis) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        self.due.remove(&(entry.due, id));
        entry.due = at;
        self.due.insert((at, id));
    }

    /// Mails whose time has come; each gets its next, longer wait. Mail that is altogether with the dead letters waits
    /// for its operator.
    pub(super) fn due(&mut self, now: Millis, limit: usize, first: Duration, most: Duration) -> Vec<MailId> {
        let ready: Vec<MailId> =
            self.due.range(..=(now, MailId::from_bytes([255; 16]))).take(limit).map(|(_, id)| *id).collect();
        let mut due = Vec::with_capacity(ready.len());
        for id in ready {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.recipients.iter().any(Recipient::is_open) {
                entry.round += 1;
                entry.waits += 1;
                due.push(id);
            }
            let wait = first.saturating_mul(1 << entry.waits.min(20)).min(most);
            self.set_due(id, now.plus(wait));
        }
        due
    }

    pub(super) fn all_due(&mut self, now: Millis) {
        let ids: Vec<MailId> = self.entries.keys().copied().collect();
        for id in ids {
            self.set_due(id, now);
        }
    }

    pub(super) fn books(&self) -> Books {
        let mut books = self.ledger.books;
        for segment in self.segments.values() {
            books.add(&segment.books);
        }
        for entry in self.entries.values() {
            books.add(&count(&entry.recipients));
        }
        books
    }
}
