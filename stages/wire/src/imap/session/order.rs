//! Telling what was found in an order, or as threads: the world is asked for what is kept of the messages' texts, which
//! is all that is needed.

use imap_types::core::Vec1;
use imap_types::extensions::sort::SortCriterion;
use imap_types::extensions::thread::ThreadingAlgorithm;

use super::ImapSession;
use crate::imap::facts::Facts;
use crate::imap::outline::Outline;
use crate::imap::question::Question;
use crate::imap::sort::Sorting;
use crate::imap::thread::{Algorithm, Forest, Threading};

/// Messages that one question is about.
const BATCH: usize = 1000;

/// Bytes that are gathered without asking for room: what a mailbox of ten thousand messages takes.
const FREE: usize = 1 << 20;
/// Bytes for which room is asked ahead.
const AHEAD: usize = 8 << 20;

/// An order in which messages are told.
#[derive(Debug)]
pub(super) enum Order {
    Gathering(Gathering),
    /// UIDs.
    Sorted(Vec<u32>),
    Threaded(Forest),
}

/// It comes about.
#[derive(Debug)]
pub(super) struct Gathering {
    gathered: Gathered,
    /// So many of those that were found have been looked at.
    done: usize,
    /// Bytes for which there is room.
    room: usize,
}

#[derive(Debug)]
enum Gathered {
    ToSort(Sorting),
    ToThread(Threading),
}

impl Gathered {
    fn bytes(&self) -> usize {
        match self {
            Self::ToSort(sorting) => sorting.bytes(),
            Self::ToThread(threading) => threading.bytes(),
        }
    }
}

impl Order {
    /// Whether all of so many have been looked at, and the order is still to come.
    pub(super) fn is_gathered(&self, found: usize) -> bool {
        match self {
            Self::Gathering(Gathering { gathered, done, .. }) => {
                *done >= found || matches!(gathered, Gathered::ToSort(sorting) if sorting.goes_by_rows())
            }
            Self::Sorted(_) | Self::Threaded(_) => false,
        }
    }

    fn of(gathered: Gathered) -> Self {
        Self::Gathering(Gathering { gathered, done: 0, room: FREE })
    }

    pub(super) fn sort(criteria: Vec1<SortCriterion>) -> Self {
        Self::of(Gathered::ToSort(Sorting::new(criteria.into_inner())))
    }

    /// None for an algorithm that is not known.
    pub(super) fn thread(algorithm: &ThreadingAlgorithm<'_>) -> Option<Self> {
        let algorithm = match algorithm {
            ThreadingAlgorithm::OrderedSubject => Algorithm::OrderedSubject,
            ThreadingAlgorithm::References => Algorithm::References,
            ThreadingAlgorithm::Other(_) => return None,
        };
        Some(Self::of(Gathered::ToThread(Threading::new(algorithm))))
    }
}

impl ImapSession {
    /// Says whether the order is there; else a question has been put. What was found comes by UID.
    pub(super) fn order_next(&mut self, order: &mut Order, found: &[u32]) -> bool {
        let Order::Gathering(Gathering { gathered, done, room }) = order else { return true };
        if let Gathered::ToSort(sorting) = gathered
            && sorting.goes_by_rows()
            && *done == 0
        {
            for (_, row) in found.iter().filter_map(|uid| self.messages().find(*uid)) {
                sorting.add(row, &Facts::default());
            }
            *done = found.len();
        }
        if gathered.bytes() > *room {
            *room = gathered.bytes() + AHEAD;
            self.question = Some(Question::Gather(*room as u64));
            return false;
        }
        if *done < found.len() {
            let next = &found[*done..found.len().min(*done + BATCH)];
            self.question = Some(Question::Outlines(next.to_vec()));
            return false;
        }
        let had_room = *room > FREE;
        // What was gathered is used up.
        let end = Order::Sorted(Vec::new());
        *order = match std::mem::replace(order, end) {
            Order::Gathering(Gathering { gathered: Gathered::ToSort(sorting), .. }) => Order::Sorted(sorting.order()),
            Order::Gathering(Gathering { gathered: Gathered::ToThread(threading), .. }) => {
                Order::Threaded(threading.thread())
            }
            ready => ready,
        };
        if had_room {
            // A client may take its time to hear the answer.
            self.question = Some(Question::Gather(0));
        }
        !had_room
    }

    /// Takes what is kept of the next `count` messages: those that are missing are gone.
    pub(super) fn take_outlines(&self, order: &mut Order, count: usize, outlines: &[(u32, Outline)]) {
        let Order::Gathering(Gathering { gathered, done, .. }) = order else { return };
        *done += count;
        for (uid, outline) in outlines {
            let Some((_, row)) = self.messages().find(*uid) else { continue };
            let facts = Facts::of(&outline.fields, row.received);
            match gathered {
                Gathered::ToSort(sorting) => sorting.add(row, &facts),
                Gathered::ToThread(threading) => threading.add(*uid, facts),
            }
        }
    }
}
