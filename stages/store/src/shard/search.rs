//! Searching messages: what the rows leave open is told by the fields that are kept and the text index, and what these
//! leave open by the texts, one after the other in one thread.
//!
//! A message that is gone is left out. One whose body is damaged fails the search: nobody can say whether it is meant.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use wire::imap::{Criteria, MessageRow, Readable, Wanted, is_kept, is_neutral};

use super::filter;
use super::index::{Body, Index};
use super::outlines::{self, Found};
use super::reader::{Reader, place};
use crate::pack::{self, Place, Unpacker};

/// What is looked for, and where.
pub(crate) struct Search {
    pub(crate) criteria: Arc<Criteria>,
    /// Sequence numbers and rows of messages, by UID.
    pub(crate) asked: Vec<(u32, MessageRow)>,
    /// Milliseconds since 1970.
    pub(crate) now: i64,
}

/// A message that is asked about.
type Asked<'a> = &'a (u32, MessageRow);

impl Reader {
    /// The UIDs of those that meet the criteria.
    pub(crate) async fn search(&self, mailbox: i64, search: Search) -> anyhow::Result<Vec<u32>> {
        let index = self.index.clone();
        self.ask(move |connection, packs| {
            let mut found = Vec::new();
            let open = search.asked.iter().filter(|asked| search.sort(asked, &mut found, |_| None)).collect();
            let open = search.sift(connection, &index, mailbox, open, &mut found)?;
            let mut texts = Texts { connection, unpacker: Unpacker::new(packs)?, text: Vec::new() };
            for asked in open {
                let Some(text) = texts.read(mailbox, asked.1.uid.into())? else { continue };
                let readable = Readable::new(text);
                search.sort(asked, &mut found, |wanted| readable.tells(wanted));
            }
            Ok(found)
        })
        .await
    }
}

impl Search {
    /// Puts a message to those that were found, if it is known to be one of them. Says whether that is still open.
    fn sort(&self, asked: Asked<'_>, found: &mut Vec<u32>, told: impl Fn(&Wanted) -> Option<bool>) -> bool {
        let (number, row) = asked;
        let in_time = |wanted: &Wanted| wanted.in_time(row.received, self.now);
        let is_met = self.criteria.judge(*number, row, |wanted| in_time(wanted).or_else(|| told(wanted)));
        if is_met == Some(true) {
            found.push(row.uid);
        }
        is_met.is_none()
    }

    /// Those about which the fields that are kept, and the index, leave it open.
    fn sift<'a>(
        &'a self,
        connection: &Connection,
        index: &Index,
        mailbox: i64,
        open: Vec<Asked<'a>>,
        found: &mut Vec<u32>,
    ) -> anyhow::Result<Vec<Asked<'a>>> {
        let asks_fields =
            self.criteria.any(|wanted| matches!(wanted, Wanted::Sent(..) | Wanted::Field(..) | Wanted::Addresses(..)));
        if !asks_fields && !index.is_open() {
            return Ok(open);
        }
        // Where the table of what is kept is damaged, nothing is.
        let rows = match known(connection, mailbox, &open, if asks_fields { KEPT } else { NONE_KEPT }) {
            Err(_) if asks_fields => known(connection, mailbox, &open, NONE_KEPT)?,
            rows => rows?,
        };
        let (mut left, mut at) = (Vec::new(), 0);
        index.look(rows.iter().map(|known| known.body), |filter| {
            let Known { asked, prefix, fields, .. } = &rows[at];
            at += 1;
            let (of_prefix, of_fields) = (Readable::new(prefix), fields.as_deref().map(Readable::new));
            let is_neutral = is_neutral(prefix);
            let by_fields = |wanted: &Wanted| told(wanted, of_fields.as_ref()?);
            let by_filter = |wanted: &Wanted| ruled_out(wanted, &of_prefix, filter?);
            let known = |wanted: &Wanted| is_neutral.then(|| by_fields(wanted).or_else(|| by_filter(wanted)))?;
            if self.sort(asked, found, known) {
                left.push(*asked);
            }
        });
        Ok(left)
    }
}

