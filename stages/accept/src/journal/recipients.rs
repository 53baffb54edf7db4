//! What became of each recipient of a mail, and the marks that say so. Pure.

use std::collections::BTreeSet;

use proto::EndKind;

use super::books::Books;
use super::mark::{EndMark, Mark};

/// One recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recipient {
    /// On its way; of the sets of targets that it was resolved to, what is done.
    Open(Vec<Routing>),
    /// With the dead letters. What is done stays done.
    Buried(Vec<Routing>),
    /// It has ended.
    Over(EndKind),
    /// Refused in the session.
    Rejected,
}

/// The targets of one set that are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Routing {
    name: u64,
    /// How many there are.
    of: u32,
    targets: BTreeSet<u64>,
    held: bool,
    dropped: bool,
}

impl Routing {
    fn kind(&self) -> EndKind {
        match (self.held, self.dropped) {
            (true, _) => EndKind::Held,
            (false, true) => EndKind::Dropped,
            (false, false) => EndKind::Stored,
        }
    }
}

impl Recipient {
    pub(super) fn new() -> Self {
        Self::Open(Vec::new())
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    pub(super) fn is_buried(&self) -> bool {
        matches!(self, Self::Buried(_))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over(_) | Self::Rejected)
    }

    /// Whether a copy is where somebody reads it.
    pub(super) fn is_begun(&self) -> bool {
        match self {
            Self::Open(routings) | Self::Buried(routings) => !routings.is_empty(),
            Self::Over(_) => true,
            Self::Rejected => false,
        }
    }

    /// One target is done. Buried in one round and stored by another, a recipient is where it belongs, once all of one
    /// set are done; until then it stays buried, or it would come to the dead letters again and again.
    pub(super) fn end(&mut self, end: EndMark) {
        let (Self::Open(routings) | Self::Buried(routings)) = self else { return };
        let at = routings.iter().position(|routing| routing.name == end.routing).unwrap_or_else(|| {
            let (targets, held, dropped) = (BTreeSet::new(), false, false);
            routings.push(Routing { name: end.routing, of: end.of, targets, held, dropped });
            routings.len() - 1
        });
        let routing = &mut routings[at];
        routing.targets.insert(end.target);
        routing.held |= end.kind == EndKind::Held;
        routing.dropped |= end.kind == EndKind::Dropped;
        if routing.targets.len() >= end.of as usize {
            *self = Self::Over(routing.kind());
        }
    }

    pub(super) fn bury(&mut self) {
        if let Self::Open(routings) = self {
            *self = Self::Buried(std::mem::take(routings));
        }
    }

    /// Says whether it was buried.
    pub(super) fn replay(&mut self) -> bool {
        let Self::Buried(routings) = self else { return false };
        *self = Self::Open(std::mem::take(routings));
        true
    }

    /// Given up by an operator. Says whether it was buried.
    pub(super) fn give_up(&mut self) -> bool {
        let is_buried = self.is_buried();
        if is_buried {
            *self = Self::Over(EndKind::Dropped);
        }
        is_buried
    }

    /// What is buried is refused with the rest: its sender will bring the mail again.
    pub(super) fn reject(&mut self) {
        if !self.is_over() {
            *self = Self::Rejected;
        }
    }

    /// Marks that bring a new recipient of this index to the same state, and leave one that is in it as it is.
    pub(super) fn marks(&self, recipient: u32, marks: &mut Vec<Mark>) {
        let end = |routing, target, of, kind| Mark::End(EndMark { recipient, routing, target, of, kind });
        match self {
            Self::Open(routings) | Self::Buried(routings) => {
                for routing in routings {
                    let targets = routing.targets.iter();
                    marks.extend(targets.map(|target| end(routing.name, *target, routing.of, routing.kind())));
                }
                marks.extend(self.is_buried().then_some(Mark::Buried(recipient)));
            }
            Self::Over(kind) => marks.push(end(0, 0, 1, *kind)),
            Self::Rejected => marks.push(Mark::Rejected(recipient)),
        }
    }
}

/// Counts of the recipients of a mail, all but how many were accepted.
pub(super) fn count(recipients: &[Recipient]) -> Books {
    let mut books = Books::default();
    for recipient in recipients {
        *match recipient {
            Recipient::Open(_) => &mut books.in_flight,
            Recipient::Buried(_) | Recipient::Over(EndKind::Dropped) => &mut books.buried,
            Recipient::Over(EndKind::Stored) => &mut books.stored,
            Recipient::Over(EndKind::Held) => &mut books.held,
            Recipient::Rejected => &mut books.rejected,
        } += 1;
    }
    books
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(routing: u64, target: u64, of: u32, kind: EndKind) -> EndMark {
        EndMark { recipient: 0, routing, target, of, kind }
    }

    #[track_caller]
    fn check(steps: &[fn(&mut Recipient)], want: &Recipient) {
        let mut recipient = Recipient::new();
        steps.iter().for_each(|step| step(&mut recipient));
        assert_eq!(&recipient, want);
        // The marks make the same of a new one, and nothing else of one that is there.
        let mut marks = Vec::new();
        recipient.marks(0, &mut marks);
        for mut again in [Recipient::new(), recipient.clone()] {
            for mark in &marks {
                match mark {
                    Mark::End(end) => again.end(*end),
                    Mark::Buried(_) => again.bury(),
                    Mark::Rejected(_) => again.reject(),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(&again, want, "{marks:?}");
        }
    }

    #[test]
    fn a_set_is_done_when_all_its_targets_are() {
        let first: fn(&mut Recipient) = |r| r.end(end(7, 1, 2, EndKind::Stored));
        let second: fn(&mut Recipient) = |r| r.end(end(7, 2, 2, EndKind::Held));
        check(&[first, first, second], &Recipient::Over(EndKind::Held));
        check(&[first, |r| r.end(end(8, 1, 1, EndKind::Stored)), second], &Recipient::Over(EndKind::Stored));
    }

    #[test]
    fn what_is_buried_stays_so_until_all_is_done() {
        let half: fn(&mut Recipient) = |r| r.end(end(7, 1, 2, EndKind::Stored));
        let mut routing = Recipient::new();
        half(&mut routing);
        let Recipient::Open(routings) = routing else { panic!("it is not done") };
        check(&[|r| r.bury(), half], &Recipient::Buried(routings.clone()));
        check(&[half, |r| r.bury(), half], &Recipient::Buried(routings.clone()));
        check(&[half, |r| r.bury(), |r| assert!(r.replay())], &Recipient::Open(routings));
        check(&[half, |r| r.bury(), |r| r.end(end(7, 2, 2, EndKind::Stored))], &Recipient::Over(EndKind::Stored));
        check(&[half, |r| r.bury(), |r| assert!(r.give_up())], &Recipient::Over(EndKind::Dropped));
    }

    #[test]
    fn what_has_ended_changes_no_more() {
        let stored: fn(&mut Recipient) = |r| r.end(end(7, 1, 1, EndKind::Stored));
        check(&[stored, |r| r.reject(), |r| r.bury()], &Recipient::Over(EndKind::Stored));
        check(&[|r| r.reject(), stored], &Recipient::Rejected);
        check(&[|r| r.bury(), |r| r.reject()], &Recipient::Rejected);
        check(&[stored, |r| assert!(!r.replay() && !r.give_up())], &Recipient::Over(EndKind::Stored));
    }
}
