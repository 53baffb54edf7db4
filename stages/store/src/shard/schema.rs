//! A shard's database: everything about its mail that is small.
//!
//! A database of an earlier version is brought to this one when its writer opens it, in one transaction: it is of the
//! one version or of the other, whenever that breaks off. One of a later version is refused.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use proto::Millis;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Raised with every change of the tables.
pub(crate) const VERSION: i64 = 3;
/// Pages of a connection's cache, in KiB, negative as SQLite wants it.
const CACHE: i64 = -4096;

const TABLES: &str = "
CREATE TABLE mailboxes (
    -- Never given twice: readers that still hold the number of a mailbox that was deleted must not meet another.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL,
    name TEXT NOT NULL,
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1,
    modseq INTEGER NOT NULL DEFAULT 1,
    messages INTEGER NOT NULL DEFAULT 0,
    unseen INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    special_use TEXT NOT NULL DEFAULT '',
    UNIQUE (account, name)
);
-- What an account takes up, and the last UIDVALIDITY that one of its mailboxes was given.
CREATE TABLE accounts (
    account INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    uidvalidity INTEGER NOT NULL DEFAULT 0
);
-- Names that a reader wants to see; their mailboxes need not be there (RFC 3501 section 6.3.6).
CREATE TABLE subscriptions (
    account INTEGER NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;
-- Mailboxes that were deleted, until the rows of their messages are gone.
CREATE TABLE doomed (
    mailbox INTEGER PRIMARY KEY
);
CREATE TABLE bodies (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    pack INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    refs INTEGER NOT NULL
);
CREATE TABLE messages (
    mailbox INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    body INTEGER NOT NULL,
    -- Bytes of prefix and body together.
    size INTEGER NOT NULL,
    -- Milliseconds since 1970.
    received INTEGER NOT NULL,
    -- As it came; for what readers have changed since, see `marks`.
    flags INTEGER NOT NULL,
    keywords TEXT NOT NULL,
    -- Header lines of this copy alone, before the body.
    prefix BLOB NOT NULL,
    mail BLOB NOT NULL,
    -- Why it is held, and for whom; empty for all other mail.
    held TEXT NOT NULL,
    held_for TEXT NOT NULL,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;
-- What was delivered or turned away, so that it is not delivered again.
CREATE TABLE delivered (
    mail BLOB NOT NULL,
    target TEXT NOT NULL,
    -- When that was, in milliseconds since 1970. A mail may be much older: it may have been buried.
    at INTEGER NOT NULL,
    -- Why it was turned away, and went to the quarantine; 0: it is in the mailbox.
    turned INTEGER NOT NULL,
    PRIMARY KEY (mail, target)
) WITHOUT ROWID;
CREATE INDEX delivered_by_age ON delivered (at);
CREATE TABLE tombstones (
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)
) WITHOUT ROWID;
CREATE INDEX bodies_by_pack ON bodies (pack);
-- Packs that no row names any more, until their files are gone.
CREATE TABLE retired (
    pack INTEGER PRIMARY KEY
);
-- Flags as readers have left them: a block for some UIDs, as marks.rs writes it, and the highest MODSEQ in it.
CREATE TABLE marks (
    mailbox INTEGER NOT NULL,
    block INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    marks BLOB NOT NULL,
    PRIMARY KEY (mailbox, block)
) WITHOUT ROWID;
CREATE INDEX marks_by_modseq ON marks (mailbox, modseq);
CREATE TRIGGER marks_go AFTER DELETE ON mailboxes BEGIN
    DELETE FROM marks WHERE mailbox = old.id;
    DELETE FROM tombstones WHERE mailbox = old.id;
END;
-- What is kept of a body's text, for clients that list mailboxes: see outlines.rs. It goes with the body's row.
CREATE TABLE outlines (
    body INTEGER PRIMARY KEY,
    outline BLOB NOT NULL
);
CREATE TRIGGER outlines_go AFTER DELETE ON bodies BEGIN
    DELETE FROM outlines WHERE body = old.id;
END;
-- Records that lie in their packs, but may not be on the disk there: see redo.rs.
CREATE TABLE redo (
    pack INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    records BLOB NOT NULL
);
";

/// From version 1. It did not say when something was delivered: that is remembered from this moment on, so nothing is
/// forgotten too soon. The default is a number, so that the rows themselves need not be written.
fn second(now: Millis) -> String {
    format!(
        "ALTER TABLE delivered ADD COLUMN at INTEGER NOT NULL DEFAULT {};
         ALTER TABLE delivered ADD COLUMN turned INTEGER NOT NULL DEFAULT 0;
         CREATE INDEX delivered_by_age ON delivered (at);
         CREATE INDEX bodies_by_pack ON bodies (pack);
         CREATE TABLE retired (pack INTEGER PRIMARY KEY);",
        now.0
    )
}

/// From version 2, where flags were written into the messages' rows: they stay there until they change. What is kept of
/// texts is made when it is asked for.
fn third() -> &'static str {
    "CREATE TABLE marks (
         mailbox INTEGER NOT NULL,
         block INTEGER NOT NULL,
         modseq INTEGER NOT NULL,
         marks BLOB NOT NULL,
         PRIMARY KEY (mailbox, block)
     ) WITHOUT ROWID;
     CREATE INDEX marks_by_modseq ON marks (mailbox, modseq);
     CREATE TRIGGER marks_go AFTER DELETE ON mailboxes BEGIN
         DELETE FROM marks WHERE mailbox = old.id;
         DELETE FROM tombstones WHERE mailbox = old.id;
     END;
     CREATE TABLE outlines (body INTEGER PRIMARY KEY, outline BLOB NOT NULL);
     CREATE TRIGGER outlines_go AFTER DELETE ON bodies BEGIN
         DELETE FROM outlines WHERE body = old.id;
     END;
     CREATE TABLE redo (pack INTEGER NOT NULL, offset INTEGER NOT NULL, records BLOB NOT NULL);"
}

