//! What readers change: flags, and messages that go for good.

use rusqlite::{OptionalExtension as _, Row, Statement};

use super::mailboxes::Done;
use super::marks::{self, Mark, Marks};
use super::writer::Gathering;
use super::{Change, FlagChange, StoreError};

/// What was expunged is remembered for so many changes of its mailbox: some MB at most, where each mail that comes goes
/// again. A client that was away for longer is told of all UIDs that are not there.
pub(crate) const REMEMBERED: i64 = 100_000;
/// The flag that counts for `unseen`.
pub(crate) const SEEN: i64 = 1;
/// The flag by which a reader says what is to be expunged.
pub(crate) const DELETED: i64 = 8;

const AS_IT_CAME: &str = "SELECT flags, keywords, modseq FROM messages WHERE mailbox = ? AND uid = ?";

/// The flags with which a message came; none if it is not there.
fn as_it_came(read: &mut Statement<'_>, mailbox: i64, uid: i64) -> rusqlite::Result<Option<Mark>> {
    let mark = |row: &Row<'_>| Ok(Mark { flags: row.get(0)?, keywords: row.get(1)?, modseq: row.get(2)? });
    read.query_row([mailbox, uid], mark).optional()
}

/// A change of flags under way.
struct Flagging<'a> {
    change: &'a FlagChange,
    unchanged_since: i64,
    /// Of those that change.
    modseq: i64,
    count: u64,
    unseen: i64,
    deleted: i64,
    result: Result<(), StoreError>,
    /// Left as they were: they had changed.
    modified: Vec<i64>,
}

impl<'a> Flagging<'a> {
    fn new(change: &'a FlagChange, unchanged_since: i64, modseq: i64) -> Self {
        let (count, unseen, deleted, result, modified) = (0, 0, 0, Ok(()), Vec::new());
        Self { change, unchanged_since, modseq, count, unseen, deleted, result, modified }
    }

    /// Whether there is a difference.
    fn apply(&mut self, uid: i64, mark: &mut Mark) -> bool {
        if mark.modseq > self.unchanged_since {
            self.modified.push(uid);
            return false;
        }
        let Some((flags, keywords)) = self.change.apply(mark.flags, &mark.keywords) else {
            self.result = Err(StoreError::TooManyKeywords);
            return false;
        };
        if (flags, &keywords) == (mark.flags, &mark.keywords) {
            return false;
        }
        self.unseen += (mark.flags & SEEN) - (flags & SEEN);
        self.deleted += (flags & DELETED) / DELETED - (mark.flags & DELETED) / DELETED;
        self.count += 1;
        *mark = Mark { flags, keywords, modseq: self.modseq };
        true
    }
}

