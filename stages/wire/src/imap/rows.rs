//! A mailbox's messages by UID, in pieces that views share. A change copies the pieces that it touches; two views are
//! compared without a look at what they have in common.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::question::MessageRow;

/// A piece has the messages of so many UIDs, a power of two: a change of one copies some 14 KB, and a mailbox of a
/// million has four thousand pieces.
const PIECE: u32 = 256;
/// Bytes of a piece beside its rows.
const OVERHEAD: usize = 64;

/// Messages by UID. A copy shares them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows(Arc<Vec<Piece>>);

/// Messages, as long as anybody has them.
#[derive(Debug, Clone)]
pub struct WeakRows(Weak<Vec<Piece>>);

impl WeakRows {
    /// The messages; none if nobody has them any more.
    pub fn upgrade(&self) -> Option<Rows> {
        self.0.upgrade().map(Rows)
    }
}

/// The messages of one stretch of UIDs; there is at least one.
#[derive(Debug, Clone, Eq)]
struct Piece {
    /// Messages in the pieces before it.
    before: usize,
    bytes: usize,
    rows: Arc<[MessageRow]>,
}

impl PartialEq for Piece {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rows, &other.rows) || self.rows == other.rows
    }
}

impl Piece {
    fn new(before: usize, rows: Arc<[MessageRow]>) -> Self {
        let bytes = rows.iter().map(|row| size_of::<MessageRow>() + row.keywords.len()).sum::<usize>() + OVERHEAD;
        Self { before, bytes, rows }
    }

    fn key(&self) -> u32 {
        self.rows.first().map_or(0, |row| row.uid / PIECE)
    }

    fn indexed(&self) -> impl Iterator<Item = (usize, &MessageRow)> {
        (self.before..).zip(self.rows.iter())
    }
}

