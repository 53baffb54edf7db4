//! Messages that readers bring in, copy and move. All or none: everything is checked before the first row is written.
//!
//! A copy refers to the body that is there. A message that is moved within an account stays in its usage, and the
//! mailbox that it leaves keeps a tombstone, as for one that was expunged.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{OptionalExtension as _, params};

use super::changes::{DELETED, SEEN};
use super::marks;
use super::outlines::{self, Outlined};
use super::writer::Gathering;
use super::{Refusal, StoreError};

/// Messages that are copied or moved in one go: a fifth of a second of the shard's writer, for which deliveries wait.
pub(crate) const PORTION: usize = 20_000;

/// What an account may take up; 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) bytes: u64,
    pub(crate) messages: u64,
}

/// Messages for a mailbox that must be there.
#[derive(Debug)]
pub(crate) enum Placing {
    Append(Appending),
    Copy(Copying),
}

/// Messages that a reader brings in.
#[derive(Debug)]
pub(crate) struct Appending {
    pub(crate) account: i64,
    pub(crate) name: String,
    pub(crate) messages: Vec<Appended>,
    pub(crate) limits: Limits,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) flags: i64,
    /// With spaces between.
    pub(crate) keywords: String,
    /// Milliseconds since 1970.
    pub(crate) received: i64,
    pub(crate) body: Bytes,
    /// BLAKE3 of the body.
    pub(crate) digest: [u8; 32],
    /// What is kept with the body.
    pub(crate) outline: Outlined,
}

impl Appended {
    fn size(&self) -> i64 {
        i64::try_from(self.body.len()).unwrap_or(i64::MAX)
    }
}

/// Messages that are copied or moved.
#[derive(Debug)]
pub(crate) struct Copying {
    pub(crate) account: i64,
    /// Where they are.
    pub(crate) mailbox: i64,
    pub(crate) uids: Vec<i64>,
    /// Where they are to be.
    pub(crate) to: String,
    pub(crate) how: CopyMode,
    pub(crate) limits: Limits,
}

/// What becomes of messages that are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyMode {
    /// They stay.
    Copy,
    /// They go for good.
    Move,
}

/// Where messages are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) uidvalidity: i64,
    /// The UIDs that they had; none of appended messages.
    pub(crate) from: Vec<i64>,
    /// The UIDs that they have, as many and in the same order.
    pub(crate) to: Vec<i64>,
}

/// A mailbox into which messages go.
struct Target {
    id: i64,
    uidvalidity: i64,
    uidnext: i64,
    modseq: i64,
}

/// What a mailbox gains.
#[derive(Default)]
struct Gain {
    messages: i64,
    unseen: i64,
    deleted: i64,
    bytes: i64,
}

impl Gain {
    fn add(&mut self, flags: i64, size: i64) {
        self.messages += 1;
        self.unseen += 1 - (flags & SEEN);
        self.deleted += (flags & DELETED) / DELETED;
        self.bytes += size;
    }
}

/// A message that is copied, with its flags as they are.
struct Source {
    uid: i64,
    body: i64,
    size: i64,
    flags: i64,
    keywords: Arc<str>,
}

type Result<T> = rusqlite::Result<std::result::Result<T, StoreError>>;

