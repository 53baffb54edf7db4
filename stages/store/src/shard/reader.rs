//! Reading a shard: snapshots of the database, bodies out of the packs. Nothing here waits for the writer.
//!
//! A pack may be rewritten and its file gone between the row that names it and the look into it: then the row is read
//! again. Who has the file open already reads on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::task::JoinHandle;

use super::index::Index;
use super::marks::{self, Mark, Marks};
use super::{Carried, DELETED, Settings, Words, schema};
use crate::pack::{self, Place};

/// Connections that are kept for the next question.
const SPARE: usize = 4;
/// Bytes of records that are moved in one go: some milliseconds of a disk's time, for which deliveries wait.
const LOAD: usize = 1 << 20;
/// Rows of them.
const ROWS: u32 = 256;

/// The columns of a [`Mailbox`].
const MAILBOX: &str = "id, name, uidvalidity, uidnext, modseq, messages, unseen, deleted, bytes, special_use,
     EXISTS (SELECT 1 FROM subscriptions WHERE subscriptions.account = mailboxes.account
             AND subscriptions.name = mailboxes.name)";

/// A mailbox and its counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mailbox {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) uidvalidity: i64,
    pub(crate) uidnext: i64,
    pub(crate) modseq: i64,
    pub(crate) messages: i64,
    pub(crate) unseen: i64,
    pub(crate) deleted: i64,
    pub(crate) bytes: i64,
    pub(crate) special_use: String,
    pub(crate) subscribed: bool,
}

/// A message without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) uid: i64,
    pub(crate) modseq: i64,
    pub(crate) size: i64,
    pub(crate) received: i64,
    pub(crate) flags: i64,
    pub(crate) keywords: Arc<str>,
}

/// A message in the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) uid: i64,
    pub(crate) mail: [u8; 16],
    pub(crate) reason: String,
    pub(crate) recipient: String,
    pub(crate) received: i64,
    pub(crate) size: i64,
}

/// Reads one shard.
#[derive(Clone)]
pub(crate) struct Reader {
    database: PathBuf,
    packs: PathBuf,
    spare: Arc<Mutex<Vec<Connection>>>,
    pub(crate) index: Index,
}

