//! What the journal knows of its mails, in memory: where each lies, what became of its recipients, when it goes round.
//!
//! Bodies are not kept here. An entry takes some 300 bytes; how many there can be is a high-water mark.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use proto::{EndKind, Ended, MailId, Millis};

use super::books::{Books, Ledger, Unheard, is_young};
use super::doubts::Doubts;
use super::mark::{EndMark, Mark};
use super::record::{Head, Place};

/// By what a mail is recognised that its sender sends again: a digest of client network, reverse path, recipients, body.
pub type Doubt = [u8; 32];

/// What the refill has to know of a pending mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// How often it was sent round from here.
    pub round: u32,
    /// Why it goes on as held, if it does.
    pub held: Option<String>,
    /// Its recipients that have not ended and are not buried, by their indexes.
    pub open: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Recipient {
    Open(Vec<Routing>),
    Buried,
    Over(EndKind),
    Rejected,
}

/// The targets of one set that are done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Routing {
    name: u64,
    targets: BTreeSet<u64>,
    held: bool,
    dropped: bool,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    recipients: Vec<Recipient>,
    held: Option<String>,
    round: u32,
    due: Millis,
}

/// What is known of one segment.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// Bytes of its mail file.
    pub(super) bytes: u64,
    /// Mails in it that have not ended.
    pub(super) open: HashSet<MailId>,
    /// Counts of its mails; those in flight are counted when asked.
    books: Books,
    unheard: HashMap<MailId, Doubt>,
}

/// Everything that the journal knows.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<MailId, Entry>,
    due: BTreeSet<(Millis, MailId)>,
    pub(super) segments: BTreeMap<u64, Segment>,
    ledger: Ledger,
    doubts: Doubts,
    /// Bytes free on the journal's disk.
    pub(super) free: u64,
}

impl Index {
    pub(super) fn new(ledger: Ledger, doubt_most: usize, doubt_for: Duration) -> Self {
        let doubts = Doubts::new(doubt_most, doubt_for);
        let mut index = Self { ledger, doubts, free: u64::MAX, ..Self::default() };
        for unheard in index.ledger.unheard.clone() {
            index.doubts.insert(unheard.id, unheard.key);
        }
        index
    }

    /// A mail was synced, or found again.
    pub(super) fn insert(&mut self, head: &Head, place: Place, due: Millis) {
        let recipients = vec![Recipient::Open(Vec::new()); head.recipients as usize];
        let entry = Entry { place, recipients, held: None, round: 0, due };
        let segment = self.segments.entry(place.segment).or_default();
        segment.open.insert(head.id);
        segment.books.accepted += u64::from(head.recipients);
        segment.unheard.insert(head.id, head.doubt);
        self.doubts.insert(head.id, head.doubt);
        self.due.insert((due, head.id));
        self.entries.insert(head.id, entry);
    }

    pub(super) fn all_doubts(&self) -> Vec<Doubt> {
        self.doubts.keys()
    }

    pub(super) fn doubtful(&self, key: &Doubt, now: Millis) -> Option<MailId> {
        self.doubts.get(key, now)
    }

