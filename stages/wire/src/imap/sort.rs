//! SORT (RFC 5256): the order of messages by what their rows and headers say. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;

use imap_types::extensions::sort::{SortCriterion, SortKey};

use super::facts::Facts;
use super::question::MessageRow;

/// Bytes of a text that messages are ordered by. Nobody sees the order of those that differ only behind them.
const MOST: usize = 200;
/// Bytes that a text takes beside its own.
pub(super) const OVERHEAD: usize = 64;

/// Messages that are to be put in order. Of texts that many have in common one is kept.
#[derive(Debug)]
pub(super) struct Sorting {
    criteria: Vec<SortCriterion>,
    uids: Vec<u32>,
    /// Of each message a number for each criterion; that of a text stands in `texts`.
    keys: Vec<i64>,
    texts: HashMap<Box<str>, i64>,
    /// Bytes of these.
    bytes: usize,
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
        Self { criteria, uids: Vec::new(), keys: Vec::new(), texts: HashMap::new(), bytes: 0 }
    }

    /// Whether the rows are enough.
    pub(super) fn goes_by_rows(&self) -> bool {
        self.criteria.iter().all(|criterion| matches!(criterion.key, SortKey::Arrival | SortKey::Size))
    }

    /// The bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.uids) + size_of_val(&*self.keys) + self.bytes
    }

    pub(super) fn add(&mut self, row: &MessageRow, facts: &Facts) {
        for at in 0..self.criteria.len() {
            let key = match self.criteria[at].key {
                SortKey::Arrival => row.received,
                SortKey::Size => i64::try_from(row.size).unwrap_or(i64::MAX),
                SortKey::Date => facts.sent,
                SortKey::Subject => self.text(&facts.subject),
                SortKey::From => self.text(&facts.from),
                SortKey::To => self.text(&facts.to),
                SortKey::Cc => self.text(&facts.cc),
                SortKey::DisplayFrom => self.text(&facts.shown_from),
                SortKey::DisplayTo => self.text(&facts.shown_to),
            };
            self.keys.push(key);
        }
        self.uids.push(row.uid);
    }

    /// The number of a text.
    fn text(&mut self, text: &str) -> i64 {
        // `i;unicode-casemap` (RFC 5051) compares upper case: that puts `[` and `_` behind letters.
        let text = text[..text.floor_char_boundary(MOST)].to_uppercase();
        if let Some(number) = self.texts.get(text.as_str()) {
            return *number;
        }
        let number = i64::try_from(self.texts.len()).unwrap_or(i64::MAX);
        self.bytes += text.len() + OVERHEAD;
        self.texts.insert(text.into(), number);
        number
    }

    /// The UIDs in their order. Where all is equal, the sequence number decides, whatever is reversed (section 3).
    pub(super) fn order(mut self) -> Vec<u32> {
        self.rank();
        let Self { criteria, uids, keys, .. } = self;
        if criteria.is_empty() {
            return uids;
        }
        let compare = |one: &[i64], other: &[i64]| {
            let pairs = criteria.iter().zip(one.iter().zip(other));
            pairs.fold(Ordering::Equal, |order, (criterion, (one, other))| {
                order.then_with(|| if criterion.reverse { other.cmp(one) } else { one.cmp(other) })
            })
        };
        let mut rows: Vec<(&[i64], u32)> = keys.chunks_exact(criteria.len()).zip(uids).collect();
        rows.sort_unstable_by(|one, other| compare(one.0, other.0).then(one.1.cmp(&other.1)));
        rows.into_iter().map(|(_, uid)| uid).collect()
    }

    /// Puts in the place of each text's number that of its place among all texts.
    fn rank(&mut self) {
        let mut texts: Vec<(Box<str>, i64)> = std::mem::take(&mut self.texts).into_iter().collect();
        texts.sort_unstable();
        let mut ranks = vec![0; texts.len()];
        for (rank, (_, number)) in (0..).zip(texts) {
            ranks[usize::try_from(number).unwrap_or(0)] = rank;
        }
        let is_number = |key: &SortKey| matches!(key, SortKey::Arrival | SortKey::Size | SortKey::Date);
        let are_numbers: Vec<bool> = self.criteria.iter().map(|criterion| is_number(&criterion.key)).collect();
        for (key, is_number) in self.keys.iter_mut().zip(are_numbers.iter().cycle()) {
            if !is_number {
                *key = ranks[usize::try_from(*key).unwrap_or(0)];
            }
        }
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

    /// One mail with long names and a long subject, copied again and again, took a kilobyte for each key of each copy.
    #[test]
    fn a_message_takes_little() {
        let criteria =
            [SortKey::Subject, SortKey::From, SortKey::To, SortKey::Cc, SortKey::DisplayFrom, SortKey::DisplayTo];
        let criteria = criteria.map(|key| SortCriterion { reverse: false, key }).to_vec();
        let mut sorting = Sorting::new(criteria);
        let bytes = |sorting: &mut Sorting, subject: &str| {
            let before = sorting.bytes();
            let long = |letter: &str| letter.repeat(2000);
            let facts = Facts {
                subject: subject.into(),
                from: long("f"),
                to: long("t"),
                cc: long("c"),
                shown_from: long("g"),
                shown_to: long("u"),
                ..Facts::default()
            };
            let row = MessageRow { uid: 1, flags: 0, keywords: "".into(), size: 1, received: 0, modseq: 1 };
            sorting.add(&row, &facts);
            sorting.bytes() - before
        };
        let first = bytes(&mut sorting, &"s".repeat(2000));
        assert_eq!(first, 6 * (8 + MOST + OVERHEAD) + 4);
        assert_eq!(bytes(&mut sorting, &"s".repeat(2000)), 6 * 8 + 4, "what many have is kept once");
        assert_eq!(bytes(&mut sorting, "an ordinary subject"), 6 * 8 + 4 + 19 + OVERHEAD);
    }
}
