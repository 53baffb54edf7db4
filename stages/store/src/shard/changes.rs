//! What readers change: flags, and messages that go for good.

use rusqlite::{OptionalExtension as _, params};

use super::writer::Gathering;
use super::{Change, FlagChange, StoreError};

/// The flag that counts for `unseen`.
pub(crate) const SEEN: i64 = 1;
/// The flag by which a reader says what is to be expunged.
const DELETED: i64 = 8;

impl Gathering<'_> {
    pub(super) fn change(&mut self, change: &Change) -> rusqlite::Result<Result<u64, StoreError>> {
        match change {
            Change::Mailboxes { account, now } => self.make_mailboxes(*account, *now).map(|()| Ok(0)),
            Change::Flags { mailbox, uids, change } => self.flags(*mailbox, uids, change),
            Change::Expunge { account, mailbox, uids, only_deleted } => {
                let needed = if *only_deleted { DELETED } else { 0 };
                self.expunge(*account, *mailbox, uids, needed).map(Ok)
            }
        }
    }

    fn next_modseq(&self, mailbox: i64) -> rusqlite::Result<i64> {
        let next = "UPDATE mailboxes SET modseq = modseq + 1 WHERE id = ? RETURNING modseq";
        self.transaction.prepare_cached(next)?.query_row([mailbox], |row| row.get(0))
    }

    fn flags(&self, mailbox: i64, uids: &[i64], change: &FlagChange) -> rusqlite::Result<Result<u64, StoreError>> {
        let modseq = self.next_modseq(mailbox)?;
        let (mut count, mut result) = (0, Ok(()));
        for uid in uids {
            let read = "SELECT flags, keywords FROM messages WHERE mailbox = ? AND uid = ?";
            let found: Option<(i64, String)> = self
                .transaction
                .prepare_cached(read)?
                .query_row(params![mailbox, uid], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((flags, keywords)) = found else { continue };
            let Some((new_flags, new_keywords)) = change.apply(flags, &keywords) else {
                result = Err(StoreError::TooManyKeywords);
                continue;
            };
            if (new_flags, new_keywords.as_str()) == (flags, keywords.as_str()) {
                continue;
            }
            let write = "UPDATE messages SET flags = ?, keywords = ?, modseq = ? WHERE mailbox = ? AND uid = ?";
            self.transaction.prepare_cached(write)?.execute(params![new_flags, new_keywords, modseq, mailbox, uid])?;
            let unseen = (flags & SEEN) - (new_flags & SEEN);
            self.transaction
                .prepare_cached("UPDATE mailboxes SET unseen = unseen + ? WHERE id = ?")?
                .execute(params![unseen, mailbox])?;
            count += 1;
        }
        Ok(result.map(|()| count))
    }

    fn expunge(&self, account: i64, mailbox: i64, uids: &[i64], needed: i64) -> rusqlite::Result<u64> {
        let modseq = self.next_modseq(mailbox)?;
        let mut count = 0;
        for uid in uids {
            let remove =
                "DELETE FROM messages WHERE mailbox = ?1 AND uid = ?2 AND flags & ?3 = ?3 RETURNING body, size, flags";
            let removed: Option<(i64, i64, i64)> = self
                .transaction
                .prepare_cached(remove)?
                .query_row(params![mailbox, uid, needed], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let Some((body, size, flags)) = removed else { continue };
            let unseen = 1 - (flags & SEEN);
            let tombstone = "INSERT INTO tombstones (mailbox, modseq, uid) VALUES (?, ?, ?)";
            self.transaction.prepare_cached(tombstone)?.execute([mailbox, modseq, *uid])?;
            let counts = "UPDATE mailboxes SET messages = messages - 1, unseen = unseen - ? WHERE id = ?";
            self.transaction.prepare_cached(counts)?.execute([unseen, mailbox])?;
            let usage = "UPDATE accounts SET messages = messages - 1, bytes = bytes - ? WHERE account = ?";
            self.transaction.prepare_cached(usage)?.execute([size, account])?;
            self.transaction.prepare_cached("UPDATE bodies SET refs = refs - 1 WHERE id = ?")?.execute([body])?;
            count += 1;
        }
        Ok(count)
    }
}
