//! What was delivered already: one row for each mail and target, kept for `delivered_for` from when it was last asked for.
//!
//! Not from the arrival of the mail: one that was buried for weeks and is replayed is old when it is delivered, and may go
//! round again. When a row cannot be forgotten it stays; a mail that is delivered twice cannot be taken back.

use std::time::Duration;

use proto::Millis;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

/// Ids that are forgotten in one go, so that deliveries do not wait for it: a million a day from each shard.
const FORGET_MOST: u32 = 1000;
/// A row that was asked for is given a new time only when it is older than that: a mail that goes round often is not
/// written about each time.
const RENEW: Duration = Duration::from_secs(86_400);

/// Whether the target has the mail.
pub(super) fn is_known(
    transaction: &Transaction<'_>,
    mail: &[u8; 16],
    target: &str,
    now: Millis,
) -> rusqlite::Result<bool> {
    let known = "SELECT at FROM delivered WHERE mail = ? AND target = ?";
    let at: Option<i64> =
        transaction.prepare_cached(known)?.query_row(params![mail, target], |row| row.get(0)).optional()?;
    let Some(at) = at else { return Ok(false) };
    if at < before(now, RENEW) {
        let renew = "UPDATE delivered SET at = ? WHERE mail = ? AND target = ?";
        transaction.prepare_cached(renew)?.execute(params![number(now), mail, target])?;
    }
    Ok(true)
}

/// Notes that the target has the mail.
pub(super) fn note(transaction: &Transaction<'_>, mail: &[u8; 16], target: &str, now: Millis) -> rusqlite::Result<()> {
    let insert = "INSERT INTO delivered (mail, target, at, turned) VALUES (?, ?, ?, 0)";
    transaction.prepare_cached(insert)?.execute(params![mail, target, number(now)])?;
    Ok(())
}

/// Forgets some of what nobody has asked for since `keep`; says how many.
pub(super) fn forget(database: &Connection, now: Millis, keep: Duration) -> rusqlite::Result<usize> {
    let old = "DELETE FROM delivered WHERE (mail, target) IN
         (SELECT mail, target FROM delivered WHERE at < ? ORDER BY at LIMIT ?)";
    database.execute(old, params![before(now, keep), FORGET_MOST])
}

fn number(at: Millis) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn before(now: Millis, span: Duration) -> i64 {
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
        note(&transaction, &mail, "a@x", day(40)).unwrap();
        transaction.commit().unwrap();
        for (today, gone) in [(day(41), 0), (day(70), 0), (day(71), 1)] {
            assert_eq!(forget(&database, today, 30 * DAY).unwrap(), gone);
        }
        assert_eq!(left(&database), 0);
    }

    #[test]
    fn what_still_goes_round_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = open(&folder);
        let transaction = database.transaction().unwrap();
        note(&transaction, &[1; 16], "a@x", day(0)).unwrap();
        note(&transaction, &[1; 16], "b@x", day(0)).unwrap();
        assert!(is_known(&transaction, &[1; 16], "a@x", day(29)).unwrap());
        assert!(!is_known(&transaction, &[2; 16], "a@x", day(29)).unwrap());
        transaction.commit().unwrap();
        assert_eq!(forget(&database, day(31), 30 * DAY).unwrap(), 1);
        let transaction = database.transaction().unwrap();
        assert!(is_known(&transaction, &[1; 16], "a@x", day(31)).unwrap());
    }
}
