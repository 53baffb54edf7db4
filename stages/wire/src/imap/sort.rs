//! SORT (RFC 5256): the order of messages by what their rows and headers say. Pure.

use std::cmp::Ordering;

use imap_types::extensions::sort::{SortCriterion, SortKey};

use super::facts::Facts;
use super::question::MessageRow;

/// What a message is compared by.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i64),
    Text(Box<str>),
}

/// Messages that are to be put in order.
#[derive(Debug)]
pub(super) struct Sorting {
    criteria: Vec<SortCriterion>,
    rows: Vec<(Box<[Key]>, u32)>,
}

impl Sorting {
    /// A key that was named before orders nothing any more, and is not kept for every message once again.
    pub(super) fn new(mut criteria: Vec<SortCriterion>) -> Self {
        let mut named = Vec::new();
        criteria.retain(|criterion| {
            let is_new = !named.contains(&criterion.key);
            if is_new {
                named.push(criterion.key.clone());
            }
            is_new
        });
        Self { criteria, rows: Vec::new() }
    }

    /// Whether the rows are enough.
    pub(super) fn goes_by_rows(&self) -> bool {
        self.criteria.iter().all(|criterion| matches!(criterion.key, SortKey::Arrival | SortKey::Size))
    }

    pub(super) fn add(&mut self, row: &MessageRow, facts: &Facts) {
        // `i;unicode-casemap` (RFC 5051) compares upper case: that puts `[` and `_` behind letters.
        let text = |text: &str| Key::Text(text.to_uppercase().into());
        let key = |criterion: &SortCriterion| match criterion.key {
            SortKey::Arrival => Key::Number(row.received),
            SortKey::Size => Key::Number(i64::try_from(row.size).unwrap_or(i64::MAX)),
            SortKey::Date => Key::Number(facts.sent),
            SortKey::Subject => text(&facts.subject),
            SortKey::From => text(&facts.from),
            SortKey::To => text(&facts.to),
            SortKey::Cc => text(&facts.cc),
            SortKey::DisplayFrom => text(&facts.shown_from),
            SortKey::DisplayTo => text(&facts.shown_to),
        };
        self.rows.push((self.criteria.iter().map(key).collect(), row.uid));
    }

    /// The UIDs in their order. Where all is equal, the sequence number decides, whatever is reversed (section 3).
    pub(super) fn order(mut self) -> Vec<u32> {
        let criteria = self.criteria;
        let compare = |one: &[Key], other: &[Key]| {
            let pairs = criteria.iter().zip(one.iter().zip(other));
            pairs.fold(Ordering::Equal, |order, (criterion, (one, other))| {
                order.then_with(|| if criterion.reverse { other.cmp(one) } else { one.cmp(other) })
            })
        };
        self.rows.sort_unstable_by(|one, other| compare(&one.0, &other.0).then(one.1.cmp(&other.1)));
        self.rows.into_iter().map(|(_, uid)| uid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(criteria: &[(SortKey, bool)], want: &[u32]) {
        let criteria = criteria.iter().map(|(key, reverse)| SortCriterion { reverse: *reverse, key: key.clone() });
        let mut sorting = Sorting::new(criteria.collect());
        let facts = |subject: &str, sent, from: &str| Facts {
            subject: subject.into(),
            sent,
            from: from.into(),
            ..Facts::default()
        };
        for (uid, size, facts) in [
            (1, 30, facts("b", 3, "x")),
            (2, 10, facts("a", 3, "y")),
            (3, 20, facts("b", 1, "y")),
            (4, 20, facts("", 2, "x")),
        ] {
            let row = MessageRow { uid, flags: 0, keywords: "".into(), size, received: -i64::from(uid), modseq: 1 };
            let to = if uid == 2 { "b" } else { "_" };
            sorting.add(&row, &Facts { to: to.into(), ..facts });
        }
        assert_eq!(sorting.order(), want);
    }

    #[test]
    fn orders() {
        check(&[(SortKey::Arrival, false)], &[4, 3, 2, 1]);
        check(&[(SortKey::Size, false)], &[2, 3, 4, 1]);
        check(&[(SortKey::Size, true)], &[1, 3, 4, 2]);
        check(&[(SortKey::Subject, false), (SortKey::Date, false)], &[4, 2, 3, 1]);
        check(&[(SortKey::Subject, true), (SortKey::Date, true)], &[1, 3, 2, 4]);
        check(&[(SortKey::From, false), (SortKey::Size, true)], &[1, 4, 3, 2]);
        check(&[(SortKey::Cc, true)], &[1, 2, 3, 4]);
        check(&[(SortKey::To, false)], &[2, 1, 3, 4]);
        check(&[(SortKey::Size, false), (SortKey::Size, true)], &[2, 3, 4, 1]);
    }

    #[test]
    fn a_key_is_kept_once_however_often_it_is_named() {
        let criterion = |at: usize| SortCriterion {
            reverse: at.is_multiple_of(2),
            key: if at < 3 { SortKey::Subject } else { SortKey::From },
        };
        assert_eq!(Sorting::new((0..8000).map(criterion).collect()).criteria, [criterion(0), criterion(3)]);
    }
}