/// What is known of a message without its text.
struct Known<'a> {
    asked: Asked<'a>,
    body: Body,
    prefix: Vec<u8>,
    /// The fields that are kept of its header.
    fields: Option<Bytes>,
}

const KEPT: &str =
    "SELECT messages.body, digest, prefix, outline FROM messages JOIN bodies ON bodies.id = messages.body
     LEFT JOIN outlines ON outlines.body = messages.body WHERE mailbox = ? AND uid = ?";
const NONE_KEPT: &str = "SELECT body, digest, prefix, NULL FROM messages JOIN bodies ON bodies.id = body
     WHERE mailbox = ? AND uid = ?";

/// Those that are still there.
fn known<'a>(connection: &Connection, mailbox: i64, open: &[Asked<'a>], sql: &str) -> rusqlite::Result<Vec<Known<'a>>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = Vec::with_capacity(open.len());
    for asked in open {
        let read = |row: &Row<'_>| {
            let fields = match outlines::open(row.get_ref(3)?.as_blob_or_null().unwrap_or_default()) {
                Found::Kept(outline) => Some(outline.fields),
                Found::TooLarge | Found::Missing => None,
            };
            Ok(Known { asked, body: (row.get(0)?, row.get(1)?), prefix: row.get(2)?, fields })
        };
        rows.extend(statement.query_row(params![mailbox, asked.1.uid], read).optional()?);
    }
    Ok(rows)
}

/// Whether a message is not as it is wanted, going by the filter of its body and the header lines before that. It never
/// says that one is.
fn ruled_out(wanted: &Wanted, prefix: &Readable<'_>, body: &[u8]) -> Option<bool> {
    let may_hold = |text: &str| filter::may_hold(body, text.as_bytes());
    let is_possible = match wanted {
        Wanted::Body(needle) => may_hold(needle.folded()),
        Wanted::Text(needle) => may_hold(needle.folded()) || prefix.tells(wanted)?,
        Wanted::Field(name, needle) => {
            (may_hold(&format!("\n{name}: ")) && may_hold(needle.folded())) || prefix.tells(wanted)?
        }
        _ => return None,
    };
    (!is_possible).then_some(false)
}

/// Whether a message is as it is wanted, going by the fields that are kept beside it.
fn told(wanted: &Wanted, fields: &Readable<'_>) -> Option<bool> {
    match wanted {
        Wanted::Sent(..) | Wanted::Addresses(..) => fields.tells(wanted),
        Wanted::Field(name, _) if is_kept(name.as_bytes()) => fields.tells(wanted),
        _ => None,
    }
}

/// Reads one text after the other.
struct Texts<'a> {
    connection: &'a Connection,
    unpacker: Unpacker,
    text: Vec<u8>,
}

impl Texts<'_> {
    /// The whole text of a message; none if it is gone. Where the pack is gone, the row names another by now.
    fn read(&mut self, mailbox: i64, uid: i64) -> anyhow::Result<Option<&[u8]>> {
        let sql = "SELECT prefix, digest, pack, offset, length FROM messages JOIN bodies ON bodies.id = body
             WHERE mailbox = ? AND uid = ?";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut gone: Option<Place> = None;
        loop {
            let text = &mut self.text;
            let read = |row: &Row<'_>| {
                text.clear();
                text.extend_from_slice(row.get_ref(0)?.as_blob().unwrap_or_default());
                Ok((row.get::<_, [u8; 32]>(1)?, place(row, 2)?))
            };
            let Some((digest, place)) = statement.query_row(params![mailbox, uid], read).optional()? else {
                return Ok(None);
            };
            match self.unpacker.append(&mut self.text, place, &digest, &[]) {
                Err(error) if pack::is_gone(&error) && gone != Some(place) => gone = Some(place),
                read => return read.map(|()| Some(self.text.as_slice())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
