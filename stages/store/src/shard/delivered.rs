//! What was decided about each mail and target, so that it is decided once: it is in the mailbox, or was turned away.
//! One row each, kept for `delivered_for` from when it was last asked for.
//!
//! Not from the arrival of the mail: one that was buried for weeks and is replayed is old when it is delivered, and may
//! go round again. When a row cannot be forgotten it stays; a mail that is delivered twice cannot be taken back.
//!
//! A mail that is turned away goes to the quarantine, which may live in another shard or on another node, so both
//! cannot be written at once. The decision comes first:
//! - broken off before the decision is committed: nothing was handed over; it is decided anew.
//! - broken off between decision and hand-over, or before its end is told: the copy comes again, is turned away again,
//!   be
//!   the mailbox empty by then, and handed over again; the quarantine has one row for it as well.
//!
//! The other way round, a copy would be in the quarantine and nothing would say so here: when it came again and found
//! room, it would be in the mailbox, too.

use std::time::Duration;

use proto::Millis;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::Why;

/// Ids that are forgotten in one go, so that deliveries do not wait for it for long.
pub(super) const FORGET_MOST: u32 = 1000;
/// A row that was asked for is given a new time only when it is older than that: a mail that goes round often is not
/// written about each time.
const RENEW: Duration = Duration::from_secs(86_400);

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decided {
    /// It is in the mailbox.
    Kept,
    /// It went to the quarantine.
    Turned(Why),
}

impl Decided {
    fn code(self) -> i64 {
        match self {
            Self::Kept => 0,
            Self::Turned(Why::Full) => 1,
            Self::Turned(Why::Removed) => 2,
        }
    }

    fn of(code: i64) -> Self {
        match code {
            0 => Self::Kept,
            2 => Self::Turned(Why::Removed),
            _ => Self::Turned(Why::Full),
        }
    }
}

/// What was decided before, if anything was.
pub(super) fn before(
    transaction: &Transaction<'_>,
    mail: &[u8; 16],
    target: &str,
    now: Millis,
) -> rusqlite::Result<Option<Decided>> {
    let known = "SELECT turned, at FROM delivered WHERE mail = ? AND target = ?";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let known: Option<(i64, i64)> =
        transaction.prepare_cached(known)?.query_row(params![mail, target], read).optional()?;
    let Some((turned, at)) = known else { return Ok(None) };
    if at < ago(now, RENEW) {
        let renew = "UPDATE delivered SET at = ? WHERE mail = ? AND target = ?";
        transaction.prepare_cached(renew)?.execute(params![number(now), mail, target])?;
    }
    Ok(Some(Decided::of(turned)))
}

/// Notes what is decided. A release changes what was decided before.
pub(super) fn note(
    transaction: &Transaction<'_>,
    mail: &[u8; 16],
    target: &str,
    decided: Decided,
    now: Millis,
) -> rusqlite::Result<()> {
    let note = "INSERT INTO delivered (mail, target, at, turned) VALUES (?, ?, ?, ?)
         ON CONFLICT (mail, target) DO UPDATE SET at = excluded.at, turned = excluded.turned";
    transaction.prepare_cached(note)?.execute(params![mail, target, number(now), decided.code()])?;
    Ok(())
}

/// Forgets some of what nobody has asked for since `keep`; says how many.
pub(super) fn forget(database: &Connection, now: Millis, keep: Duration) -> rusqlite::Result<usize> {
    let old = "DELETE FROM delivered WHERE (mail, target) IN
         (SELECT mail, target FROM delivered WHERE at < ? ORDER BY at LIMIT ?)";
    database.execute(old, params![ago(now, keep), FORGET_MOST])
}

fn number(at: Millis) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn ago(now: Millis, span: Duration) -> i64 {
    number(now).saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn day(number: u64) -> Millis {
        Millis(1_800_000_000_000 + number * 86_400_000)
    }

    fn open(folder: &tempfile::TempDir) -> Connection {
        super::super::schema::open_writer(&folder.path().join("shard.db"), day(0)).unwrap()
    }

    fn left(database: &Connection) -> u32 {
        database.query_row("SELECT count(*) FROM delivered", [], |row| row.get(0)).unwrap()
    }

    /// The mail arrived forty days before it was delivered: it was buried and replayed.
    #[test]
    fn an_old_mail_is_remembered_from_its_delivery_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = open(&folder);
        let transaction = database.transaction().unwrap();
        let mail = proto::MailId::new(day(0), 7).to_bytes();
        note(&transaction, &mail, "a@x", Decided::Kept, day(40)).unwrap();
        transaction.commit().unwrap();
        for (today, gone) in [(day(41), 0), (day(70), 0), (day(71), 1)] {
            assert_eq!(forget(&database, today, 30 * DAY).unwrap(), gone);
        }
        assert_eq!(left(&database), 0);
    }

    #[test]
    fn every_decision_is_read_as_it_was_written() {
        for decided in [Decided::Kept, Decided::Turned(Why::Full), Decided::Turned(Why::Removed)] {
            assert_eq!(Decided::of(decided.code()), decided);
        }
    }

    #[test]
    fn what_still_goes_round_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = open(&folder);
        let transaction = database.transaction().unwrap();
        note(&transaction, &[1; 16], "a@x", Decided::Kept, day(0)).unwrap();
        note(&transaction, &[1; 16], "b@x", Decided::Turned(Why::Full), day(0)).unwrap();
        assert_eq!(before(&transaction, &[1; 16], "a@x", day(29)).unwrap(), Some(Decided::Kept));
        assert_eq!(before(&transaction, &[2; 16], "a@x", day(29)).unwrap(), None);
        transaction.commit().unwrap();
        assert_eq!(forget(&database, day(31), 30 * DAY).unwrap(), 1);
        let transaction = database.transaction().unwrap();
        assert_eq!(before(&transaction, &[1; 16], "a@x", day(31)).unwrap(), Some(Decided::Kept));
        assert_eq!(before(&transaction, &[1; 16], "b@x", day(31)).unwrap(), None);
    }
}
