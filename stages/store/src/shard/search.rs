//! Searching messages: what the rows leave open is told by the texts, one after the other in one thread.
//!
//! A message that is gone is left out. One whose body is damaged fails the search: nobody can say whether it is meant.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use wire::imap::{Criteria, MessageRow, Readable};

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

impl Reader {
    /// The UIDs of those that meet the criteria.
    pub(crate) async fn search(&self, mailbox: i64, search: Search) -> anyhow::Result<Vec<u32>> {
        self.ask(move |connection, packs| {
            let mut texts = Texts { connection, unpacker: Unpacker::new(packs)?, text: Vec::new() };
            let mut found = Vec::new();
            for (number, row) in &search.asked {
                if search.is_met(*number, row, || texts.read(mailbox, row.uid.into()))? {
                    found.push(row.uid);
                }
            }
            Ok(found)
        })
        .await
    }
}

impl Search {
    fn is_met<'a>(
        &self,
        number: u32,
        row: &MessageRow,
        text: impl FnOnce() -> anyhow::Result<Option<&'a [u8]>>,
    ) -> anyhow::Result<bool> {
        let by_time = self.criteria.judge(number, row, |wanted| wanted.in_time(row.received, self.now));
        if let Some(is_met) = by_time {
            return Ok(is_met);
        }
        let Some(text) = text()? else { return Ok(false) };
        let readable = Readable::new(text);
        let told = |wanted: &_| readable.tells(wanted).or_else(|| wanted.in_time(row.received, self.now));
        Ok(self.criteria.judge(number, row, told).unwrap_or(false))
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
            match self.unpacker.append(&mut self.text, place, &digest) {
                Err(error) if pack::is_gone(&error) && gone != Some(place) => gone = Some(place),
                read => return read.map(|()| Some(self.text.as_slice())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