impl Reader {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            database: settings.database(),
            packs: settings.packs(),
            spare: Arc::default(),
            index: Index::new(&settings.folder),
        }
    }

    /// Runs a question on a thread where it may block.
    pub(crate) async fn ask<T, F>(&self, question: F) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Path) -> anyhow::Result<T> + Send + 'static,
    {
        self.begin(question).await.context("reading a shard")?
    }

    /// The same; it runs on while nobody waits for it.
    pub(super) fn begin<T, F>(&self, question: F) -> JoinHandle<anyhow::Result<T>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Path) -> anyhow::Result<T> + Send + 'static,
    {
        let reader = self.clone();
        let asked = move || {
            let spare = reader.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match spare {
                Some(connection) => connection,
                None => schema::open_reader(&reader.database)?,
            };
            let answer = question(&connection, &reader.packs);
            let mut spare = reader.spare.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < SPARE {
                spare.push(connection);
            }
            answer
        };
        tokio::task::spawn_blocking(asked)
    }

    #[cfg(test)]
    pub(crate) async fn mailboxes(&self, account: i64) -> anyhow::Result<Vec<Mailbox>> {
        self.ask(move |connection, _| Ok(mailboxes(connection, account)?)).await
    }

    /// The mailboxes of an account, and names that are subscribed to although there is no such mailbox.
    pub(crate) async fn listed(&self, account: i64) -> anyhow::Result<(Vec<Mailbox>, Vec<String>)> {
        self.ask(move |connection, _| {
            let snapshot = connection.unchecked_transaction()?;
            let sql = "SELECT name FROM subscriptions WHERE account = ?1
                 AND name NOT IN (SELECT name FROM mailboxes WHERE account = ?1) ORDER BY name";
            let mut statement = snapshot.prepare_cached(sql)?;
            let names = statement.query_map([account], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok((mailboxes(&snapshot, account)?, names))
        })
        .await
    }

    /// Whether there is such a mailbox, and what its account takes up: bytes and messages.
    pub(crate) async fn room(&self, account: i64, name: String) -> anyhow::Result<(bool, [i64; 2])> {
        self.ask(move |connection, _| {
            let usage = "SELECT bytes, messages FROM accounts WHERE account = ?";
            let read = |row: &Row<'_>| Ok([row.get(0)?, row.get(1)?]);
            let usage = connection.prepare_cached(usage)?.query_row([account], read).optional()?;
            Ok((named(connection, account, &name)?.is_some(), usage.unwrap_or_default()))
        })
        .await
    }

    /// Every message of a mailbox, by UID.
    #[cfg(test)]
    pub(crate) async fn messages(&self, mailbox: i64) -> anyhow::Result<Vec<Message>> {
        self.ask(move |connection, _| {
            let mut words = Words::default();
            let mut marks = marks::since(connection, mailbox, 0, &mut words)?.into_iter().collect();
            Ok(messages(connection, mailbox, 0, &mut marks, &mut words)?)
        })
        .await
    }

    /// A whole message, prefix and body; none if it is gone.
    pub(crate) async fn text(&self, mailbox: i64, uid: i64) -> anyhow::Result<Option<Bytes>> {
        Ok(self.parts(mailbox, uid).await?.map(|(prefix, body)| {
            let mut text = BytesMut::with_capacity(prefix.len() + body.len());
            text.extend_from_slice(&prefix);
            text.extend_from_slice(&body);
            text.freeze()
        }))
    }

    /// The prefix of a message and its body; none if it is gone.
    pub(crate) async fn parts(&self, mailbox: i64, uid: i64) -> anyhow::Result<Option<(Bytes, Bytes)>> {
        self.ask(move |connection, packs| {
            let sql = "SELECT prefix, digest, pack, offset, length FROM messages JOIN bodies ON bodies.id = body
                 WHERE mailbox = ? AND uid = ?";
            let mut statement = connection.prepare_cached(sql)?;
            let read = |row: &Row<'_>| Ok((Bytes::from(row.get::<_, Vec<u8>>(0)?), row.get(1)?, place(row, 2)?));
            follow(packs, || statement.query_row(params![mailbox, uid], read).optional())
        })
        .await
    }

    /// What the quarantine holds.
    pub(crate) async fn held(&self, account: i64, behind: i64, most: u32) -> anyhow::Result<Vec<(i64, Held)>> {
        self.ask(move |connection, _| {
            let sql = "SELECT mailboxes.id, uid, mail, held, held_for, received, size FROM messages
                 \
                       JOIN mailboxes ON mailboxes.id = mailbox WHERE account = ? AND held != '' AND uid > ? ORDER BY \
                       uid LIMIT ?";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![account, behind, most], |row| {
                let held = Held {
                    uid: row.get(1)?,
                    mail: row.get(2)?,
                    reason: row.get(3)?,
                    recipient: row.get(4)?,
                    received: row.get(5)?,
                    size: row.get(6)?,
                };
                Ok((row.get(0)?, held))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The first sealed pack behind this one that rows name. The last that they name may be the current one.
    pub(crate) async fn sealed(&self, behind: i64) -> anyhow::Result<Option<i64>> {
        self.ask(move |connection, _| {
            let sql = "SELECT min(pack) FROM bodies WHERE pack > ? AND pack < (SELECT max(pack) FROM bodies)";
            Ok(connection.prepare_cached(sql)?.query_row([behind], |row| row.get(0))?)
        })
        .await
    }

    /// Bytes of a pack that are alive, and of its file; none of that if it is gone.
    pub(crate) async fn alive(&self, pack: i64) -> anyhow::Result<(u64, Option<u64>)> {
        self.ask(move |connection, packs| {
            let sql = "SELECT coalesce(sum(length), 0) FROM bodies WHERE pack = ? AND refs != 0";
            let alive: i64 = connection.prepare_cached(sql)?.query_row([pack], |row| row.get(0))?;
            let path = pack::path(packs, pack);
            let whole = match std::fs::metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                file => Some(file.with_context(|| format!("looking at {}", path.display()))?.len()),
            };
            Ok((alive.unsigned_abs(), whole))
        })
        .await
    }

    /// Records of a pack that are alive, behind this row, read and found sound: about a [`LOAD`]. The first that is
    /// damaged is the inner error.
    pub(crate) async fn records(&self, pack: i64, behind: i64) -> anyhow::Result<anyhow::Result<Vec<Carried>>> {
        self.ask(move |connection, packs| {
            let sql = "SELECT id, digest, pack, offset, length FROM bodies
                 WHERE pack = ? AND refs != 0 AND id > ? ORDER BY id LIMIT ?";
            let mut statement = connection.prepare_cached(sql)?;
            let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, [u8; 32]>(1)?, place(row, 2)?));
            let rows = statement.query_map(params![pack, behind, ROWS], read)?;
            let (mut records, mut bytes) = (Vec::new(), 0);
            for row in rows {
                let (id, digest, place) = row?;
                match pack::read_record(packs, place, &digest) {
                    Ok(record) => {
                        bytes += record.len();
                        records.push(Carried { id, digest, place, record });
                    }
                    Err(error) => return Ok(Err(error)),
                }
                if bytes >= LOAD {
                    break;
                }
            }
            Ok(Ok(records))
        })
        .await
    }
}

fn mailboxes(connection: &Connection, account: i64) -> rusqlite::Result<Vec<Mailbox>> {
    let sql = format!("SELECT {MAILBOX} FROM mailboxes WHERE account = ? ORDER BY name");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([account], mailbox)?;
    rows.collect()
}

/// The mailbox of this name.
pub(crate) fn named(connection: &Connection, account: i64, name: &str) -> rusqlite::Result<Option<Mailbox>> {
    let sql = format!("SELECT {MAILBOX} FROM mailboxes WHERE account = ? AND name = ?");
    connection.prepare_cached(&sql)?.query_row(params![account, name], mailbox).optional()
}