impl Gathering<'_> {
    pub(super) fn place(&mut self, placing: &Placing) -> Result<Placed> {
        match placing {
            Placing::Append(appending) => self.append_messages(appending),
            Placing::Copy(copying) => self.copy(copying),
        }
    }

    /// Whether an account has no room for so many bytes and messages more.
    pub(super) fn is_full(&self, account: i64, more: (i64, i64), limits: Limits) -> rusqlite::Result<bool> {
        let usage = "SELECT bytes, messages FROM accounts WHERE account = ?";
        let usage = self
            .transaction
            .prepare_cached(usage)?
            .query_row([account], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (bytes, messages): (i64, i64) = usage.unwrap_or_default();
        let over = |used: i64, limit: u64| limit > 0 && i64::try_from(limit).is_ok_and(|limit| used > limit);
        Ok(over(bytes + more.0, limits.bytes) || over(messages + more.1, limits.messages))
    }

    fn target(&self, account: i64, name: &str) -> rusqlite::Result<Option<Target>> {
        let find = "SELECT id, uidvalidity, uidnext, modseq + 1 FROM mailboxes WHERE account = ? AND name = ?";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Target { id: row.get(0)?, uidvalidity: row.get(1)?, uidnext: row.get(2)?, modseq: row.get(3)? })
        };
        self.transaction.prepare_cached(find)?.query_row(params![account, name], read).optional()
    }

    fn append_messages(&mut self, appending: &Appending) -> Result<Placed> {
        let Appending { account, name, messages, limits } = appending;
        let Some(target) = self.target(*account, name)? else { return Ok(Err(Refusal::NoSuch.into())) };
        let mut gain = Gain::default();
        messages.iter().for_each(|message| gain.add(message.flags, message.size()));
        if self.is_full(*account, (gain.bytes, gain.messages), *limits)? {
            return Ok(Err(Refusal::Full.into()));
        }
        let mut to = Vec::with_capacity(messages.len());
        for (message, uid) in messages.iter().zip(target.uidnext..) {
            self.append_message(message, &target, uid)?;
            to.push(uid);
        }
        self.gain(&target, &gain)?;
        self.use_up(*account, &gain)?;
        Ok(Ok(Placed { uidvalidity: target.uidvalidity, from: Vec::new(), to }))
    }

    fn append_message(&mut self, message: &Appended, target: &Target, uid: i64) -> rusqlite::Result<()> {
        let Appended { flags, keywords, received, body, digest, outline } = message;
        let row = self.body(body, digest)?;
        outlines::keep(self.transaction, row, outline)?;
        let insert =
            "INSERT INTO messages (mailbox, uid, modseq, body, size, received, flags, keywords, prefix, mail, held, \
             held_for)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, x'', zeroblob(16), '', '')";
        let values = params![target.id, uid, target.modseq, row, message.size(), received, flags, keywords];
        self.transaction.prepare_cached(insert)?.execute(values).map(drop)
    }

    fn copy(&self, copying: &Copying) -> Result<Placed> {
        let Some(target) = self.target(copying.account, &copying.to)? else { return Ok(Err(Refusal::NoSuch.into())) };
        if copying.uids.len() > PORTION {
            return Ok(Err(Refusal::TooMany.into()));
        }
        let sources = self.sources(copying.mailbox, &copying.uids)?;
        let mut gain = Gain::default();
        sources.iter().for_each(|source| gain.add(source.flags, source.size));
        let more = (gain.bytes, gain.messages);
        if copying.how == CopyMode::Copy && self.is_full(copying.account, more, copying.limits)? {
            return Ok(Err(Refusal::Full.into()));
        }
        let mut placed = Placed { uidvalidity: target.uidvalidity, from: Vec::new(), to: Vec::new() };
        if sources.is_empty() {
            return Ok(Ok(placed));
        }
        // Why a mail is held moves with it; a copy of it is a mail like any other.
        let held = if copying.how == CopyMode::Move { "held" } else { "''" };
        let insert = format!(
            "INSERT INTO messages (mailbox, uid, modseq, body, size, received, flags, keywords, prefix, mail, held, \
             held_for)
             SELECT ?, ?, ?, body, size, received, ?, ?, prefix, mail, {held}, held_for FROM \
             messages
             WHERE mailbox = ? AND uid = ?"
        );
        let mut insert = self.transaction.prepare_cached(&insert)?;
        let mut refer = self.transaction.prepare_cached("UPDATE bodies SET refs = refs + 1 WHERE id = ?")?;
        for (source, uid) in sources.iter().zip(target.uidnext..) {
            let Source { flags, keywords, .. } = source;
            insert.execute(params![target.id, uid, target.modseq, flags, keywords, copying.mailbox, source.uid])?;
            refer.execute([source.body])?;
            placed.from.push(source.uid);
            placed.to.push(uid);
        }
        self.gain(&target, &gain)?;
        self.use_up(copying.account, &gain)?;
        if copying.how == CopyMode::Move {
            // It gives back what the copies took.
            if let Err(error) = self.expunge(copying.account, copying.mailbox, &placed.from, 0)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(placed))
    }

    /// Those that are still there, by UID.
    fn sources(&self, mailbox: i64, uids: &[i64]) -> rusqlite::Result<Vec<Source>> {
        let mut sorted = uids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let read = "SELECT body, size FROM messages WHERE mailbox = ? AND uid = ?";
        let mut read = self.transaction.prepare_cached(read)?;
        let mut sources = Vec::with_capacity(sorted.len());
        for block in sorted.chunk_by(|one, other| marks::together(*one, *other)) {
            let marks = marks::around(self.transaction, mailbox, block[0])?;
            for (uid, mark) in self.as_they_are(mailbox, block, &marks)? {
                let (body, size) = read.query_row([mailbox, uid], |row| Ok((row.get(0)?, row.get(1)?)))?;
                sources.push(Source { uid, body, size, flags: mark.flags, keywords: mark.keywords });
            }
        }
        Ok(sources)
    }

    fn gain(&self, target: &Target, gain: &Gain) -> rusqlite::Result<()> {
        let counts =
            "UPDATE mailboxes SET uidnext = uidnext + ?1, modseq = ?2, messages = messages + ?1, unseen = unseen + ?3,
                 deleted = deleted + ?4, bytes = bytes + ?5 WHERE id = ?6";
        let values = [gain.messages, target.modseq, gain.unseen, gain.deleted, gain.bytes, target.id];
        self.transaction.prepare_cached(counts)?.execute(values).map(drop)
    }

    fn use_up(&self, account: i64, gain: &Gain) -> rusqlite::Result<()> {
        let add = "INSERT INTO accounts (account, bytes, messages) VALUES (?, ?, ?)
             ON CONFLICT (account) \
                   DO UPDATE SET bytes = bytes + excluded.bytes, messages = messages + excluded.messages";
        self.transaction.prepare_cached(add)?.execute([account, gain.bytes, gain.messages]).map(drop)
    }
}

#[cfg(test)]
mod tests;
