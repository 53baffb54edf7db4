//! Flags as readers have left them. A message's own row has those with which it came and is not written again for them:
//! it is wide, and flagging ten thousand messages would write megabytes. What has changed since lies in blocks, one row
//! for 256 UIDs of a mailbox: flagging a whole mailbox writes a few pages.
//!
//! A message that has a mark is there: whoever removes it removes its mark with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::Words;

/// The UIDs of a block differ in so many bits at most.
const BITS: u32 = 8;

/// The flags of a message, and the mailbox's MODSEQ when they were changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) flags: i64,
    /// With spaces between.
    pub(crate) keywords: Arc<str>,
    pub(crate) modseq: i64,
}

/// Marks by UID.
pub(crate) type Marks = BTreeMap<i64, Mark>;

/// Whether two UIDs lie in one block.
pub(super) fn together(one: i64, other: i64) -> bool {
    one >> BITS == other >> BITS
}

/// The marks of the block in which a UID lies.
pub(super) fn around(connection: &Connection, mailbox: i64, uid: i64) -> rusqlite::Result<Marks> {
    Ok(block(connection, mailbox, uid)?.into_iter().collect())
}

/// The same, in their order.
pub(super) fn block(connection: &Connection, mailbox: i64, uid: i64) -> rusqlite::Result<Vec<(i64, Mark)>> {
    let sql = "SELECT marks FROM marks WHERE mailbox = ? AND block = ?";
    let block = uid >> BITS;
    let found: Option<Vec<u8>> =
        connection.prepare_cached(sql)?.query_row(params![mailbox, block], |row| row.get(0)).optional()?;
    let mut marks = Vec::with_capacity(1 << BITS);
    decode(block, &found.unwrap_or_default(), &mut Words::default(), |uid, mark| marks.push((uid, mark)))?;
    Ok(marks)
}

/// What was marked after this MODSEQ, by UID.
pub(crate) fn since(
    connection: &Connection,
    mailbox: i64,
    modseq: i64,
    words: &mut Words,
) -> rusqlite::Result<Vec<(i64, Mark)>> {
    let sql = "SELECT block, marks FROM marks WHERE mailbox = ? AND modseq > ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([mailbox, modseq])?;
    let mut marks = Vec::new();
    while let Some(row) = rows.next()? {
        let later = |uid, mark: Mark| marks.extend((mark.modseq > modseq).then_some((uid, mark)));
        decode(row.get(0)?, row.get_ref(1)?.as_blob()?, words, later)?;
    }
    marks.sort_by_key(|(uid, _)| *uid);
    Ok(marks)
}

/// Writes the block in which a UID lies; the marks are in order.
pub(super) fn write<'a>(
    connection: &Connection,
    mailbox: i64,
    uid: i64,
    marks: impl Iterator<Item = (&'a i64, &'a Mark)> + Clone,
) -> rusqlite::Result<()> {
    let block = uid >> BITS;
    let Some(modseq) = marks.clone().map(|(_, mark)| mark.modseq).max() else {
        let sql = "DELETE FROM marks WHERE mailbox = ? AND block = ?";
        return connection.prepare_cached(sql)?.execute([mailbox, block]).map(drop);
    };
    let sql = "INSERT INTO marks (mailbox, block, modseq, marks) VALUES (?, ?, ?, ?)
         ON CONFLICT (mailbox, block) DO UPDATE SET modseq = excluded.modseq, marks = excluded.marks";
    connection.prepare_cached(sql)?.execute(params![mailbox, block, modseq, encode(marks)]).map(drop)
}

/// For each message the last bits of its UID and its flags, a byte each; then MODSEQ and the length of the keywords,
/// seven bits to a byte; then the keywords.
fn encode<'a>(marks: impl Iterator<Item = (&'a i64, &'a Mark)>) -> Vec<u8> {
    let mut block = Vec::with_capacity(8 << BITS);
    for (uid, mark) in marks {
        block.push(u8::try_from(uid & ((1 << BITS) - 1)).unwrap_or(0));
        block.push(u8::try_from(mark.flags & 0xff).unwrap_or(0));
        put_number(&mut block, mark.modseq.unsigned_abs());
        put_number(&mut block, mark.keywords.len() as u64);
        block.extend_from_slice(mark.keywords.as_bytes());
    }
    block
}

fn decode(block: i64, mut bytes: &[u8], words: &mut Words, mut found: impl FnMut(i64, Mark)) -> rusqlite::Result<()> {
    while !bytes.is_empty() {
        let (uid, mark) = take(block, &mut bytes, words).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(1, Type::Blob, "a block of marks breaks off".into())
        })?;
        found(uid, mark);
    }
    Ok(())
}

fn take(block: i64, bytes: &mut &[u8], words: &mut Words) -> Option<(i64, Mark)> {
    let uid = (block << BITS) + i64::from(*bytes.split_off_first()?);
    let flags = i64::from(*bytes.split_off_first()?);
    let modseq = i64::try_from(take_number(bytes)?).ok()?;
    let length = usize::try_from(take_number(bytes)?).ok()?;
    let keywords = words.share(str::from_utf8(bytes.split_off(..length)?).ok()?);
    Some((uid, Mark { flags, keywords, modseq }))
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or(0));
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_block_is_read_as_it_was_written(marks in proptest::collection::btree_map(
            512i64..768, (0i64..256, "[a-z ]{0,9}", 0i64..i64::MAX), 0..256,
        )) {
            let mark = |(flags, words, modseq): (i64, String, i64)| Mark { flags, keywords: words.into(), modseq };
            let marks: Marks = marks.into_iter().map(|(uid, what)| (uid, mark(what))).collect();
            let mut again = Marks::new();
            decode(2, &encode(marks.iter()), &mut Words::default(), |uid, mark| drop(again.insert(uid, mark))).unwrap();
            prop_assert_eq!(again, marks);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode(0, &bytes, &mut Words::default(), |_, _| {});
        }
    }
}
