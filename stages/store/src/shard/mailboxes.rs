//! What becomes of mailboxes: made, renamed, deleted, subscribed to.
//!
//! Every change is checked before its first row is written, so that what is refused has changed nothing. A UIDVALIDITY
//! is given once in an account, whatever the clock says: a name that is made again, or given to another mailbox, never
//! meets its old one.
//!
//! A deleted mailbox is gone with the commit: its row, and what it counted for the account. The rows of its messages go
//! afterwards, in portions between the batches; a row in `doomed` says so, and a crash in between costs nothing but
//! another portion.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use wire::imap::is_mailbox_name;

use super::StoreError;
use super::writer::Gathering;

/// Mailboxes of one account: every LIST goes through them, and a rename may.
const MOST: usize = 5000;
/// Names that an account may be subscribed to: its mailboxes, and as many that are gone.
const MOST_SUBSCRIBED: i64 = 10_000;
/// Messages of deleted mailboxes that go in one portion: some milliseconds, for which deliveries wait.
const PORTION: u32 = 500;
/// UIDVALIDITY has 32 bits. Beyond this the account makes no more mailboxes.
const LAST_UIDVALIDITY: i64 = u32::MAX as i64 - 1;

/// The mailboxes that every account has at first (RFC 6154).
const FIRST: [(&str, &str); 5] =
    [("INBOX", ""), ("Junk", "\\Junk"), ("Sent", "\\Sent"), ("Drafts", "\\Drafts"), ("Trash", "\\Trash")];

/// What becomes of which mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manage {
    /// It is made, and what is above it.
    Create {
        /// Its name.
        name: String,
        /// Its special use (RFC 6154), or empty.
        special_use: String,
    },
    /// It goes with its messages.
    Delete(String),
    /// It gets another name, and so does what is below it. The INBOX only gives its messages away.
    Rename {
        /// Its name so far.
        from: String,
        /// Its name from then on.
        to: String,
    },
    /// It is subscribed to.
    Subscribe(String),
    /// It is no longer.
    Unsubscribe(String),
}

/// Why something that a reader asked for cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is such a mailbox already.
    #[error("there is such a mailbox already")]
    Exists,
    /// There is no such mailbox.
    #[error("there is no such mailbox")]
    NoSuch,
    /// It is there only for what is below it.
    #[error("it is there only for the mailboxes below it")]
    HasInferiors,
    /// There would be too many, or names would be too long.
    #[error("there would be too many, or too long names")]
    TooMany,
    /// It cannot become its own inferior; the INBOX cannot go.
    #[error("it cannot be")]
    Cannot,
    /// The account has no room for it.
    #[error("the account has no room for it")]
    Full,
    /// Another mailbox has its special use.
    #[error("another mailbox has this use")]
    UseTaken,
}

pub(super) type Done = rusqlite::Result<Result<u64, StoreError>>;