/// From version 2. There the mailboxes of an account had one UIDVALIDITY between them, which must not be once they can
/// be renamed: all but the INBOX get one of their own.
const THIRD: &str = "
CREATE TABLE mailboxes_of_3 (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT \
                     NULL,
    name TEXT NOT NULL,
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL \
                     DEFAULT 1,
    modseq INTEGER NOT NULL DEFAULT 1,
    messages INTEGER NOT NULL DEFAULT 0,
    \
                     unseen INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT \
                     NULL DEFAULT 0,
    special_use TEXT NOT NULL DEFAULT '',
    UNIQUE (account, name)
);
INSERT \
                     INTO mailboxes_of_3
    SELECT id, account, name,
        CASE name WHEN 'INBOX' THEN \
                     uidvalidity
            ELSE max(uidvalidity) OVER (PARTITION BY account) + row_number() OVER \
                     (PARTITION BY account ORDER BY id) END,
        uidnext, modseq, messages, unseen,
        \
                     (SELECT coalesce(sum(flags >> 3 & 1), 0) FROM messages WHERE mailbox = id),
        (SELECT \
                     coalesce(sum(size), 0) FROM messages WHERE mailbox = id),
        special_use
    FROM \
                     mailboxes;
CREATE TABLE subscriptions (
    account INTEGER NOT NULL,
    name TEXT NOT NULL,
    \
                     PRIMARY KEY (account, name)
) WITHOUT ROWID;
INSERT INTO subscriptions SELECT account, name FROM \
                     mailboxes WHERE subscribed;
DROP TABLE mailboxes;
ALTER TABLE mailboxes_of_3 RENAME TO \
                     mailboxes;
ALTER TABLE accounts ADD COLUMN uidvalidity INTEGER NOT NULL DEFAULT 0;
INSERT INTO \
                     accounts (account, bytes, messages, uidvalidity)
    SELECT account, 0, 0, max(uidvalidity) FROM \
                     mailboxes WHERE true GROUP BY account
    ON CONFLICT (account) DO UPDATE SET uidvalidity = \
                     excluded.uidvalidity;
CREATE TABLE doomed (mailbox INTEGER PRIMARY KEY);
";

