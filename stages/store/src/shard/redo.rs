//! Small batches cost one sync, not two: their records lie in the database as well as in the pack, and the sync of the
//! commit is theirs. The pack is synced later, for many batches at once or when some time has passed, and the rows of
//! `redo` go.
//!
//! What a loss of power leaves: bytes that were appended to the pack may be missing or be zeros there, and then their
//! rows in `redo` are in the database. The start writes them where they were, before anything reads or appends. It may
//! do so any number of times.
//!
//! When a sync fails, what the kernel was to write may be gone from its memory, too: the rows are written again before
//! the next records.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rusqlite::{Connection, params};

use crate::pack::{self, Current, Place};

/// Bytes of a batch whose records go into the database: beyond that, writing them twice costs more than a sync.
const BATCH: usize = 64 * 1024;
/// Bytes of a pack that are not synced, at most: so much is written again after a loss of power.
const MOST: i64 = 1024 * 1024;

/// A pack is synced when something in it has not been for so long. The kernel writes by itself after some 30 seconds,
/// and that it could not is told with the next sync alone: nobody would hear of it while no mail comes.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// Whether a pack must be synced, though nothing may be there to append.
pub(super) fn is_due(pack: &Current) -> bool {
    pack.unsynced_since.is_some_and(|since| since.elapsed() >= LONGEST)
}

/// Appends a batch's records to the pack, so that they are there once the transaction is committed. A pack that is full
/// with them, for its limit, is synced, and so is one in which some have not been for long.
pub(super) fn append(pack: &mut Current, transaction: &Connection, records: &[u8], limit: i64) -> anyhow::Result<()> {
    let length = i64::try_from(records.len())?;
    if pack.is_suspect {
        replay(transaction, &pack.folder)?;
    }
    if is_due(pack) || records.len() > BATCH || pack.unsynced + length > MOST || pack.length + length >= limit {
        pack.append(records).context("appending to the pack")?;
        transaction.prepare_cached("DELETE FROM redo")?.execute([])?;
        return Ok(());
    }
    let place = (pack.number, pack.length);
    pack.append_unsynced(records).context("appending to the pack")?;
    let note = "INSERT INTO redo (pack, offset, records) VALUES (?, ?, ?)";
    transaction.prepare_cached(note)?.execute(params![place.0, place.1, records])?;
    Ok(())
}

/// Writes what is in the database into the packs, and syncs them. A pack that is not there is no matter if all that was
/// in it has moved to another.
///
/// # Errors
/// When a pack cannot be written, or is not there and bodies are in it: its folder may not be the right one.
pub(super) fn replay(database: &Connection, packs: &Path) -> anyhow::Result<()> {
    let mut files: BTreeMap<i64, Option<File>> = BTreeMap::new();
    let mut rows = database.prepare("SELECT pack, offset, records FROM redo ORDER BY rowid")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (number, offset): (i64, i64) = (row.get(0)?, row.get(1)?);
        let path = pack::path(packs, number);
        let named = || format!("writing {} again", path.display());
        let file = match files.entry(number) {
            Entry::Occupied(file) => file.into_mut(),
            Entry::Vacant(none) => none.insert(existing(database, number, &path).with_context(named)?),
        };
        if let Some(file) = file {
            file.write_all_at(row.get_ref(2)?.as_blob()?, u64::try_from(offset)?).with_context(named)?;
        }
    }
    for (number, file) in files {
        if let Some(file) = file {
            file.sync_all().with_context(|| format!("syncing pack {number}"))?;
        }
    }
    Ok(())
}

fn existing(database: &Connection, number: i64, path: &Path) -> anyhow::Result<Option<File>> {
    match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if database.prepare("SELECT 1 FROM bodies WHERE pack = ?")?.exists([number])? {
                bail!("it is not there, and mail is in it: is its folder the right one, and mounted?");
            }
            Ok(None)
        }
        file => Ok(Some(file?)),
    }
}