/// Bytes of the messages of a mailbox that are marked as deleted.
pub(crate) fn deleted_bytes(connection: &Connection, account: i64, name: &str) -> rusqlite::Result<i64> {
    let snapshot = connection.unchecked_transaction()?;
    let Some(mailbox) = named(&snapshot, account, name)? else { return Ok(0) };
    let marks = marks::since(&snapshot, mailbox.id, 0, &mut Words::default())?.into_iter();
    let mut marks: HashMap<i64, i64> = marks.map(|(uid, mark)| (uid, mark.flags)).collect();
    let mut statement = snapshot.prepare_cached("SELECT uid, size, flags FROM messages WHERE mailbox = ?")?;
    let mut rows = statement.query([mailbox.id])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let flags = marks.remove(&row.get(0)?).map_or_else(|| row.get(2), Ok)?;
        if flags & DELETED != 0 {
            bytes += row.get::<_, i64>(1)?;
        }
    }
    Ok(bytes)
}

/// UIDs that were expunged after this MODSEQ.
pub(crate) fn gone(connection: &Connection, mailbox: i64, modseq: i64) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT uid FROM tombstones WHERE mailbox = ? AND modseq > ?";
    connection.prepare_cached(sql)?.query_map([mailbox, modseq], |row| row.get(0))?.collect()
}

/// The mailbox of this number.
pub(crate) fn numbered(connection: &Connection, mailbox: i64) -> rusqlite::Result<Option<Mailbox>> {
    let sql = format!("SELECT {MAILBOX} FROM mailboxes WHERE id = ?");
    connection.prepare_cached(&sql)?.query_row([mailbox], self::mailbox).optional()
}

fn mailbox(row: &Row<'_>) -> rusqlite::Result<Mailbox> {
    Ok(Mailbox {
        id: row.get(0)?,
        name: row.get(1)?,
        uidvalidity: row.get(2)?,
        uidnext: row.get(3)?,
        modseq: row.get(4)?,
        messages: row.get(5)?,
        unseen: row.get(6)?,
        deleted: row.get(7)?,
        bytes: row.get(8)?,
        special_use: row.get(9)?,
        subscribed: row.get(10)?,
    })
}

/// The messages of a mailbox from this UID on, by UID. Takes their marks out of these.
pub(crate) fn messages(
    connection: &Connection,
    mailbox: i64,
    from: i64,
    marks: &mut Marks,
    words: &mut Words,
) -> rusqlite::Result<Vec<Message>> {
    let sql = "SELECT uid, modseq, size, received, flags, keywords FROM messages
         WHERE mailbox = ? AND uid >= ? ORDER BY uid";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([mailbox, from], |row| {
        let (uid, size, received) = (row.get(0)?, row.get(2)?, row.get(3)?);
        let mark = match marks.remove(&uid) {
            Some(mark) => mark,
            None => {
                let keywords = words.share(row.get_ref(5)?.as_str()?);
                Mark { modseq: row.get(1)?, flags: row.get(4)?, keywords }
            }
        };
        Ok(Message { uid, modseq: mark.modseq, size, received, flags: mark.flags, keywords: mark.keywords })
    })?;
    rows.collect()
}

/// The prefix that a row has, and the body that it names. The pack may have been rewritten, and be gone, between the
/// question and the look: then the row names another by now.
fn follow(
    packs: &Path,
    mut row: impl FnMut() -> rusqlite::Result<Option<(Bytes, [u8; 32], Place)>>,
) -> anyhow::Result<Option<(Bytes, Bytes)>> {
    let mut gone = None;
    loop {
        let Some((prefix, digest, place)) = row()? else { return Ok(None) };
        match pack::read(packs, place, &digest) {
            Err(error) if pack::is_gone(&error) && gone != Some(place) => gone = Some(place),
            body => return Ok(Some((prefix, body?))),
        }
    }
}

/// The place of a body, in three columns from this one on.
pub(super) fn place(row: &Row<'_>, first: usize) -> rusqlite::Result<Place> {
    Ok(Place { pack: row.get(first)?, offset: row.get(first + 1)?, length: row.get(first + 2)? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_reader_follows_a_body_whose_pack_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let digest = *blake3::hash(b"body").as_bytes();
        let record = pack::record(b"body", &digest);
        pack::Current::open_last(folder.path(), 3).unwrap().append(&record).unwrap();
        let place = |pack| Place { pack, offset: 0, length: i64::try_from(record.len()).unwrap() };
        let read = |packs: &[i64]| {
            let mut packs = packs.iter().copied();
            follow(folder.path(), || Ok(packs.next().map(|pack| (Bytes::new(), digest, place(pack)))))
        };
        assert_eq!(read(&[1, 2, 3]).unwrap().unwrap().1, "body");
        assert_eq!(read(&[1]).unwrap(), None, "it was expunged meanwhile");
        let error = read(&[1, 1]).unwrap_err().to_string();
        assert!(error.contains("000001.pack at offset 0"), "{error}");
    }
}
