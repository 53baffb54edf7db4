//! Reading a shard: snapshots of the database, bodies out of the packs. Nothing here waits for the writer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Settings, schema};
use crate::pack::{self, Place};

/// Connections that are kept for the next question.
const SPARE: usize = 4;

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
    pub(crate) keywords: String,
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
}

impl Reader {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { database: settings.database(), packs: settings.packs(), spare: Arc::default() }
    }

    /// Runs a question on a thread where it may block.
    async fn ask<T, F>(&self, question: F) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &std::path::Path) -> anyhow::Result<T> + Send + 'static,
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
        tokio::task::spawn_blocking(asked).await.context("reading a shard")?
    }

    pub(crate) async fn mailboxes(&self, account: i64) -> anyhow::Result<Vec<Mailbox>> {
        self.ask(move |connection, _| {
            let sql = "SELECT id, name, uidvalidity, uidnext, modseq, messages, unseen, special_use, subscribed
                 FROM mailboxes WHERE account = ? ORDER BY name";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([account], |row| {
                Ok(Mailbox {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    uidvalidity: row.get(2)?,
                    uidnext: row.get(3)?,
                    modseq: row.get(4)?,
                    messages: row.get(5)?,
                    unseen: row.get(6)?,
                    special_use: row.get(7)?,
                    subscribed: row.get(8)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Every message of a mailbox, by UID.
    pub(crate) async fn messages(&self, mailbox: i64) -> anyhow::Result<Vec<Message>> {
        self.ask(move |connection, _| {
            let sql =
                "SELECT uid, modseq, size, received, flags, keywords FROM messages WHERE mailbox = ? ORDER BY uid";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([mailbox], |row| {
                Ok(Message {
                    uid: row.get(0)?,
                    modseq: row.get(1)?,
                    size: row.get(2)?,
                    received: row.get(3)?,
                    flags: row.get(4)?,
                    keywords: row.get(5)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
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
            let row = connection
                .prepare_cached(sql)?
                .query_row(params![mailbox, uid], |row| {
                    let place = Place { pack: row.get(2)?, offset: row.get(3)?, length: row.get(4)? };
                    Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, [u8; 32]>(1)?, place))
                })
                .optional()?;
            let Some((prefix, digest, place)) = row else { return Ok(None) };
            Ok(Some((Bytes::from(prefix), pack::read(packs, place, &digest)?)))
        })
        .await
    }

    /// What the quarantine holds.
    pub(crate) async fn held(&self, account: i64, behind: i64, most: u32) -> anyhow::Result<Vec<(i64, Held)>> {
        self.ask(move |connection, _| {
            let sql = "SELECT mailboxes.id, uid, mail, held, held_for, received, size FROM messages
                 JOIN mailboxes ON mailboxes.id = mailbox WHERE account = ? AND held != '' AND uid > ? ORDER BY uid LIMIT ?";
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
}