/// Whether the record of a body is in the database, and sound.
///
/// # Errors
/// When the database cannot be read.
pub(crate) fn holds(database: &Connection, place: Place, digest: &[u8; 32]) -> rusqlite::Result<bool> {
    let find = "SELECT substr(records, ?2 - offset + 1, ?3) FROM redo
         WHERE pack = ?1 AND offset <= ?2 AND offset + length(records) >= ?2 + ?3";
    let mut find = database.prepare_cached(find)?;
    let mut records = find.query_map(params![place.pack, place.offset, place.length], |row| row.get(0))?;
    records.try_fold(false, |found, record: rusqlite::Result<Vec<u8>>| {
        Ok(found || pack::body(&record?.into()).is_ok_and(|body| blake3::hash(&body).as_bytes() == digest))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A pack and the database beside it.
    struct Place {
        folder: tempfile::TempDir,
        database: Connection,
        pack: Current,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let database = Connection::open_in_memory().unwrap();
            let tables = "CREATE TABLE redo (pack INTEGER NOT NULL, offset INTEGER NOT NULL, records BLOB NOT NULL);
                 CREATE TABLE bodies (pack INTEGER NOT NULL)";
            database.execute_batch(tables).unwrap();
            let pack = Current::open_last(folder.path(), 1).unwrap();
            Self { folder, database, pack }
        }

        fn append(&mut self, records: &[u8], limit: i64) {
            append(&mut self.pack, &self.database, records, limit).unwrap();
        }

        fn rows(&self) -> i64 {
            self.database.query_row("SELECT count(*) FROM redo", [], |row| row.get(0)).unwrap()
        }

        fn file(&self) -> Vec<u8> {
            std::fs::read(pack::path(self.folder.path(), 1)).unwrap()
        }

        /// What was not synced is lost but for some zeros.
        fn lose_power(&mut self) {
            let length = u64::try_from(self.pack.length - self.pack.unsynced).unwrap();
            let file = OpenOptions::new().write(true).open(pack::path(self.folder.path(), 1)).unwrap();
            file.set_len(length).unwrap();
            file.set_len(length + 2).unwrap();
        }
    }

    #[test]
    fn what_was_not_synced_is_written_again() {
        let mut place = Place::new();
        place.append(&[b'x'; BATCH + 1], i64::MAX);
        place.append(b"one", i64::MAX);
        place.append(b"another", i64::MAX);
        let want = place.file();
        assert!(want.ends_with(b"xoneanother"));
        place.lose_power();
        assert_ne!(place.file(), want);
        for _ in 0..2 {
            replay(&place.database, place.folder.path()).unwrap();
            assert_eq!(place.file(), want);
        }
        assert_eq!(Current::open_last(place.folder.path(), 1).unwrap().length, place.pack.length);
    }

    #[test]
    fn what_is_synced_needs_no_rows() {
        let mut place = Place::new();
        // Bytes, the limit of the pack, and the rows that are there then.
        for (length, limit, rows) in [
            (1, i64::MAX, 1),
            (BATCH, i64::MAX, 2),
            (BATCH + 1, i64::MAX, 0),
            (10, i64::MAX, 1),
            (10, place.pack.length + 2 * BATCH as i64 + 22, 0),
        ] {
            place.append(&vec![b'x'; length], limit);
            assert_eq!(place.rows(), rows, "{length} {limit}");
        }
        let most = MOST / BATCH as i64;
        for batch in 1..=most + 1 {
            place.append(&[b'x'; BATCH], i64::MAX);
            assert_eq!(place.rows(), batch % (most + 1), "{batch}");
        }
        assert_eq!(place.pack.unsynced, 0);
    }

    #[test]
    fn what_is_not_synced_for_long_is_with_the_next() {
        let mut place = Place::new();
        place.append(b"one", i64::MAX);
        place.append(b"two", i64::MAX);
        assert!(!is_due(&place.pack));
        place.pack.unsynced_since = place.pack.unsynced_since.unwrap().checked_sub(LONGEST);
        assert!(is_due(&place.pack));
        place.append(b"three", i64::MAX);
        assert_eq!((place.rows(), place.pack.unsynced, is_due(&place.pack)), (0, 0, false));
        place.append(b"four", i64::MAX);
        assert_eq!((place.rows(), is_due(&place.pack)), (1, false), "it counts from the first that is not synced");
    }

    #[test]
    fn a_pack_that_is_gone_stays_gone() {
        let mut place = Place::new();
        place.append(b"one", i64::MAX);
        let path = pack::path(place.folder.path(), 1);
        std::fs::remove_file(&path).unwrap();
        replay(&place.database, place.folder.path()).unwrap();
        assert!(!path.exists());
        place.database.execute("INSERT INTO bodies (pack) VALUES (1)", []).unwrap();
        let error = format!("{:#}", replay(&place.database, place.folder.path()).unwrap_err());
        assert!(error.contains("000001.pack again: it is not there, and mail is in it"), "{error}");
    }

    #[test]
    fn a_record_is_found_among_others() {
        let mut place = Place::new();
        let bodies = [&b"first"[..], b"second", b"third"];
        let digest = |body: &[u8]| *blake3::hash(body).as_bytes();
        let records: Vec<_> = bodies.iter().map(|body| pack::record(body, &digest(body))).collect();
        place.append(&records.concat(), i64::MAX);
        let mut offset = 0;
        for (record, body) in records.iter().zip(bodies) {
            let length = i64::try_from(record.len()).unwrap();
            let there = super::Place { pack: 1, offset, length };
            assert_eq!(holds(&place.database, there, &digest(body)), Ok(true));
            assert_eq!(holds(&place.database, there, &digest(b"other")), Ok(false));
            assert_eq!(holds(&place.database, super::Place { pack: 2, ..there }, &digest(body)), Ok(false));
            assert_eq!(holds(&place.database, super::Place { length: 1 << 40, ..there }, &digest(body)), Ok(false));
            offset += length;
        }
    }
}
