//! The writer's part of rewriting packs: sound records move into the current pack, and a pack that no row names goes.
//!
//! What a crash leaves, step by step:
//! - records appended, their rows not committed: bytes that no row names, in a pack that lives on. The old pack still
//!   has
//!   all of it.
//! - some rows moved: the rest lies where it lay. The next look goes on from there.
//! - dead rows deleted, the pack not retired: nothing named them.
//! - the pack retired, its file there: the row in `retired` says so, and the start removes it. Only such a row removes
//!   a
//!   file. One that the rows merely do not know may belong to a newer database than the one that was restored.
//! - the file gone, the row there: the start finds nothing and deletes the row.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use rusqlite::{Connection, params};

use super::StoreError;
use super::writer::Gathering;
use crate::pack::{self, Place};

/// Rows that are deleted in one go, so that deliveries do not wait for it.
const CLEAR_MOST: u32 = 1000;

/// What the writer is asked to do about packs.
pub(crate) enum Sweep {
    /// Sound records go into the current pack.
    Carry(Vec<Carried>),
    /// Rows of dead bodies go out of a pack, and the pack is retired when no row names it any more.
    Clear(i64),
    /// The file of a retired pack is gone.
    Removed(i64),
}

/// A body's record, read and found sound.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) id: i64,
    pub(crate) digest: [u8; 32],
    pub(crate) place: Place,
    pub(crate) record: Bytes,
}

impl Gathering<'_> {
    /// For `Carry` how many rows moved; for `Clear` how many still name the pack.
    pub(super) fn sweep(&mut self, sweep: &Sweep) -> rusqlite::Result<Result<u64, StoreError>> {
        match sweep {
            Sweep::Carry(all) => {
                let mut moved = 0;
                for carried in all {
                    moved += u64::from(self.carry(carried)?);
                }
                Ok(Ok(moved))
            }
            Sweep::Clear(pack) => self.clear(*pack),
            Sweep::Removed(pack) => {
                self.transaction.prepare_cached("DELETE FROM retired WHERE pack = ?")?.execute([pack])?;
                Ok(Ok(0))
            }
        }
    }

    /// Moves a body, unless its row says something else by now.
    fn carry(&mut self, carried: &Carried) -> rusqlite::Result<bool> {
        let Carried { id, digest, place, record } = carried;
        let new = self.next_place(record.len());
        let update = "UPDATE bodies SET pack = ?, offset = ?, length = ?
             WHERE id = ? AND pack = ? AND offset = ? AND refs != 0";
        let row = params![new.pack, new.offset, new.length, id, place.pack, place.offset];
        let is_moved = self.transaction.prepare_cached(update)?.execute(row)? > 0;
        if is_moved {
            self.records.extend_from_slice(record);
            // It is not on the disk yet, where a delivery of this batch would look for it.
            self.sound.insert(*digest, *id);
        }
        Ok(is_moved)
    }

    fn clear(&mut self, pack: i64) -> rusqlite::Result<Result<u64, StoreError>> {
        // What is written to still must not go, whoever asks.
        if pack >= self.pack.0 {
            return Ok(Err(StoreError::Failed(format!("pack {pack} is not sealed"))));
        }
        let clear = "DELETE FROM bodies WHERE id IN (SELECT id FROM bodies WHERE pack = ? AND refs = 0 LIMIT ?)";
        self.transaction.prepare_cached(clear)?.execute(params![pack, CLEAR_MOST])?;
        // A delivery of this batch must not refer to a row that has just gone.
        let mut is_there = self.transaction.prepare_cached("SELECT 1 FROM bodies WHERE id = ?")?;
        let mut sound = std::mem::take(&mut self.sound);
        for (digest, id) in sound.drain() {
            if is_there.exists([id])? {
                self.sound.insert(digest, id);
            }
        }
        let count = "SELECT count(*) FROM bodies WHERE pack = ?";
        let left: i64 = self.transaction.prepare_cached(count)?.query_row([pack], |row| row.get(0))?;
        if left == 0 {
            let retire = "INSERT INTO retired (pack) VALUES (?) ON CONFLICT DO NOTHING";
            self.transaction.prepare_cached(retire)?.execute([pack])?;
        }
        Ok(Ok(left.unsigned_abs()))
    }
}

/// Removes the files of retired packs that a crash left behind.
pub(super) fn finish(database: &Connection, packs: &Path) -> anyhow::Result<()> {
    let unnamed = "SELECT pack FROM retired WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE bodies.pack = retired.pack)";
    let mut retired = database.prepare(unnamed)?;
    let retired = retired.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    for pack in retired {
        remove(packs, pack)?;
        database.execute("DELETE FROM retired WHERE pack = ?", [pack])?;
    }
    Ok(())
}

/// Removes a pack's file. Readers who have it open read on; who comes later finds a row that names another.
pub(crate) fn remove(packs: &Path, number: i64) -> anyhow::Result<()> {
    let path = pack::path(packs, number);
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    // Where the folder is gone as well, there is nothing to sync.
    let synced = || match File::open(packs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        folder => folder?.sync_all(),
    };
    removed.and_then(|()| synced()).with_context(|| format!("removing {}", path.display()))
}
