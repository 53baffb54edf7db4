//! Reading many messages of a mailbox with one question: what is kept of their texts, or the texts themselves.

use std::ops::RangeInclusive;

use bytes::Bytes;
use rusqlite::{Connection, Row, params};
use tokio::task::JoinHandle;
use wire::imap::{Load, Outline, is_neutral};

use super::outlines::{self, Found, Late, Outlined};
use super::reader::{Reader, place};
use crate::pack::{self, Place, Unpacker};

/// Loads of so many bytes are read in two halves.
const HALVED: u64 = 256 << 10;
/// Bytes of outlines that are given at once.
const OUTLINES: usize = 1 << 20;
/// UIDs between two that are wanted: rows are read over up to so many.
const GAP: i64 = 16;

/// The messages that a question is about: UIDs, in order.
pub(crate) type Uids = Vec<i64>;

/// Outlines of the first messages that were asked about.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// So many messages were looked for; what is missing among them is gone.
    pub(crate) count: usize,
    /// Each with its UID, its size, and its outline, if that is kept.
    pub(crate) found: Vec<(i64, u64, Option<Outline>)>,
}

/// A message's text.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) uid: i64,
    /// The header lines of this copy alone, and the body.
    pub(crate) text: Bytes,
    /// Where the body begins.
    begin: usize,
    id: i64,
    digest: [u8; 32],
}

/// Texts of the first messages that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// So many messages were looked for; what is missing among them is gone.
    pub(crate) count: usize,
    /// The last of these.
    pub(crate) last: i64,
    pub(crate) found: Vec<Whole>,
}

/// Texts that are being read: of many, both halves at a time.
pub(crate) struct Begun {
    first: JoinHandle<anyhow::Result<Texts>>,
    /// How many are in the first half, and the second.
    behind: Option<(usize, JoinHandle<anyhow::Result<Texts>>)>,
}

impl Begun {
    /// Those that could be read up to the first error, which comes alone.
    pub(crate) async fn finish(self) -> anyhow::Result<Texts> {
        let mut texts = self.first.await??;
        let Some((count, behind)) = self.behind else { return Ok(texts) };
        let behind = behind.await?;
        if texts.count == count
            && let Ok(behind) = behind
        {
            texts.count += behind.count;
            texts.last = behind.last;
            texts.found.extend(behind.found);
        }
        Ok(texts)
    }
}

impl Whole {
    /// The outline of this copy, and that of its body, to be kept.
    pub(crate) fn outline(&self) -> (Outline, Late) {
        let of_body = Outline::of(&self.text[self.begin..]);
        let late = Late { body: self.id, digest: self.digest, outline: Outlined::seal(&of_body) };
        if is_neutral(&self.text[..self.begin]) {
            return (of_body, late);
        }
        (Outline::of(&self.text), late)
    }
}

impl Reader {
    /// What is kept of the texts of messages.
    pub(crate) async fn outlines(&self, mailbox: i64, uids: Uids) -> anyhow::Result<Listed> {
        self.ask(move |connection, _| {
            // Where their table is damaged, all of them are made anew.
            let listed = outlines(connection, KEPT, mailbox, &uids);
            Ok(listed.or_else(|_| outlines(connection, NONE_KEPT, mailbox, &uids))?)
        })
        .await
    }

    /// Begins to read a load. Whoever takes it sends faster than one thread reads.
    pub(crate) fn load(&self, mailbox: i64, load: &Load) -> Begun {
        let mut uids: Vec<i64> = load.0.iter().map(|(uid, _)| i64::from(*uid)).collect();
        let half = half(load);
        let behind = uids.split_off(half);
        let first = self.texts(mailbox, uids);
        let behind = (!behind.is_empty()).then(|| (half, self.texts(mailbox, behind)));
        Begun { first, behind }
    }

    /// Begins to read the texts of messages. An error comes alone: what was read before it is given without it.
    pub(crate) fn texts(&self, mailbox: i64, uids: Uids) -> JoinHandle<anyhow::Result<Texts>> {
        self.begin(move |connection, packs| {
            let mut unpacker = Unpacker::new(packs)?;
            let mut found = Vec::with_capacity(uids.len());
            let rows = rows(connection, mailbox, &uids)?;
            let places: Vec<Place> = rows.iter().map(|row| row.place).collect();
            for (at, row) in rows.into_iter().enumerate() {
                let uid = row.uid;
                match read(connection, mailbox, &mut unpacker, row, &places[at + 1..]) {
                    Ok(whole) => found.extend(whole),
                    Err(error) => return before(error, &uids, uid, found),
                }
            }
            Ok(Texts { count: uids.len(), last: uids.last().copied().unwrap_or(0), found })
        })
    }
}

/// How many of a load are its first half; all, where it is not worth a second thread.
fn half(load: &Load) -> usize {
    let whole = load.size();
    let mut before = 0;
    let is_first = |(_, size): &&(u32, u64)| {
        before += size;
        before <= whole / 2
    };
    let half = load.0.iter().take_while(is_first).count();
    if whole < HALVED { load.0.len() } else { half.max(1) }
}

/// What comes before the message that could not be read; the error if that is nothing.
fn before(error: anyhow::Error, uids: &[i64], uid: i64, found: Vec<Whole>) -> anyhow::Result<Texts> {
    let count = uids.partition_point(|other| *other < uid);
    if count == 0 { Err(error) } else { Ok(Texts { count, last: uids[count - 1], found }) }
}