    /// The sender knows. Gives the segment for the mark, if the mail's record is still there.
    pub(super) fn went_on(&mut self, id: MailId) -> Option<u64> {
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

    pub(super) fn place(&self, id: MailId) -> Option<Place> {
        self.entries.get(&id).map(|entry| entry.place)
    }

    pub(super) fn segment_of(&self, id: MailId) -> Option<u64> {
        self.place(id).map(|place| place.segment)
    }

    pub(super) fn pending(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    pub(super) fn pending_state(&self, id: MailId) -> Option<Pending> {
        let entry = self.entries.get(&id)?;
        let open = (0..).zip(&entry.recipients).filter(|(_, recipient)| matches!(recipient, Recipient::Open(_)));
        let open = open.map(|(index, _)| index).collect();
        Some(Pending { round: entry.round, held: entry.held.clone(), open })
    }

    /// Every recipient that is open ends as rejected. Says whether any was. A sender that did not hear of it and comes
    /// again brings a new mail: recognised as this one, it would hear 250 for a mail that is nowhere.
    pub(super) fn refuse(&mut self, id: MailId) -> bool {
        self.went_on(id);
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        for recipient in &mut entry.recipients {
            if matches!(recipient, Recipient::Open(_)) {
                *recipient = Recipient::Rejected;
            }
        }
        self.close_if_over(id);
        true
    }

    pub(super) fn hold(&mut self, id: MailId, reason: &str) -> Option<u64> {
        let entry = self.entries.get_mut(&id)?;
        entry.held = Some(reason.to_owned());
        Some(entry.place.segment)
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

    fn end(&mut self, id: MailId, end: EndMark) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(recipient) = entry.recipients.get_mut(end.recipient as usize) else { return };
        if matches!(recipient, Recipient::Buried) {
            // Buried in one round, stored by another: it is where it belongs.
            *recipient = Recipient::Open(Vec::new());
        }
        let Recipient::Open(routings) = recipient else { return };
        let at = routings.iter().position(|routing| routing.name == end.routing).unwrap_or_else(|| {
            routings.push(Routing { name: end.routing, targets: BTreeSet::new(), held: false, dropped: false });
            routings.len() - 1
        });
        let routing = &mut routings[at];
        routing.targets.insert(end.target);
        routing.held |= end.kind == EndKind::Held;
        routing.dropped |= end.kind == EndKind::Dropped;
        if routing.targets.len() >= end.of as usize {
            let kind = match (routing.held, routing.dropped) {
                (true, _) => EndKind::Held,
                (false, true) => EndKind::Dropped,
                (false, false) => EndKind::Stored,
            };
            *recipient = Recipient::Over(kind);
        }
    }

    fn bury(&mut self, id: MailId, recipient: u32) {
        let recipient = self.entries.get_mut(&id).and_then(|entry| entry.recipients.get_mut(recipient as usize));
        if let Some(recipient @ Recipient::Open(_)) = recipient {
            *recipient = Recipient::Buried;
        }
    }

    /// The segment of a mail of which something is buried.
    pub(super) fn buried_in(&self, id: MailId) -> Option<u64> {
        self.entries
            .get(&id)
            .filter(|entry| entry.recipients.contains(&Recipient::Buried))
            .map(|entry| entry.place.segment)
    }

    pub(super) fn buried(&self) -> Vec<MailId> {
        self.entries.keys().copied().filter(|id| self.buried_in(*id).is_some()).collect()
    }

    /// Says whether there was something buried.
    pub(super) fn replay(&mut self, id: MailId, now: Millis) -> bool {
        let changed = self.change_buried(id, &Recipient::Open(Vec::new()));
        if changed {
            self.set_due(id, now);
        }
        changed
    }

    pub(super) fn drop_buried(&mut self, id: MailId) -> bool {
        let changed = self.change_buried(id, &Recipient::Over(EndKind::Dropped));
        self.close_if_over(id);
        changed
    }

    fn change_buried(&mut self, id: MailId, to: &Recipient) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let buried = entry.recipients.iter_mut().filter(|recipient| **recipient == Recipient::Buried);
        buried.map(|recipient| recipient.clone_from(to)).count() > 0
    }

    /// A mail whose recipients have all ended leaves the index; its counts stay with its segment.
    fn close_if_over(&mut self, id: MailId) -> bool {
        let over =
            |entry: &Entry| entry.recipients.iter().all(|r| matches!(r, Recipient::Over(_) | Recipient::Rejected));
        if !self.entries.get(&id).is_some_and(over) {
            return false;
        }
        let Some(entry) = self.entries.remove(&id) else { return false };
        self.due.remove(&(entry.due, id));
        if let Some(segment) = self.segments.get_mut(&entry.place.segment) {
            segment.open.remove(&id);
            segment.books.add(&count(&entry.recipients));
        }
        true
    }

    /// Carries out a mark that was found at recovery.
    pub(super) fn recall(&mut self, id: MailId, mark: Mark) {
        match mark {
            Mark::WentOn => drop(self.went_on(id)),
            Mark::Refused => drop(self.refuse(id)),
            Mark::Held(reason) => drop(self.hold(id, &reason)),
            Mark::End(end) => {
                self.end(id, end);
                self.close_if_over(id);
            }
            Mark::Buried(recipient) => self.bury(id, recipient),
            Mark::Replayed => {
                self.change_buried(id, &Recipient::Open(Vec::new()));
            }
            Mark::Dropped => {
                self.drop_buried(id);
            }
        }
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
            let open = entry.recipients.iter().any(|recipient| matches!(recipient, Recipient::Open(_)));
            if open {
                entry.round += 1;
                due.push(id);
            }
            let wait = first.saturating_mul(1 << entry.round.min(20)).min(most);
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

    /// The ledger with these segments taken in, to be written before their files go.
    pub(super) fn folded(&self, numbers: &[u64], now: Millis) -> Ledger {
        let mut ledger = self.ledger.clone();
        ledger.folded.extend_from_slice(numbers);
        ledger.unheard.retain(|unheard| is_young(unheard.id, now, self.doubts.lasts));
        for segment in numbers.iter().filter_map(|number| self.segments.get(number)) {
            ledger.books.add(&segment.books);
            let young = segment.unheard.iter().filter(|(id, _)| is_young(**id, now, self.doubts.lasts));
            ledger.unheard.extend(young.map(|(id, key)| Unheard { key: *key, id: *id }));
        }
        ledger.unheard.sort_unstable_by_key(|unheard| unheard.id);
        let surplus = ledger.unheard.len().saturating_sub(self.doubts.most);
        ledger.unheard.drain(..surplus);
        ledger
    }

    /// The ledger is on disk: the segments are no more, but for files that could not be removed.
    pub(super) fn fold(&mut self, mut ledger: Ledger, left: Vec<u64>) {
        for number in std::mem::replace(&mut ledger.folded, left) {
            self.segments.remove(&number);
        }
        // Senders may have gone on while it was written.
        ledger.unheard.retain(|unheard| self.doubts.is_first(unheard.id, &unheard.key));
        self.ledger = ledger;
    }

    /// The highest number that a segment has, or had when the books were written last.
    pub(super) fn last_segment(&self) -> u64 {
        self.segments.keys().chain(&self.ledger.folded).copied().max().unwrap_or(0)
    }

    /// Closed segments in which every mail has ended.
    pub(super) fn foldable(&self, current: Option<u64>) -> Vec<u64> {
        let over = |(number, segment): &(&u64, &Segment)| Some(**number) != current && segment.open.is_empty();
        self.segments.iter().filter(over).map(|(number, _)| *number).collect()
    }
}

fn count(recipients: &[Recipient]) -> Books {
    let mut books = Books::default();
    for recipient in recipients {
        *match recipient {
            Recipient::Open(_) => &mut books.in_flight,
            Recipient::Buried | Recipient::Over(EndKind::Dropped) => &mut books.buried,
            Recipient::Over(EndKind::Stored) => &mut books.stored,
            Recipient::Over(EndKind::Held) => &mut books.held,
            Recipient::Rejected => &mut books.rejected,
        } += 1;
    }
    books
}