/// Opens the database for its one writer, makes its tables on the first occasion, and brings older ones up to date.
pub(crate) fn open_writer(path: &Path, now: Millis) -> anyhow::Result<Connection> {
    let connection = Connection::open(path).with_context(|| format!("opening {}", path.display()))?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A commit is synced: what is told as stored is on the disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let change = match version {
        0 => TABLES.to_owned(),
        1 => second(now) + THIRD + third(),
        2 => THIRD.to_owned() + third(),
        VERSION => return Ok(connection),
        other => bail!("{} has version {other}; this program knows {VERSION}", path.display()),
    };
    if version > 0 {
        tracing::info!(database = %path.display(), from = version, to = VERSION, "bringing a database up to date");
    }
    let change = format!("BEGIN IMMEDIATE;{change}PRAGMA user_version = {VERSION};COMMIT;");
    connection.execute_batch(&change).with_context(|| format!("bringing {} up to date", path.display()))?;
    Ok(connection)
}

/// Opens the database for reading: its snapshots never wait for the writer.
pub(crate) fn open_reader(path: &Path) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).with_context(|| format!("opening {}", path.display()))?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    // Whoever closes the database last would write what is committed into it; a reader leaves that to the writer.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Only an INBOX had a mailbox for itself; the others shared its UIDVALIDITY.
    const MAILBOXES: [&str; 3] = ["INBOX 1790000000 5 1", "INBOX 1790000000 5 1", "Junk 1790000002 0 0"];

    /// The tables of a database, and the columns of each.
    fn form(database: &Connection) -> Vec<(String, Vec<String>)> {
        let names = "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name";
        let mut names = database.prepare(names).unwrap();
        let names = names.query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<String>, _>>().unwrap();
        let columns = |name: &String| {
            let mut columns = database.prepare("SELECT name || type || pk FROM pragma_table_info(?)").unwrap();
            columns.query_map([name], |row| row.get(0)).unwrap().collect::<Result<Vec<String>, _>>().unwrap()
        };
        names.iter().map(|name| (name.clone(), columns(name))).collect()
    }

    #[test]
    fn a_database_of_version_1_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old.db"), folder.path().join("new.db"));
        Connection::open(&old).unwrap().execute_batch(include_str!("version_1.sql")).unwrap();
        let database = open_writer(&old, Millis(1_800_000_000_000)).unwrap();
        assert_eq!(form(&database), form(&open_writer(&new, Millis(0)).unwrap()));
        let rows = |mut rows: rusqlite::Statement<'_>| {
            rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<String>, _>>().unwrap()
        };
        let delivered = "SELECT target || ' ' || at || ' ' || turned FROM delivered ORDER BY target";
        assert_eq!(rows(database.prepare(delivered).unwrap()), ["a@x 1800000000000 0", "b@x 1800000000000 0"]);
        let mailboxes = "SELECT name || ' ' || uidvalidity || ' ' || bytes || ' ' ||
             EXISTS (SELECT 1 FROM subscriptions WHERE subscriptions.name = mailboxes.name) FROM mailboxes ORDER BY id";
        assert_eq!(rows(database.prepare(mailboxes).unwrap()), MAILBOXES);
        drop(database);
        let again = open_writer(&old, Millis(1_900_000_000_000)).unwrap();
        let kept = "SELECT count(*) FROM messages JOIN bodies ON bodies.id = body";
        assert_eq!(again.query_row(kept, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
    }

    /// Version 2 is what version 1 becomes by its own step.
    #[test]
    fn a_database_of_version_2_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old.db"), folder.path().join("new.db"));
        let database = Connection::open(&old).unwrap();
        database.execute_batch(include_str!("version_1.sql")).unwrap();
        database.execute_batch(&(second(Millis(7)) + "PRAGMA user_version = 2;")).unwrap();
        drop(database);
        let database = open_writer(&old, Millis(9)).unwrap();
        assert_eq!(form(&database), form(&open_writer(&new, Millis(0)).unwrap()));
        let delivered = "SELECT count(*) FROM delivered WHERE at = 7";
        assert_eq!(database.query_row(delivered, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
    }

    #[test]
    fn a_database_of_a_later_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.db");
        open_writer(&path, Millis(0)).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
        let error = open_writer(&path, Millis(0)).unwrap_err().to_string();
        assert!(error.contains("this program knows 3"), "{error}");
    }
}
