//! A portion of a text index: bodies are read, and get their filters.

use rusqlite::{Connection, Row};
use wire::imap::Readable;

use super::filter::filter;
use super::index::Index;
use super::reader::{Reader, place};
use crate::pack::{Place, Unpacker};

/// Bytes of bodies that are read in one go: some hundredths of a second of work.
const LOAD: usize = 1 << 20;
/// Rows of bodies that are looked at.
const ROWS: u32 = 1000;

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Indexed {
    /// It goes on behind this row.
    pub(crate) behind: i64,
    /// There is nothing behind it.
    pub(crate) is_end: bool,
    /// Filters that were made.
    pub(crate) filters: usize,
    /// Filters that went.
    pub(crate) removed: usize,
}

impl Reader {
    /// Brings the index up to date for some bodies behind this row. A mail with more than `most` bytes of text gets a
    /// filter that knows nothing.
    pub(crate) async fn index_portion(&self, behind: i64, most: usize) -> anyhow::Result<Indexed> {
        let index = self.index.clone();
        self.ask(move |connection, packs| portion(connection, &index, Unpacker::new(packs)?, behind, most)).await
    }
}

fn portion(
    connection: &Connection,
    index: &Index,
    mut unpacker: Unpacker,
    behind: i64,
    most: usize,
) -> anyhow::Result<Indexed> {
    let sql = "SELECT id, digest, pack, offset, length FROM bodies WHERE id > ? AND refs != 0 ORDER BY id LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok(((row.get(0)?, row.get::<_, [u8; 32]>(1)?), place(row, 2)?));
    let rows = statement.query_map([behind, ROWS.into()], read)?.collect::<Result<Vec<_>, _>>()?;
    let (bodies, places): (Vec<_>, Vec<Place>) = rows.into_iter().unzip();
    let mut is_end = bodies.len() < ROWS as usize;
    // Behind the last body there may be filters of some that are gone.
    let to = if is_end { i64::MAX } else { bodies.last().map_or(i64::MAX, |(body, _)| *body) };
    let (known, removed) = index.compare(behind, to, &bodies)?;
    let (mut filters, mut bytes, mut reached) = (Vec::new(), 0, bodies.last().map_or(behind, |(body, _)| *body));
    let missing = bodies.iter().zip(known).enumerate().filter(|(_, (_, is_known))| !is_known);
    for (at, ((body, digest), _)) in missing {
        if bytes >= LOAD {
            (is_end, reached) = (false, body - 1);
            break;
        }
        let mut text = Vec::new();
        // What cannot be read is looked at, and said, when somebody searches through it.
        let read = unpacker.append(&mut text, places[at], digest, &places[at + 1..]);
        let filter = read.map_or_else(|_| Vec::new(), |()| filter_of(&text, most));
        bytes += text.len();
        filters.push(((*body, *digest), filter));
    }
    index.keep(&filters)?;
    Ok(Indexed { behind: reached, is_end, filters: filters.len(), removed })
}

fn filter_of(body: &[u8], most: usize) -> Vec<u8> {
    // A body that goes on with the last field of what is before it reads otherwise with it than by itself.
    if matches!(body.first(), Some(b' ' | b'\t')) {
        return Vec::new();
    }
    let whole = Readable::new(body).whole();
    if whole.len() > most { Vec::new() } else { filter(whole.as_bytes()) }
}