/// A message of one view, with its index there.
pub(super) type Placed<'a> = Option<(usize, &'a MessageRow)>;

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |piece| piece.before + piece.rows.len())
    }

    /// The same, for who does not keep them.
    pub fn downgrade(&self) -> WeakRows {
        WeakRows(Arc::downgrade(&self.0))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that they take in memory.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|piece| piece.bytes).sum()
    }

    /// The message at this index, which is its sequence number less one.
    pub fn get(&self, index: usize) -> Option<&MessageRow> {
        let piece = self.0.get(self.0.partition_point(|piece| piece.before <= index).checked_sub(1)?)?;
        piece.rows.get(index - piece.before)
    }

    /// The message with this UID, and its index.
    pub fn find(&self, uid: u32) -> Option<(usize, &MessageRow)> {
        let piece = self.0.get(self.0.partition_point(|piece| piece.key() < uid / PIECE))?;
        let at = piece.rows.binary_search_by_key(&uid, |row| row.uid).ok()?;
        Some((piece.before + at, &piece.rows[at]))
    }

    /// The messages with these UIDs, which are in order, and their indices. One look goes on where the last one ended.
    pub fn each<'a>(&'a self, uids: &'a [u32]) -> impl Iterator<Item = (usize, &'a MessageRow)> {
        let mut cursor = Cursor { pieces: &self.0, at: 0 };
        uids.iter().filter_map(move |uid| cursor.to(*uid))
    }

    /// The index of the first message with this UID or a higher one.
    pub fn lower(&self, uid: u32) -> usize {
        let at = self.0.partition_point(|piece| piece.key() < uid / PIECE);
        match self.0.get(at) {
            Some(piece) => piece.before + piece.rows.partition_point(|row| row.uid < uid),
            None => self.len(),
        }
    }

    /// Those from one index up to another, which is not among them.
    pub fn between(&self, from: usize, to: usize) -> impl Iterator<Item = &MessageRow> {
        let first = self.0.partition_point(|piece| piece.before + piece.rows.len() <= from);
        let before = self.0.get(first).map_or(0, |piece| piece.before);
        let rows = self.0[first..].iter().flat_map(|piece| piece.rows.iter());
        rows.skip(from.saturating_sub(before)).take(to.saturating_sub(from))
    }

    /// The one with the highest UID.
    pub fn last(&self) -> Option<&MessageRow> {
        self.0.last()?.rows.last()
    }

    /// All of them, by UID.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &MessageRow> {
        self.0.iter().flat_map(|piece| piece.rows.iter())
    }

    /// These with others in the place of those with the same UID or beside them, and without those that are gone.
    #[must_use]
    pub fn with(&self, changed: impl IntoIterator<Item = MessageRow>, gone: &[u32]) -> Self {
        let mut edits: BTreeMap<u32, (Vec<MessageRow>, Vec<u32>)> = BTreeMap::new();
        let mut changed = changed.into_iter().peekable();
        while let Some(row) = changed.next() {
            let key = row.uid / PIECE;
            let here = &mut edits.entry(key).or_default().0;
            here.push(row);
            while let Some(row) = changed.next_if(|row| row.uid / PIECE == key) {
                here.push(row);
            }
        }
        for uid in gone {
            edits.entry(uid / PIECE).or_default().1.push(*uid);
        }
        if edits.is_empty() {
            return self.clone();
        }
        let mut pieces: Vec<Piece> = Vec::with_capacity(self.0.len() + edits.len());
        let mut put = |piece: Piece| {
            let before = pieces.last().map_or(0, |last| last.before + last.rows.len());
            pieces.push(Piece { before, ..piece });
        };
        let mut old = self.0.iter().peekable();
        for (key, (changed, gone)) in edits {
            while let Some(piece) = old.next_if(|piece| piece.key() < key) {
                put(piece.clone());
            }
            let here = old.next_if(|piece| piece.key() == key);
            let rows = edited(here.map_or(&[], |piece| &piece.rows), changed, &gone);
            if !rows.is_empty() {
                put(Piece::new(0, rows.into()));
            }
        }
        old.cloned().for_each(put);
        Self(Arc::new(pieces))
    }

    /// These, some of them changed: the changes are in the order of their UIDs. What is not there stays away.
    #[must_use]
    pub fn changed<C>(
        &self,
        changes: &[C],
        uid: impl Fn(&C) -> u32,
        change: impl Fn(&MessageRow, &C) -> MessageRow,
    ) -> Self {
        let mut left = changes;
        let piece = |piece: &Piece| {
            let (here, behind) = left.split_at(left.partition_point(|change| uid(change) / PIECE <= piece.key()));
            left = behind;
            if here.is_empty() {
                return piece.clone();
            }
            let mut here = here.iter().peekable();
            let row = |row: &MessageRow| {
                while here.next_if(|change| uid(change) < row.uid).is_some() {}
                here.next_if(|change| uid(change) == row.uid).map_or_else(|| row.clone(), |found| change(row, found))
            };
            Piece::new(piece.before, piece.rows.iter().map(row).collect())
        };
        Self(Arc::new(self.0.iter().map(piece).collect()))
    }

    /// Tells of each UID in which two views differ, in order: the message as it was, if it was there, and as it is, if
    /// it is.
    pub(super) fn compare<'a>(&'a self, new: &'a Self, mut tell: impl FnMut(Placed<'a>, Placed<'a>)) {
        let (mut was, mut is) = (self.0.iter().peekable(), new.0.iter().peekable());
        loop {
            let order = match (was.peek(), is.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(was), Some(is)) => was.key().cmp(&is.key()),
            };
            let was = if order == Ordering::Greater { None } else { was.next() };
            let is = if order == Ordering::Less { None } else { is.next() };
            if let (Some(was), Some(is)) = (was, is)
                && Arc::ptr_eq(&was.rows, &is.rows)
            {
                continue;
            }
            compare_piece(was, is, &mut tell);
        }
    }
}

impl FromIterator<MessageRow> for Rows {
    fn from_iter<T: IntoIterator<Item = MessageRow>>(rows: T) -> Self {
        Self::default().with(rows, &[])
    }
}

/// Where the last look at messages ended.
struct Cursor<'a> {
    /// The piece of that message, and those behind it.
    pieces: &'a [Piece],
    /// Its place in the piece.
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The message with this UID, which is not lower than the last one that was asked for.
    fn to(&mut self, uid: u32) -> Option<(usize, &'a MessageRow)> {
        let key = uid / PIECE;
        if self.pieces.first()?.key() < key {
            self.pieces = &self.pieces[self.pieces.partition_point(|piece| piece.key() < key)..];
            self.at = 0;
        }
        let piece = self.pieces.first()?;
        // Nearly always it is the next one.
        self.at += piece.rows[self.at..].iter().take_while(|row| row.uid < uid).count();
        let row = piece.rows.get(self.at).filter(|row| row.uid == uid)?;
        Some((piece.before + self.at, row))
    }
}

fn edited(old: &[MessageRow], mut changed: Vec<MessageRow>, gone: &[u32]) -> Vec<MessageRow> {
    // What was changed twice is as it was last.
    changed.sort_by_key(|row| row.uid);
    changed.reverse();
    changed.dedup_by_key(|row| row.uid);
    let mut rows = Vec::with_capacity(old.len() + changed.len());
    for row in old {
        while let Some(new) = changed.pop_if(|new| new.uid < row.uid) {
            rows.push(new);
        }
        rows.push(changed.pop_if(|new| new.uid == row.uid).unwrap_or_else(|| row.clone()));
    }
    rows.extend(changed.into_iter().rev());
    if !gone.is_empty() {
        rows.retain(|row| !gone.contains(&row.uid));
    }
    rows
}

