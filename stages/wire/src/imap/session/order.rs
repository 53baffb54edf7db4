//! Telling what was found in an order, or as threads: the world is asked for what is kept of the messages' texts, which is
//! all that is needed.

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

/// An order in which messages are told.
#[derive(Debug)]
pub(super) enum Order {
    /// It comes about: so many of those that were found have been looked at.
    Gathering(Gathered, usize),
    /// UIDs.
    Sorted(Vec<u32>),
    Threaded(Forest),
}

#[derive(Debug)]
pub(super) enum Gathered {
    ToSort(Sorting),
    ToThread(Threading),
}

impl Order {
    /// Whether all of so many have been looked at, and the order is still to come.
    pub(super) fn is_gathered(&self, found: usize) -> bool {
        match self {
            Self::Gathering(Gathered::ToSort(sorting), done) => *done >= found || sorting.goes_by_rows(),
            Self::Gathering(Gathered::ToThread(_), done) => *done >= found,
            Self::Sorted(_) | Self::Threaded(_) => false,
        }
    }

    pub(super) fn sort(criteria: Vec1<SortCriterion>) -> Self {
        Self::Gathering(Gathered::ToSort(Sorting::new(criteria.into_inner())), 0)
    }

    /// None for an algorithm that is not known.
    pub(super) fn thread(algorithm: &ThreadingAlgorithm<'_>) -> Option<Self> {
        let algorithm = match algorithm {
            ThreadingAlgorithm::OrderedSubject => Algorithm::OrderedSubject,
            ThreadingAlgorithm::References => Algorithm::References,
            ThreadingAlgorithm::Other(_) => return None,
        };
        Some(Self::Gathering(Gathered::ToThread(Threading::new(algorithm)), 0))
    }
}

impl ImapSession {
    /// Says whether the order is there; else a question has been put. What was found comes by UID.
    pub(super) fn order_next(&mut self, order: &mut Order, found: &[u32]) -> bool {
        let Order::Gathering(gathered, done) = order else { return true };
        if let Gathered::ToSort(sorting) = gathered
            && sorting.goes_by_rows()
            && *done == 0
        {
            for (_, row) in found.iter().filter_map(|uid| self.messages().find(*uid)) {
                sorting.add(row, &Facts::default());
            }
            *done = found.len();
        }
        if *done < found.len() {
            let next = &found[*done..found.len().min(*done + BATCH)];
            self.question = Some(Question::Outlines(next.to_vec()));
            return false;
        }
        // What was gathered is used up.
        let end = Order::Sorted(Vec::new());
        *order = match std::mem::replace(order, end) {
            Order::Gathering(Gathered::ToSort(sorting), _) => Order::Sorted(sorting.order()),
            Order::Gathering(Gathered::ToThread(threading), _) => Order::Threaded(threading.thread()),
            ready => ready,
        };
        true
    }

    /// Takes what is kept of the next `count` messages: those that are missing are gone.
    pub(super) fn take_outlines(&self, order: &mut Order, count: usize, outlines: &[(u32, Outline)]) {
        let Order::Gathering(gathered, done) = order else { return };
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
