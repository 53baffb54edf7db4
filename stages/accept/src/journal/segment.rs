//! The files of a segment: `<number>.mail` with the records, `<number>.marks` beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// What each segment begins with; the node's name and a line end follow.
const TITLE: &str = "Chainmail journal 1 ";

pub(super) fn mail_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.mail"))
}

pub(super) fn marks_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.marks"))
}

/// The numbers of all segments, ascending.
pub(super) fn numbers(folder: &Path) -> anyhow::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let name = entry?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".mail")).and_then(|stem| stem.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Where the records of a segment begin.
///
/// # Errors
/// When the segment belongs to another node or another version.
pub(super) fn records_begin(bytes: &[u8], node: &str, path: &Path) -> anyhow::Result<Option<usize>> {
    let title = format!("{TITLE}{node}\n");
    if bytes.starts_with(title.as_bytes()) {
        return Ok(Some(title.len()));
    }
    if title.as_bytes().starts_with(bytes) {
        // Torn while the segment was being made: it holds nothing.
        return Ok(None);
    }
    bail!("{} does not belong to the accept node {node}", path.display())
}

/// Removes the files of a segment. Those that are gone already are no error.
pub(super) fn remove(folder: &Path, number: u64) -> io::Result<()> {
    for path in [mail_path(folder, number), marks_path(folder, number)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) number: u64,
    file: File,
    /// Everything up to here is synced.
    pub(super) length: u64,
}

impl Current {
    /// Makes a new segment, synced with its place in the folder before anything rests on it.
    pub(super) fn create(folder: &Path, number: u64, node: &str) -> io::Result<Self> {
        let path = mail_path(folder, number);
        let made = (|| {
            let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            let title = format!("{TITLE}{node}\n");
            file.write_all(title.as_bytes())?;
            file.sync_all()?;
            File::open(folder)?.sync_all()?;
            Ok(Self { number, file, length: title.len() as u64 })
        })();
        if made.is_err() {
            // What is there holds nothing; the next attempt must not stumble over it.
            let _ = fs::remove_file(&path);
        }
        made
    }

    /// Appends all pieces and syncs once. On an error nothing of them counts, and the segment must not be written any
    /// more: after a failed sync the kernel may forget what it could not write.
    pub(super) fn append(&mut self, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        while !pieces.is_empty() {
            match self.file.write_vectored(pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut pieces, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.file.sync_data()?;
        self.length += total as u64;
        Ok(())
    }

    /// Cuts off what an append that failed has left. Recovery would do the same for a torn record; a whole one, whose
    /// sender was told 452, would come back as a mail.
    pub(super) fn cut_back(&self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.sync_data()
    }
}

/// Bytes free on the disk of a folder; none when nobody can say.
pub(super) fn free(folder: &Path) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
}