const KEPT: &str = "SELECT uid, size, prefix, outline FROM messages LEFT JOIN outlines ON outlines.body = messages.body
     WHERE mailbox = ? AND uid BETWEEN ? AND ? ORDER BY uid";
const NONE_KEPT: &str = "SELECT uid, size, prefix, NULL FROM messages
     WHERE mailbox = ? AND uid BETWEEN ? AND ? ORDER BY uid";

fn outlines(connection: &Connection, sql: &str, mailbox: i64, uids: &[i64]) -> rusqlite::Result<Listed> {
    let mut statement = connection.prepare_cached(sql)?;
    let (mut found, mut bytes) = (Vec::with_capacity(uids.len()), 0);
    for range in ranges(uids) {
        let mut rows = statement.query(params![mailbox, range.start(), range.end()])?;
        while let Some(row) = rows.next()? {
            let uid = row.get(0)?;
            let Ok(at) = uids.binary_search(&uid) else { continue };
            let size: i64 = row.get(1)?;
            let kept = match outlines::open(row.get_ref(3)?.as_blob_or_null().unwrap_or_default()) {
                Found::Kept(outline) if is_neutral(row.get_ref(2)?.as_blob().unwrap_or_default()) => Some(outline),
                Found::Kept(_) | Found::TooLarge | Found::Missing => None,
            };
            bytes += kept.as_ref().map_or(0, |outline| outline.fields.len() + outline.structure.len());
            found.push((uid, size.unsigned_abs(), kept));
            if bytes >= OUTLINES {
                return Ok(Listed { count: at + 1, found });
            }
        }
    }
    Ok(Listed { count: uids.len(), found })
}

/// A text's row.
struct Named {
    uid: i64,
    prefix: Vec<u8>,
    id: i64,
    digest: [u8; 32],
    place: Place,
}

const TEXT: &str = "SELECT uid, prefix, bodies.id, digest, pack, offset, length
     FROM messages JOIN bodies ON bodies.id = body WHERE mailbox = ? AND uid BETWEEN ? AND ? ORDER BY uid";

fn named(row: &Row<'_>) -> rusqlite::Result<Named> {
    Ok(Named { uid: row.get(0)?, prefix: row.get(1)?, id: row.get(2)?, digest: row.get(3)?, place: place(row, 4)? })
}

fn rows(connection: &Connection, mailbox: i64, uids: &[i64]) -> rusqlite::Result<Vec<Named>> {
    let mut statement = connection.prepare_cached(TEXT)?;
    let mut found = Vec::with_capacity(uids.len());
    for range in ranges(uids) {
        for row in statement.query_map(params![mailbox, range.start(), range.end()], named)? {
            found.extend(Some(row?).filter(|row| uids.binary_search(&row.uid).is_ok()));
        }
    }
    Ok(found)
}

/// Reads a text; none if it is gone. Where the pack is gone, the row names another by now.
fn read(
    connection: &Connection,
    mailbox: i64,
    unpacker: &mut Unpacker,
    mut row: Named,
    next: &[Place],
) -> anyhow::Result<Option<Whole>> {
    loop {
        let (begin, mut text) = (row.prefix.len(), row.prefix);
        match unpacker.append(&mut text, row.place, &row.digest, next) {
            Err(error) if pack::is_gone(&error) => {
                let again = rows(connection, mailbox, &[row.uid])?.pop();
                match again {
                    None => return Ok(None),
                    Some(again) if again.place == row.place => return Err(error),
                    Some(again) => row = again,
                }
            }
            Err(error) => return Err(error),
            Ok(()) => {
                let Named { uid, id, digest, .. } = row;
                return Ok(Some(Whole { uid, text: text.into(), begin, id, digest }));
            }
        }
    }
}

/// UIDs as ranges; what lies in a small gap is read and left out.
fn ranges(uids: &[i64]) -> Vec<RangeInclusive<i64>> {
    let mut ranges: Vec<RangeInclusive<i64>> = Vec::new();
    for &uid in uids {
        match ranges.last_mut() {
            Some(last) if uid - *last.end() <= GAP => *last = *last.start()..=uid,
            _ => ranges.push(uid..=uid),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_load_has_two_halves() {
        for (sizes, want) in [
            (vec![], 0),
            (vec![1 << 30], 1),
            (vec![1 << 17, 1 << 16], 2),
            (vec![1 << 17, 1 << 17], 1),
            (vec![1 << 30, 1, 1], 1),
            (vec![1, 1, 1 << 30], 2),
            (vec![1 << 17, 1 << 17, 1 << 17, 1 << 17], 2),
        ] {
            assert_eq!(half(&Load(sizes.iter().map(|size| (1, *size)).collect())), want, "{sizes:?}");
        }
    }

    #[test]
    fn uids_become_ranges() {
        for (uids, want) in [
            (vec![], vec![]),
            (vec![5], vec![5..=5]),
            (vec![1, 2, 4, 20, 37, 38], vec![1..=20, 37..=38]),
            (vec![1, 1000, 4_294_967_295], vec![1..=1, 1000..=1000, 4_294_967_295..=4_294_967_295]),
        ] {
            assert_eq!(ranges(&uids), want, "{uids:?}");
        }
    }
}
