//! The books: what became of every recipient that was ever accepted here.
//!
//! Live segments are counted by what is in them. What segments that are gone have contributed stands in the file
//! `books`, which is replaced as a whole: a crash leaves the old or the new one. It also names the segments that it has
//! taken in, so that none is counted twice, and carries on the mails whose senders may not know that we have them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use proto::{MailId, Millis};
use serde::{Deserialize, Serialize};

use super::index::Doubt;
use super::record::Key;

/// Counts of recipients. At any moment, accepted = stored + held + rejected + buried + in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// Recipients of mails that were ever kept in the journal.
    pub accepted: u64,
    /// In a mailbox of their own.
    pub stored: u64,
    /// In the quarantine.
    pub held: u64,
    /// Refused in the session after all.
    pub rejected: u64,
    /// With the dead letters, or given up there by an operator.
    pub buried: u64,
    /// On their way.
    pub in_flight: u64,
}

impl Books {
    /// Whether every accepted recipient is accounted for.
    pub fn balanced(&self) -> bool {
        self.accepted == self.stored + self.held + self.rejected + self.buried + self.in_flight
    }

    /// Adds the counts of other books.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.stored += other.stored;
        self.held += other.held;
        self.rejected += other.rejected;
        self.buried += other.buried;
        self.in_flight += other.in_flight;
    }
}

/// A mail whose sender has not shown that it heard our 250.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unheard {
    pub(super) key: Doubt,
    pub(super) id: MailId,
    /// By what it is recognised for each recipient of several. In the file they stand behind the key, with the same id.
    pub(super) each: Vec<Doubt>,
}

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Of mails that arrived before, this journal may not know everything.
    pub(super) begun: Millis,
    /// With what the segments are written: it stands in their titles, too, which may be damaged.
    pub(super) key: Option<Key>,
    /// Counts of the segments that are gone.
    pub(super) books: Books,
    /// Segments that are counted here and whose files may still be there.
    pub(super) folded: Vec<u64>,
    /// Those of them of which a record could not be read.
    pub(super) damaged: Vec<u64>,
    /// Carried on from them.
    pub(super) unheard: Vec<Unheard>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    begun: u64,
    key: Option<String>,
    books: Books,
    folded: Vec<u64>,
    damaged: Vec<u64>,
    unheard: Vec<(String, String)>,
}

/// Reads the ledger; an empty one if there is none.
pub(super) fn read(folder: &Path) -> anyhow::Result<Ledger> {
    let path = folder.join("books");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Ledger::default()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let damaged = || format!("{} is damaged; the counts of removed segments are in it", path.display());
    let (sum, json) = text.split_once('\n').with_context(damaged)?;
    if blake3::hash(json.as_bytes()).to_hex().as_str() != sum {
        bail!(damaged());
    }
    let written: Written = serde_json::from_str(json).with_context(damaged)?;
    let mut unheard: Vec<Unheard> = Vec::with_capacity(written.unheard.len());
    for (key, id) in written.unheard {
        let key = *blake3::Hash::from_hex(key).with_context(damaged)?.as_bytes();
        let id = id.parse().map_err(anyhow::Error::msg).with_context(damaged)?;
        match unheard.last_mut().filter(|last| last.id == id) {
            Some(last) => last.each.push(key),
            None => unheard.push(Unheard { key, id, each: Vec::new() }),
        }
    }
    let key = written.key.map(blake3::Hash::from_hex).transpose().with_context(damaged)?.map(|key| *key.as_bytes());
    Ok(Ledger {
        begun: Millis(written.begun),
        key,
        books: written.books,
        folded: written.folded,
        damaged: written.damaged,
        unheard,
    })
}

/// Replaces the ledger: written, synced, renamed, and the folder synced.
pub(super) fn write(folder: &Path, ledger: &Ledger) -> std::io::Result<()> {
    let hex = |key: &Doubt| blake3::Hash::from_bytes(*key).to_hex().to_string();
    let keys = |unheard: &Unheard| {
        let id = unheard.id.to_string();
        let keys: Vec<_> =
            std::iter::once(&unheard.key).chain(&unheard.each).map(|key| (hex(key), id.clone())).collect();
        keys
    };
    let written = Written {
        begun: ledger.begun.0,
        key: ledger.key.as_ref().map(hex),
        books: ledger.books,
        folded: ledger.folded.clone(),
        damaged: ledger.damaged.clone(),
        unheard: ledger.unheard.iter().flat_map(keys).collect(),
    };
    let json = serde_json::to_string(&written).map_err(std::io::Error::other)?;
    let new = folder.join("books.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{}", blake3::hash(json.as_bytes()).to_hex())?;
    file.write_all(json.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, folder.join("books"))?;
    File::open(folder)?.sync_all()
}

/// Whether a mail of this id is young enough to be in doubt.
pub(super) fn is_young(id: MailId, now: Millis, doubt_for: std::time::Duration) -> bool {
    now.since(id.arrived()) < doubt_for
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_ledger_comes_back_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), Ledger::default());
        let books = Books { accepted: 9, stored: 4, held: 3, rejected: 1, buried: 1, in_flight: 0 };
        assert!(books.balanced());
        let unheard = |number, each| Unheard { key: [7; 32], id: MailId::from_bytes([number; 16]), each };
        let unheard = vec![unheard(1, Vec::new()), unheard(2, vec![[8; 32], [9; 32]])];
        let ledger =
            Ledger { begun: Millis(7), key: Some([5; 32]), books, folded: vec![1, 2], damaged: vec![2], unheard };
        write(folder.path(), &ledger).unwrap();
        assert_eq!(read(folder.path()).unwrap(), ledger);
        let path = folder.path().join("books");
        let spoiled = fs::read_to_string(&path).unwrap().replace("\"accepted\":9", "\"accepted\":8");
        fs::write(&path, spoiled).unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("damaged"));
    }
}
