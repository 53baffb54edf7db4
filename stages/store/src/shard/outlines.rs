//! Outlines of bodies, beside their rows: what clients that list a mailbox ask of every message.
//!
//! They only save time. One that is missing, damaged, or of an older form is made anew from the body, and one that
//! could not be written is made again. What must be right is that an outline belongs to its body: it is made of the
//! same bytes as the digest, goes with the body's row, and a late one is written only to the row that still has that
//! digest.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{BufMut as _, Bytes, BytesMut};
use rusqlite::{ErrorCode, Transaction, params};
use wire::imap::Outline;

/// Larger ones are not kept but made when they are asked for: few mails have more than a thousand addresses or parts,
/// and a sender must not fill the database with what it says of them.
const MOST: usize = 16 * 1024;
/// A body of this size is looked into on a thread where that may take a while.
const LARGE: usize = 256 * 1024;
/// Bytes of the checksum.
const SUM: usize = 8;
/// Bytes before the fields: the checksum, and the fields' length.
const HEAD: usize = SUM + 4;

/// What a body's row is kept with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlined(Bytes);

impl Outlined {
    /// Of a body that is to be stored. This takes time in proportion to its size: it is for the caller, not the writer.
    pub async fn made(body: &Bytes) -> Self {
        if body.len() < LARGE {
            return caught(|| Self::of(body));
        }
        let large = body.clone();
        tokio::task::spawn_blocking(move || Self::of(&large)).await.unwrap_or(Self(Bytes::new()))
    }

    /// The same, at once.
    pub fn of(body: &[u8]) -> Self {
        Self::seal(&Outline::of(body))
    }

    pub(crate) fn seal(outline: &Outline) -> Self {
        let length = outline.fields.len() + outline.structure.len();
        if length > MOST {
            return Self(Bytes::new());
        }
        let mut sealed = BytesMut::with_capacity(HEAD + length);
        sealed.put_bytes(0, SUM);
        sealed.put_u32_le(u32::try_from(outline.fields.len()).unwrap_or(u32::MAX));
        sealed.put_slice(&outline.fields);
        sealed.put_slice(&outline.structure);
        let sum = sum(&sealed[SUM..], Outline::FORM);
        sealed[..SUM].copy_from_slice(&sum);
        Self(sealed.freeze())
    }
}

/// A text that cannot be looked into is stored all the same, and looked into when somebody asks.
fn caught(make: impl FnOnce() -> Outlined) -> Outlined {
    // Nothing is shared with what panics.
    catch_unwind(AssertUnwindSafe(make)).unwrap_or(Outlined(Bytes::new()))
}

fn sum(content: &[u8], form: u8) -> [u8; SUM] {
    let hash = blake3::Hasher::new().update(content).update(&[form]).finalize();
    std::array::from_fn(|at| hash.as_bytes()[at])
}

/// What a row says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Kept(Outline),
    /// It was too large to be kept.
    TooLarge,
    Missing,
}

pub(super) fn open(row: Option<&[u8]>) -> Found {
    match row {
        Some([]) => Found::TooLarge,
        Some(sealed) => open_sealed(sealed).map_or(Found::Missing, Found::Kept),
        None => Found::Missing,
    }
}

fn open_sealed(sealed: &[u8]) -> Option<Outline> {
    let (head, content) = sealed.split_at_checked(HEAD)?;
    let is_of = |form| sum(&sealed[SUM..], form) == head[..SUM];
    let is_of_today = is_of(Outline::FORM);
    if !is_of_today && !is_of(Outline::BEFORE) {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(head[SUM..].try_into().ok()?)).ok()?;
    let content = Bytes::copy_from_slice(content);
    let outline = (length <= content.len())
        .then(|| Outline { fields: content.slice(..length), structure: content.slice(length..) });
    outline.filter(|outline| is_of_today || outline.holds_still())
}

/// An outline that was missing, and the body of which it was made.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) body: i64,
    pub(crate) digest: [u8; 32],
    pub(crate) outline: Outlined,
}

/// Keeps the outline of a body that is delivered; one that is there already is of the same text.
pub(super) fn keep(transaction: &Transaction<'_>, body: i64, outline: &Outlined) -> rusqlite::Result<()> {
    let insert = "INSERT INTO outlines (body, outline) VALUES (?, ?) ON CONFLICT DO NOTHING";
    let insert = || transaction.prepare_cached(insert)?.execute(params![body, &outline.0[..]]);
    unless_damaged(insert())
}

/// Keeps what was missing or damaged, unless the row is another body's by now.
pub(super) fn keep_late(transaction: &Transaction<'_>, late: &[Late]) -> rusqlite::Result<()> {
    let insert = "INSERT INTO outlines (body, outline) SELECT id, ? FROM bodies WHERE id = ? AND digest = ?
         ON CONFLICT (body) DO UPDATE SET outline = excluded.outline";
    for late in late {
        let row = params![&late.outline.0[..], late.body, &late.digest[..]];
        unless_damaged(transaction.prepare_cached(insert).and_then(|mut insert| insert.execute(row)))?;
    }
    Ok(())
}

/// A table of outlines that is damaged itself must not keep mail from being stored.
fn unless_damaged(written: rusqlite::Result<usize>) -> rusqlite::Result<()> {
    match written {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            tracing::error!(%error, "an outline is not kept");
            Ok(())
        }
        written => written.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_text_that_cannot_be_looked_into_is_stored_all_the_same() {
        assert_eq!(caught(|| panic!("as a fault in what looks into it would")), Outlined(Bytes::new()));
        let body = Bytes::from_static(b"Subject: s\r\n\r\ntext");
        assert_eq!(Outlined::made(&body).await, Outlined::of(&body));
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let outline = Outline::of(b"Subject: s\r\n\r\ntext");
        let Outlined(sealed) = Outlined::seal(&outline);
        assert_eq!(open(Some(&sealed)), Found::Kept(outline));
        assert_eq!(open(None), Found::Missing);
        for at in 0..sealed.len() {
            let mut damaged = sealed.to_vec();
            damaged[at] ^= 1;
            assert_eq!(open(Some(&damaged)), Found::Missing, "{at}");
            assert!(matches!(open(Some(&sealed[..at])), Found::Missing | Found::TooLarge));
        }
    }

    /// After a change of the form the texts of all mailboxes were read again.
    #[test]
    fn one_of_the_form_before_is_opened_if_nothing_has_changed_in_it() {
        for (structure, want) in [
            (r#"("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 10 2 NIL NIL NIL NIL)"#, true),
            (r#"("image" "png" ("name*0" "a" "name*1" "b") NIL NIL "7bit" 12 NIL NIL NIL NIL)"#, false),
            (r#"("message" "Global" NIL NIL NIL "7bit" 17 NIL NIL NIL NIL)"#, false),
        ] {
            let outline = Outline { fields: Bytes::from_static(b"A: b\r\n\r\n"), structure: structure.into() };
            let mut sealed = Outlined::seal(&outline).0.to_vec();
            let before = sum(&sealed[SUM..], Outline::BEFORE);
            sealed[..SUM].copy_from_slice(&before);
            let want = if want { Found::Kept(outline) } else { Found::Missing };
            assert_eq!(open(Some(&sealed)), want, "{structure}");
        }
    }

    #[test]
    fn a_large_one_is_not_kept() {
        let large = format!("To: {}\r\n\r\n", "a@example.org, ".repeat(2000));
        let Outlined(sealed) = Outlined::of(large.as_bytes());
        assert_eq!(open(Some(&sealed)), Found::TooLarge);
    }
}