impl Gathering<'_> {
    pub(super) fn change(&mut self, change: &Change) -> rusqlite::Result<Result<u64, StoreError>> {
        match change {
            Change::Mailboxes { account } => self.make_mailboxes(*account).map(|()| Ok(0)),
            Change::Flags { mailbox, uids, change, unchanged_since } => {
                self.flags(*mailbox, uids, change, unchanged_since.unwrap_or(i64::MAX))
            }
            Change::Expunge { account, mailbox, uids, only_deleted } => {
                let needed = if *only_deleted { DELETED } else { 0 };
                self.expunge(*account, *mailbox, uids, needed)
            }
            Change::Manage { account, manage } => self.manage(*account, manage),
        }
    }

    /// The MODSEQ that what changes now will have; none if the mailbox is gone.
    pub(super) fn next_modseq(&self, mailbox: i64) -> rusqlite::Result<Option<i64>> {
        let next = "SELECT modseq + 1 FROM mailboxes WHERE id = ?";
        self.transaction.prepare_cached(next)?.query_row([mailbox], |row| row.get(0)).optional()
    }

    fn flags(&self, mailbox: i64, uids: &[i64], change: &FlagChange, unchanged_since: i64) -> Done {
        let Some(modseq) = self.next_modseq(mailbox)? else { return Ok(Ok(0)) };
        let mut flagging = Flagging::new(change, unchanged_since, modseq);
        let mut sorted = uids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        for block in sorted.chunk_by(|one, other| marks::together(*one, *other)) {
            let mut marks = marks::block(self.transaction, mailbox, block[0])?;
            let (before, mut new) = (flagging.count, Vec::new());
            let mut read = self.transaction.prepare_cached(AS_IT_CAME)?;
            let mut known = marks.iter_mut().peekable();
            for uid in block {
                while known.next_if(|(mark, _)| mark < uid).is_some() {}
                if let Some((_, mark)) = known.next_if(|(mark, _)| mark == uid) {
                    flagging.apply(*uid, mark);
                } else if let Some(mut mark) = as_it_came(&mut read, mailbox, *uid)?
                    && flagging.apply(*uid, &mut mark)
                {
                    new.push((*uid, mark));
                }
            }
            if flagging.count > before {
                marks.extend(new);
                marks.sort_by_key(|(uid, _)| *uid);
                let marks = marks.iter().map(|(uid, mark)| (uid, mark));
                marks::write(self.transaction, mailbox, block[0], marks)?;
            }
        }
        let Flagging { count, unseen, deleted, mut result, modified, .. } = flagging;
        if count > 0 {
            let counts = "UPDATE mailboxes SET modseq = ?, unseen = unseen + ?, deleted = deleted + ? WHERE id = ?";
            self.transaction.prepare_cached(counts)?.execute([modseq, unseen, deleted, mailbox])?;
        }
        if !modified.is_empty() {
            result = result.and(Err(StoreError::Modified(modified)));
        }
        Ok(result.map(|()| count))
    }

    /// These messages of one block, those that are still there.
    pub(super) fn as_they_are(&self, mailbox: i64, uids: &[i64], marks: &Marks) -> rusqlite::Result<Vec<(i64, Mark)>> {
        let mut read = self.transaction.prepare_cached(AS_IT_CAME)?;
        let mut found = Vec::with_capacity(uids.len());
        for uid in uids {
            let mark = match marks.get(uid) {
                Some(mark) => Some(mark.clone()),
                None => as_it_came(&mut read, mailbox, *uid)?,
            };
            found.extend(mark.map(|mark| (*uid, mark)));
        }
        Ok(found)
    }

    pub(super) fn expunge(&self, account: i64, mailbox: i64, uids: &[i64], needed: i64) -> Done {
        let Some(modseq) = self.next_modseq(mailbox)? else { return Ok(Ok(0)) };
        let (mut count, mut unseen, mut deleted, mut bytes) = (0, 0, 0, 0);
        let mut sorted = uids.to_vec();
        sorted.sort_unstable();
        for block in sorted.chunk_by(|one, other| marks::together(*one, *other)) {
            let mut marks = marks::around(self.transaction, mailbox, block[0])?;
            let before = marks.len();
            for (uid, mark) in self.as_they_are(mailbox, block, &marks)? {
                if mark.flags & needed != needed {
                    continue;
                }
                let Some(size) = self.remove(mailbox, uid, modseq)? else { continue };
                marks.remove(&uid);
                count += 1;
                unseen += 1 - (mark.flags & SEEN);
                deleted += (mark.flags & DELETED) / DELETED;
                bytes += size;
            }
            if marks.len() < before {
                marks::write(self.transaction, mailbox, block[0], marks.iter())?;
            }
        }
        if count > 0 {
            let counts = "UPDATE mailboxes SET modseq = ?, messages = messages - ?, unseen = unseen - ?,
                     deleted = deleted - ?, bytes = bytes - ? WHERE id = ?";
            self.transaction.prepare_cached(counts)?.execute([modseq, count, unseen, deleted, bytes, mailbox])?;
            let forget = "DELETE FROM tombstones WHERE mailbox = ? AND modseq < ?";
            self.transaction.prepare_cached(forget)?.execute([mailbox, modseq - REMEMBERED])?;
            let usage = "UPDATE accounts SET messages = messages - ?, bytes = bytes - ? WHERE account = ?";
            self.transaction.prepare_cached(usage)?.execute([count, bytes, account])?;
        }
        Ok(Ok(count.unsigned_abs()))
    }

    /// Removes a message's row and says how many bytes it had; none if it is gone already.
    fn remove(&self, mailbox: i64, uid: i64, modseq: i64) -> rusqlite::Result<Option<i64>> {
        let remove = "DELETE FROM messages WHERE mailbox = ? AND uid = ? RETURNING body, size";
        let removed: Option<(i64, i64)> = self
            .transaction
            .prepare_cached(remove)?
            .query_row([mailbox, uid], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((body, size)) = removed else { return Ok(None) };
        let tombstone = "INSERT INTO tombstones (mailbox, modseq, uid) VALUES (?, ?, ?)";
        self.transaction.prepare_cached(tombstone)?.execute([mailbox, modseq, uid])?;
        self.transaction.prepare_cached("UPDATE bodies SET refs = refs - 1 WHERE id = ?")?.execute([body])?;
        Ok(Some(size))
    }
}
