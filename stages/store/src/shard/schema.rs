//! A shard's database: everything about its mail that is small.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rusqlite::{Connection, OpenFlags};

/// Raised with every change of the tables.
const VERSION: i64 = 1;
/// Pages of a connection's cache, in KiB, negative as SQLite wants it.
const CACHE: i64 = -4096;

const TABLES: &str = "
CREATE TABLE mailboxes (
    id INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    name TEXT NOT NULL,
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1,
    modseq INTEGER NOT NULL DEFAULT 1,
    messages INTEGER NOT NULL DEFAULT 0,
    unseen INTEGER NOT NULL DEFAULT 0,
    special_use TEXT NOT NULL DEFAULT '',
    subscribed INTEGER NOT NULL DEFAULT 1,
    UNIQUE (account, name)
);
-- What an account takes up.
CREATE TABLE accounts (
    account INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL,
    messages INTEGER NOT NULL
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
-- What was delivered, so that it is not delivered again.
CREATE TABLE delivered (
    mail BLOB NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (mail, target)
) WITHOUT ROWID;
CREATE TABLE tombstones (
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)
) WITHOUT ROWID;
";

/// Opens the database for its one writer, and makes its tables on the first occasion.
pub(crate) fn open_writer(path: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(path).with_context(|| format!("opening {}", path.display()))?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A commit is synced: what is told as stored is on the disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => connection.execute_batch(&format!("BEGIN;{TABLES}PRAGMA user_version = {VERSION};COMMIT;"))?,
        VERSION => {}
        other => bail!("{} has version {other}; this program knows {VERSION}", path.display()),
    }
    Ok(connection)
}

/// Opens the database for reading: its snapshots never wait for the writer.
pub(crate) fn open_reader(path: &Path) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).with_context(|| format!("opening {}", path.display()))?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}
