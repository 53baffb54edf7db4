//! The text index of a shard: a database of its own, `search.db`, with a filter for every body.
//!
//! It only spares work: what a filter rules out need not be read, all else is. A body without a filter, or whose filter
//! is not the one that was made of it, is read; so whatever is missing here, or stale, costs time and nothing else.
//! When the database is damaged it is thrown away, and filled anew.
//!
//! A filter for each body, not lists of bodies for each word: a shard has the mail of very many accounts, and a search
//! must not pay for the others'. A body that goes takes one row with it. Measured with mails of 4 KB, a filter and its
//! row take 400 bytes and 30 us, reading the mail included; FTS5 with trigrams, which keeps such lists, took 1,640
//! bytes (without positions) and 570 us.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

/// Raised when filters are made in another way: those there are then thrown away.
const FORM: i64 = 1;
/// Pages of the database's cache, in KiB, negative as SQLite wants it.
const CACHE: i64 = -2048;
/// Bytes of a filter's mark.
const MARK: usize = 8;

/// The database is neither in the way of the mail's own nor synced with each commit: what a crash costs of it is made
/// again.
const TABLES: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS filters (
    body INTEGER PRIMARY KEY,
    -- Of the body's digest and the filter: a row's number may be given again, and a disk may fail.
    mark BLOB NOT NULL,
    filter BLOB NOT NULL
);
";

/// A body: its row and its digest.
pub(crate) type Body = (i64, [u8; 32]);

/// The index. Closed, it knows nothing.
#[derive(Clone)]
pub(crate) struct Index {
    path: PathBuf,
    database: Arc<Mutex<Option<Connection>>>,
}

impl Index {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { path: folder.join("search.db"), database: Arc::default() }
    }

    /// Opens it, and makes it anew if it cannot be read.
    pub(crate) fn open(&self) -> anyhow::Result<()> {
        let mut database = self.lock();
        let opened = match open(&self.path) {
            Err(error) if is_damage(&error) => {
                tracing::warn!(database = %self.path.display(), error = format!("{error:#}"), "a text index cannot be \
                                                                                               read: it is made anew");
                remove(&self.path)?;
                open(&self.path)
            }
            opened => opened,
        };
        *database = Some(opened?);
        Ok(())
    }

    /// Throws it away: it is not wanted.
    pub(crate) fn discard(&self) -> anyhow::Result<()> {
        let mut database = self.lock();
        *database = None;
        remove(&self.path)
    }

    /// Whether it may know anything.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Hands out the filters of bodies, none for those that have none. Gives up when the index is closed or fails: then
    /// the rest has none.
    pub(crate) fn look(&self, bodies: impl Iterator<Item = Body>, mut take: impl FnMut(Option<&[u8]>)) {
        let mut bodies = bodies.peekable();
        let looked = self.with(|database| {
            let mut filter = database.prepare_cached("SELECT mark, filter FROM filters WHERE body = ?")?;
            while let Some((body, digest)) = bodies.peek() {
                let mut rows = filter.query([body])?;
                match rows.next()? {
                    Some(row) => {
                        let found = row.get_ref(1)?.as_blob().unwrap_or_default();
                        let is_right = row.get_ref(0)?.as_blob().is_ok_and(|was| was == mark(digest, found));
                        take(is_right.then_some(found));
                    }
                    None => take(None),
                }
                bodies.next();
            }
            Ok(())
        });
        if let Err(error) = looked {
            tracing::warn!(error = format!("{error:#}"), "a text index does not answer: texts are read instead");
        }
        bodies.for_each(|_| take(None));
    }

    /// The last body that has a filter; 0 if none has.
    pub(crate) fn last(&self) -> anyhow::Result<i64> {
        let last = self.with(|database| database.query_row("SELECT max(body) FROM filters", [], |row| row.get(0)))?;
        Ok(last.flatten().unwrap_or(0))
    }

    /// Of the bodies behind one row and up to another, by their rows: whether it has its filter. The filters of others
    /// there go; says how many.
    pub(crate) fn compare(&self, behind: i64, to: i64, bodies: &[Body]) -> anyhow::Result<(Vec<bool>, usize)> {
        let compared = self.with(|database| {
            let mut known = vec![false; bodies.len()];
            let mut dead = Vec::new();
            let sql = "SELECT body, mark, filter FROM filters WHERE body > ? AND body <= ?";
            let mut filters = database.prepare_cached(sql)?;
            let mut rows = filters.query([behind, to])?;
            while let Some(row) = rows.next()? {
                let body: i64 = row.get(0)?;
                let (was, filter) =
                    (row.get_ref(1)?.as_blob().unwrap_or_default(), row.get_ref(2)?.as_blob().unwrap_or_default());
                match bodies.binary_search_by_key(&body, |(body, _)| *body) {
                    Ok(at) if was == mark(&bodies[at].1, filter) => known[at] = true,
                    _ => dead.push(body),
                }
            }
            for body in &dead {
                database.prepare_cached("DELETE FROM filters WHERE body = ?")?.execute([body])?;
            }
            Ok((known, dead.len()))
        })?;
        Ok(compared.unwrap_or_else(|| (vec![true; bodies.len()], 0)))
    }

    /// Keeps filters.
    pub(crate) fn keep(&self, filters: &[(Body, Vec<u8>)]) -> anyhow::Result<()> {
        self.with(|database| {
            let transaction = database.unchecked_transaction()?;
            for ((body, digest), filter) in filters {
                let sql = "INSERT INTO filters (body, mark, filter) VALUES (?, ?, ?)
                     ON CONFLICT (body) DO UPDATE SET mark = excluded.mark, filter = excluded.filter";
                transaction.prepare_cached(sql)?.execute(params![body, mark(digest, filter), filter])?;
            }
            transaction.commit()
        })?;
        Ok(())
    }

    /// Does something with the database; none if it is closed. What turns out to be damaged is thrown away.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<Option<T>> {
        let mut database = self.lock();
        let Some(open) = database.as_ref() else { return Ok(None) };
        let done = work(open).with_context(|| format!("in {}", self.path.display()));
        if let Err(error) = &done
            && is_damage(error)
        {
            tracing::warn!(database = %self.path.display(), error = format!("{error:#}"), "a text index is damaged: it \
                                                                                           is made anew");
            *database = None;
            remove(&self.path)?;
            *database = Some(self::open(&self.path)?);
        }
        done.map(Some)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> anyhow::Result<Connection> {
    let named = || format!("opening {}", path.display());
    let database = Connection::open(path).with_context(named)?;
    database.pragma_update(None, "cache_size", CACHE).with_context(named)?;
    database.set_prepared_statement_cache_capacity(8);
    let form: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0)).with_context(named)?;
    if form != 0 && form != FORM {
        tracing::info!(database = %path.display(), "a text index of another form is made anew");
        drop(database);
        remove(path)?;
        return open(path);
    }
    database.execute_batch(&format!("{TABLES}PRAGMA user_version = {FORM};COMMIT;")).with_context(named)?;
    // It has to be the table that is expected.
    let any = database.query_row("SELECT body, mark, filter FROM filters LIMIT 1", [], |_| Ok(()));
    any.optional().with_context(named)?;
    Ok(database)
}