fn compare_piece<'a>(was: Option<&'a Piece>, is: Option<&'a Piece>, tell: &mut impl FnMut(Placed<'a>, Placed<'a>)) {
    let mut was = was.into_iter().flat_map(Piece::indexed).peekable();
    let mut is = is.into_iter().flat_map(Piece::indexed).peekable();
    loop {
        let order = match (was.peek(), is.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((_, was)), Some((_, is))) => was.uid.cmp(&is.uid),
        };
        let was = if order == Ordering::Greater { None } else { was.next() };
        let is = if order == Ordering::Less { None } else { is.next() };
        if was.map(|(_, row)| row) != is.map(|(_, row)| row) {
            tell(was, is);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn row(uid: u32, flags: i64) -> MessageRow {
        MessageRow { uid, flags, keywords: Arc::default(), size: 1, received: 0, modseq: 1 }
    }

    proptest! {
        /// The same as a plain map, whatever is put in and taken out.
        #[test]
        fn rows_are_a_map(steps in proptest::collection::vec((
            proptest::collection::vec((1u32..2000, 0i64..4), 0..40),
            proptest::collection::vec(1u32..2000, 0..40),
        ), 1..8)) {
            let (mut rows, mut model) = (Rows::default(), BTreeMap::new());
            for (put, gone) in steps {
                let put: BTreeMap<u32, i64> = put.into_iter().collect();
                let before = rows.clone();
                let was = model.clone();
                rows = rows.with(put.iter().map(|(uid, flags)| row(*uid, *flags)), &gone);
                model.extend(put);
                model.retain(|uid, _| !gone.contains(uid));
                let want: Vec<_> = model.iter().map(|(uid, flags)| row(*uid, *flags)).collect();
                prop_assert_eq!(rows.iter().cloned().collect::<Vec<_>>(), want.clone());
                prop_assert_eq!(rows.len(), want.len());
                for (index, row) in want.iter().enumerate() {
                    prop_assert_eq!(rows.get(index), Some(row));
                    prop_assert_eq!(rows.find(row.uid), Some((index, row)));
                    prop_assert_eq!(rows.lower(row.uid), index);
                    prop_assert_eq!(rows.between(index, index + 3).next(), Some(row));
                    prop_assert_eq!(rows.between(index / 2, index).count(), index - index / 2);
                }
                prop_assert_eq!(rows.last(), want.last());
                prop_assert!(rows.get(want.len()).is_none() && rows.find(2000).is_none());
                let mut heard = was;
                before.compare(&rows, |old, new| match (old, new) {
                    (Some((_, old)), None) => assert!(heard.remove(&old.uid).is_some()),
                    (_, Some((_, new))) => assert_ne!(heard.insert(new.uid, new.flags), Some(new.flags)),
                    (None, None) => panic!("nothing was told"),
                });
                prop_assert_eq!(heard, model.clone());
            }
        }
    }

    #[test]
    fn what_is_there_is_changed() {
        let flags = |rows: &Rows| rows.iter().map(|row| (row.uid, row.flags)).collect::<Vec<_>>();
        let rows: Rows = [1, 3, 255, 256, 600, 601].map(|uid| row(uid, 0)).into_iter().collect();
        let changes = |uids: &[u32]| {
            let changes: Vec<_> = uids.iter().map(|uid| (*uid, 7)).collect();
            rows.changed(&changes, |(uid, _)| *uid, |row, (_, flags)| MessageRow { flags: *flags, ..row.clone() })
        };
        for uids in
            [&[][..], &[3], &[1, 256], &[2, 4, 255, 300, 601, 602, 2000], &[500, 600], &[1, 3, 255, 256, 600, 601]]
        {
            let want: Vec<_> = rows.iter().map(|row| (row.uid, if uids.contains(&row.uid) { 7 } else { 0 })).collect();
            let changed = changes(uids);
            assert_eq!(flags(&changed), want, "{uids:?}");
            assert_eq!((changed.len(), changed.bytes()), (rows.len(), rows.bytes()));
        }
        let changed = changes(&[256]);
        let shared = rows.0.iter().zip(changed.0.iter()).map(|(one, other)| Arc::ptr_eq(&one.rows, &other.rows));
        assert_eq!(shared.collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn a_small_change_copies_little() {
        let rows: Rows = (1..=10_000).map(|uid| row(uid, 0)).collect();
        let changed = rows.with([row(5000, 1)], &[]);
        let shared = rows.0.iter().zip(changed.0.iter()).filter(|(one, other)| Arc::ptr_eq(&one.rows, &other.rows));
        assert_eq!(shared.count(), rows.0.len() - 1);
    }
}