impl Gathering<'_> {
    pub(super) fn manage(&mut self, account: i64, manage: &Manage) -> Done {
        match manage {
            Manage::Create { name, special_use } => self.create(account, name, special_use),
            Manage::Delete(name) => self.delete(account, name),
            Manage::Rename { from, to } => self.rename(account, from, to),
            Manage::Subscribe(name) => self.subscribe(account, name),
            Manage::Unsubscribe(name) => {
                let remove = "DELETE FROM subscriptions WHERE account = ? AND name = ?";
                self.transaction.prepare_cached(remove)?.execute(params![account, name])?;
                Ok(Ok(1))
            }
        }
    }

    /// The mailboxes that an account has at first, once: it may delete and rename all but the INBOX.
    pub(super) fn make_mailboxes(&self, account: i64) -> rusqlite::Result<()> {
        let is_there = "SELECT 1 FROM mailboxes WHERE account = ? AND name = 'INBOX'";
        if self.transaction.prepare_cached(is_there)?.exists([account])? {
            return Ok(());
        }
        for (name, special_use) in FIRST {
            self.make_subscribed(account, name, special_use)?;
        }
        Ok(())
    }

    /// The name of a mailbox into which mail is delivered, and which was not there: that of the mailbox that has its
    /// special use by now, if it was renamed, or its own, and it is made.
    pub(super) fn made_for(&self, account: i64, name: &str) -> rusqlite::Result<String> {
        self.make_mailboxes(account)?;
        let use_of = |(first, special_use): &&(&str, &str)| *first == name && !special_use.is_empty();
        let special_use = FIRST.iter().find(use_of).map_or("", |(_, special_use)| special_use);
        if !special_use.is_empty() {
            let find = "SELECT name FROM mailboxes WHERE account = ? AND special_use = ? ORDER BY id LIMIT 1";
            let row = params![account, special_use];
            let found = self.transaction.prepare_cached(find)?.query_row(row, |row| row.get(0)).optional()?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        let is_there = "SELECT 1 FROM mailboxes WHERE account = ? AND name = ?";
        if !self.transaction.prepare_cached(is_there)?.exists(params![account, name])? {
            self.make_subscribed(account, name, special_use)?;
        }
        Ok(name.to_owned())
    }

    fn make_subscribed(&self, account: i64, name: &str, special_use: &str) -> rusqlite::Result<()> {
        self.make_mailbox(account, name, special_use)?;
        let subscribe = "INSERT INTO subscriptions (account, name) VALUES (?, ?) ON CONFLICT DO NOTHING";
        self.transaction.prepare_cached(subscribe)?.execute(params![account, name])?;
        Ok(())
    }

    fn make_mailbox(&self, account: i64, name: &str, special_use: &str) -> rusqlite::Result<()> {
        let uidvalidity = self.next_uidvalidity(account)?;
        let insert = "INSERT INTO mailboxes (account, name, uidvalidity, special_use) VALUES (?, ?, ?, ?)";
        self.transaction.prepare_cached(insert)?.execute(params![account, name, uidvalidity, special_use])?;
        Ok(())
    }

    /// The time in seconds, or one more than the last, if that is later.
    fn next_uidvalidity(&self, account: i64) -> rusqlite::Result<i64> {
        let next = "INSERT INTO accounts (account, bytes, messages, uidvalidity) VALUES (?, 0, 0, ?)
             ON CONFLICT (account) DO UPDATE SET uidvalidity = max(uidvalidity + 1, excluded.uidvalidity)
             RETURNING uidvalidity";
        let seconds = i64::try_from(self.now.0 / 1000).unwrap_or(1).clamp(1, LAST_UIDVALIDITY);
        self.transaction.prepare_cached(next)?.query_row([account, seconds], |row| row.get(0))
    }

    fn names(&self, account: i64) -> rusqlite::Result<HashMap<String, i64>> {
        let names = "SELECT name, id FROM mailboxes WHERE account = ?";
        let mut names = self.transaction.prepare_cached(names)?;
        names.query_map([account], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// Whether an account may have so many mailboxes more.
    fn has_room(&self, account: i64, names: &HashMap<String, i64>, more: usize) -> rusqlite::Result<bool> {
        let last = "SELECT uidvalidity FROM accounts WHERE account = ?";
        let last: Option<i64> =
            self.transaction.prepare_cached(last)?.query_row([account], |row| row.get(0)).optional()?;
        let most = i64::try_from(MOST).unwrap_or(i64::MAX);
        Ok(names.len() + more <= MOST && last.unwrap_or(0) < LAST_UIDVALIDITY - most)
    }

    fn create(&self, account: i64, name: &str, special_use: &str) -> Done {
        let names = self.names(account)?;
        if names.contains_key(name) {
            return Ok(Err(Refusal::Exists.into()));
        }
        let superiors = superiors(name).filter(|superior| !names.contains_key(*superior)).collect::<Vec<_>>();
        if !self.has_room(account, &names, superiors.len() + 1)? {
            return Ok(Err(Refusal::TooMany.into()));
        }
        // RFC 6154 section 3: a special use that another mailbox has is refused.
        let taken = "SELECT 1 FROM mailboxes WHERE account = ? AND special_use = ?";
        if !special_use.is_empty() && self.transaction.prepare_cached(taken)?.exists(params![account, special_use])? {
            return Ok(Err(Refusal::UseTaken.into()));
        }
        for superior in superiors {
            self.make_mailbox(account, superior, "")?;
        }
        self.make_mailbox(account, name, special_use)?;
        Ok(Ok(1))
    }

    fn delete(&mut self, account: i64, name: &str) -> Done {
        if name == "INBOX" {
            return Ok(Err(Refusal::Cannot.into()));
        }
        let remove = "DELETE FROM mailboxes WHERE account = ? AND name = ? RETURNING id, messages, bytes";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let removed: Option<(i64, i64, i64)> =
            self.transaction.prepare_cached(remove)?.query_row(params![account, name], read).optional()?;
        let Some((mailbox, messages, bytes)) = removed else {
            let below = "SELECT 1 FROM mailboxes WHERE account = ? AND name > ? AND name < ?";
            let (first, last) = below_of(name);
            let has_inferiors = self.transaction.prepare_cached(below)?.exists(params![account, first, last])?;
            return Ok(Err(if has_inferiors { Refusal::HasInferiors } else { Refusal::NoSuch }.into()));
        };
        let usage = "UPDATE accounts SET messages = messages - ?, bytes = bytes - ? WHERE account = ?";
        self.transaction.prepare_cached(usage)?.execute([messages, bytes, account])?;
        self.transaction.prepare_cached("INSERT INTO doomed (mailbox) VALUES (?)")?.execute([mailbox])?;
        self.is_doomed = true;
        Ok(Ok(1))
    }

    /// RFC 3501 section 6.3.5: what is below goes along. The INBOX gives its messages to the new name and is empty
    /// afterwards: it is a new one, and what is below it stays.
    fn rename(&self, account: i64, from: &str, to: &str) -> Done {
        let names = self.names(account)?;
        if names.contains_key(to) {
            return Ok(Err(Refusal::Exists.into()));
        }
        let (below, is_inbox) = (format!("{from}/"), from == "INBOX");
        let renamed: Vec<(i64, String)> = names
            .iter()
            .filter(|(name, _)| *name == from || (name.starts_with(&below) && !is_inbox))
            .map(|(name, id)| (*id, format!("{to}{}", &name[from.len()..])))
            .collect();
        let superiors = superiors(to).filter(|superior| !names.contains_key(*superior)).collect::<Vec<_>>();
        if renamed.is_empty() {
            return Ok(Err(Refusal::NoSuch.into()));
        }
        if to.starts_with(&below) && !is_inbox {
            return Ok(Err(Refusal::Cannot.into()));
        }
        if renamed.iter().any(|(_, name)| names.contains_key(name)) {
            return Ok(Err(Refusal::Exists.into()));
        }
        let are_names = renamed.iter().all(|(_, name)| is_mailbox_name(name));
        if !are_names || !self.has_room(account, &names, superiors.len() + usize::from(is_inbox))? {
            return Ok(Err(Refusal::TooMany.into()));
        }
        for (id, name) in renamed {
            let rename = "UPDATE mailboxes SET name = ? WHERE id = ?";
            self.transaction.prepare_cached(rename)?.execute(params![name, id])?;
        }
        if is_inbox {
            self.make_mailbox(account, "INBOX", "")?;
        }
        for superior in superiors {
            self.make_mailbox(account, superior, "")?;
        }
        Ok(Ok(1))
    }

    fn subscribe(&self, account: i64, name: &str) -> Done {
        let count = "SELECT count(*) FROM subscriptions WHERE account = ?";
        let count: i64 = self.transaction.prepare_cached(count)?.query_row([account], |row| row.get(0))?;
        if count >= MOST_SUBSCRIBED {
            return Ok(Err(Refusal::TooMany.into()));
        }
        let add = "INSERT INTO subscriptions (account, name) VALUES (?, ?) ON CONFLICT DO NOTHING";
        self.transaction.prepare_cached(add)?.execute(params![account, name])?;
        Ok(Ok(1))
    }
}

/// The names above a name.
fn superiors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

/// Between which two names those below a name are: `0` comes after `/`.
fn below_of(name: &str) -> (String, String) {
    (format!("{name}/"), format!("{name}0"))
}

/// Removes a portion of what belonged to deleted mailboxes. Says whether there was any.
pub(super) fn clear(database: &mut Connection) -> rusqlite::Result<bool> {
    let transaction = database.transaction()?;
    let first = "SELECT mailbox FROM doomed LIMIT 1";
    let first: Option<i64> = transaction.prepare_cached(first)?.query_row([], |row| row.get(0)).optional()?;
    let Some(mailbox) = first else { return Ok(false) };
    let remove = "DELETE FROM messages WHERE mailbox = ?1 AND uid IN
         (SELECT uid FROM messages WHERE mailbox = ?1 ORDER BY uid LIMIT ?2) RETURNING body";
    let bodies = transaction
        .prepare_cached(remove)?
        .query_map(params![mailbox, PORTION], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<i64>>>()?;
    for body in &bodies {
        transaction.prepare_cached("UPDATE bodies SET refs = refs - 1 WHERE id = ?")?.execute([body])?;
    }
    let buried = "DELETE FROM tombstones WHERE mailbox = ?1 AND modseq IN
         (SELECT modseq FROM tombstones WHERE mailbox = ?1 ORDER BY modseq LIMIT ?2)";
    let buried = transaction.prepare_cached(buried)?.execute(params![mailbox, PORTION])?;
    if bodies.is_empty() && buried == 0 {
        transaction.prepare_cached("DELETE FROM doomed WHERE mailbox = ?")?.execute([mailbox])?;
    }
    transaction.commit()?;
    Ok(true)
}

#[cfg(test)]
mod tests;