/// Whether trying again would not help.
fn is_damage(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    for end in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", Path::new(&file).display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn mark(digest: &[u8; 32], filter: &[u8]) -> [u8; MARK] {
    let mut mark = [0; MARK];
    blake3::Hasher::new().update(digest).update(filter).finalize_xof().fill(&mut mark);
    mark
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ONE: Body = (1, [1; 32]);
    const TWO: Body = (2, [2; 32]);

    fn look(index: &Index, bodies: &[Body]) -> Vec<Option<Vec<u8>>> {
        let mut found = Vec::new();
        index.look(bodies.iter().copied(), |filter| found.push(filter.map(<[u8]>::to_vec)));
        found
    }

    fn filled(folder: &Path) -> Index {
        let index = Index::new(folder);
        index.open().unwrap();
        index.keep(&[(ONE, vec![1]), (TWO, vec![2])]).unwrap();
        index
    }

    #[test]
    fn a_filter_is_that_of_its_body() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::new(folder.path());
        assert_eq!(look(&index, &[ONE]), [None], "it is closed");
        let index = filled(folder.path());
        assert_eq!(look(&index, &[TWO, (3, [3; 32]), ONE]), [Some(vec![2]), None, Some(vec![1])]);
        assert_eq!(look(&index, &[(2, [3; 32])]), [None], "the row's number was given again");
        assert_eq!(index.last().unwrap(), 2);
        assert_eq!(index.compare(0, 9, &[(1, [3; 32]), TWO]).unwrap(), (vec![false, true], 1));
        assert_eq!(look(&index, &[ONE, TWO]), [None, Some(vec![2])]);
        drop(index);
        let index = Index::new(folder.path());
        index.open().unwrap();
        assert_eq!(look(&index, &[ONE, TWO]), [None, Some(vec![2])]);
        index.discard().unwrap();
        assert!(!folder.path().join("search.db").exists());
    }

    #[test]
    fn a_damaged_filter_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let index = filled(folder.path());
        index.with(|database| database.execute("UPDATE filters SET filter = x'ff' WHERE body = 1", [])).unwrap();
        assert_eq!(look(&index, &[ONE, TWO]), [None, Some(vec![2])]);
    }

    #[test]
    fn a_damaged_database_is_made_anew() {
        for damage in [&b"this is no database, whatever its name may say"[..], b"SQLite format 3\0 nor is this"] {
            let folder = tempfile::tempdir().unwrap();
            drop(filled(folder.path()));
            fs::write(folder.path().join("search.db"), damage).unwrap();
            let index = Index::new(folder.path());
            index.open().unwrap();
            assert_eq!(look(&index, &[ONE]), [None]);
            index.keep(&[(ONE, vec![1])]).unwrap();
            assert_eq!(look(&index, &[ONE]), [Some(vec![1])]);
        }
    }

    #[test]
    fn a_database_that_is_damaged_while_it_is_open_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("search.db");
        let index = filled(folder.path());
        index.with(|database| database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))).unwrap();
        drop(index);
        let index = Index::new(folder.path());
        index.open().unwrap();
        index.with(|database| database.execute_batch("PRAGMA cache_size = 0; PRAGMA shrink_memory")).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[4096..].fill(0x5a);
        fs::write(&path, bytes).unwrap();
        assert_eq!(look(&index, &[ONE, TWO]), [None, None]);
        index.keep(&[(TWO, vec![2])]).unwrap();
        assert_eq!(look(&index, &[ONE, TWO]), [None, Some(vec![2])]);
    }
}
