//! What readers change: flags, and messages that go for good.

use rusqlite::{OptionalExtension as _, Row, Statement};

use super::mailboxes::Done;
use super::marks::{self, Mark, Marks};
use super::writer::Gathering;
use super::{Change, StoreError};

/// What was expunged is remembered for so many changes of its mailbox: some MB at most, where each mail that comes goes
/// again. A client that was away for longer is told of all UIDs that are not there.
pub(crate) const REMEMBERED: i64 = 100_000;
/// The flag that counts for `unseen`.
pub(crate) const SEEN: i64 = 1;
/// The flag by which a reader says what is to be expunged.
pub(crate) const DELETED: i64 = 8;
/// Keywords of one message: they lie in its row, which every look at the mailbox reads.
pub(super) const MOST_KEYWORDS: usize = 50;
/// And their bytes, together with the spaces between: as long as a mailbox is open, those of all its messages lie in
/// memory.
pub(super) const KEYWORD_BYTES: usize = 1000;

const AS_IT_CAME: &str = "SELECT flags, keywords, modseq FROM messages WHERE mailbox = ? AND uid = ?";

/// Flags to be set, added or taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagChange {
    /// How they change.
    pub how: FlagMode,
    /// Bits of the system flags.
    pub flags: i64,
    /// Keywords.
    pub keywords: Vec<String>,
}

/// How flags change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagMode {
    /// These and no others.
    Set,
    /// These too.
    Add,
    /// Not these.
    Remove,
}

impl FlagChange {
    /// The flags and keywords after the change; keywords are kept apart by spaces. None if there would be too
    /// many, or too long ones.
    fn apply(&self, flags: i64, keywords: &str) -> Option<(i64, String)> {
        let flags = match self.how {
            FlagMode::Set => self.flags,
            FlagMode::Add => flags | self.flags,
            FlagMode::Remove => flags & !self.flags,
        };
        if self.keywords.is_empty() && self.how != FlagMode::Set {
            return Some((flags, keywords.to_owned()));
        }
        let mut words: Vec<&str> = keywords.split(' ').filter(|word| !word.is_empty()).collect();
        let named = |word: &str| self.keywords.iter().any(|keyword| keyword.eq_ignore_ascii_case(word));
        match self.how {
            FlagMode::Set => words = self.keywords.iter().map(String::as_str).collect(),
            FlagMode::Add => {
                let known = words.clone();
                let is_new = |word: &&str| !known.iter().any(|known| known.eq_ignore_ascii_case(word));
                words.extend(self.keywords.iter().map(String::as_str).filter(is_new));
            }
            FlagMode::Remove => words.retain(|word| !named(word)),
        }
        let joined = words.join(" ");
        // What has been more is not kept from becoming less.
        let may_be = words.len() <= MOST_KEYWORDS && joined.len() <= KEYWORD_BYTES || joined.len() <= keywords.len();
        may_be.then_some((flags, joined))
    }
}

/// The flags with which a message came; none if it is not there.
fn as_it_came(read: &mut Statement<'_>, mailbox: i64, uid: i64) -> rusqlite::Result<Option<Mark>> {
    let mark = |row: &Row<'_>| {
        let keywords = row.get_ref(1)?.as_str()?.into();
        Ok(Mark { flags: row.get(0)?, keywords, modseq: row.get(2)? })
    };
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
        if (flags, &*keywords) == (mark.flags, &*mark.keywords) {
            return false;
        }
        self.unseen += (mark.flags & SEEN) - (flags & SEEN);
        self.deleted += (flags & DELETED) / DELETED - (mark.flags & DELETED) / DELETED;
        self.count += 1;
        *mark = Mark { flags, keywords: keywords.into(), modseq: self.modseq };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(how: FlagMode, change: (i64, &[&str]), before: (i64, &str), want: (i64, &str)) {
        let keywords = change.1.iter().map(|&word| word.to_owned()).collect();
        let (flags, words) = FlagChange { how, flags: change.0, keywords }.apply(before.0, before.1).unwrap();
        assert_eq!((flags, words.as_str()), want);
    }

    #[test]
    fn flags_change() {
        check(FlagMode::Set, (2, &["a"]), (1, "b c"), (2, "a"));
        check(FlagMode::Add, (2, &["A", "b"]), (1, "a"), (3, "a b"));
        check(FlagMode::Remove, (1, &["A"]), (3, "a b"), (2, "b"));
        check(FlagMode::Remove, (4, &["x"]), (3, ""), (3, ""));
    }

    #[test]
    fn keywords_have_a_bound() {
        let named = |range: std::ops::Range<usize>| range.map(|at| format!("k{at}")).collect::<Vec<_>>();
        let add = |keywords| FlagChange { how: FlagMode::Add, flags: 0, keywords }.apply(0, &named(0..40).join(" "));
        assert!(add(named(0..50)).is_some());
        assert_eq!(add(named(30..51)), None);
    }

    /// Fifty of 64 bytes each, in every message, were more than three KB of memory a message.
    #[test]
    fn keywords_of_a_message_have_a_bound_together() {
        let change = |how, word: &str, before: &str| {
            let change = FlagChange { how, flags: 0, keywords: vec![word.to_owned()] };
            change.apply(0, before).map(|(_, keywords)| keywords)
        };
        let (long, other) = ("x".repeat(499), "z".repeat(498));
        assert_eq!(change(FlagMode::Add, "y", &format!("{long} {other}")), Some(format!("{long} {other} y")));
        assert_eq!(change(FlagMode::Add, "y", &format!("{long} {other}z")), None);
        // What came before there was such a bound.
        let more = format!("{long} {long} {long} y");
        assert_eq!(change(FlagMode::Add, "Y", &more).as_deref(), Some(&*more));
        assert_eq!(change(FlagMode::Remove, "y", &more), Some(format!("{long} {long} {long}")));
    }
}
