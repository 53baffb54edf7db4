//! The files of a segment: `<number>.mail` with the records, `<number>.marks` beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::record::Key;

/// What each segment begins with; the node's name, the key in hexadecimal digits, a checksum and a line end follow.
const TITLE: &str = "Chainmail journal 3 ";
/// The titles of what is read. 2 knows no [`super::mark::Mark::Cleared`], and is the same otherwise.
const TITLES: [&str; 2] = ["Chainmail journal 2 ", TITLE];
/// No title is longer: a node's name has 63 characters at most.
const TITLE_MOST: usize = 256;
/// Characters of the title's checksum.
const SUM: usize = 16;

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

fn title(node: &str, key: &Key) -> String {
    let words = format!("{TITLE}{node} {}", blake3::Hash::from_bytes(*key).to_hex());
    let sum = blake3::hash(words.as_bytes()).to_hex();
    format!("{words} {}\n", &sum[..SUM])
}

/// The key of a segment and where its records begin; none if its title is torn or damaged.
///
/// # Errors
/// When the segment belongs to another node or another version.
pub(super) fn read_title(bytes: &[u8], node: &str, path: &Path) -> anyhow::Result<Option<(Key, usize)>> {
    let line = bytes.iter().take(TITLE_MOST).position(|byte| *byte == b'\n').map(|end| &bytes[..end]);
    let Some(line) = line.and_then(|line| std::str::from_utf8(line).ok()) else { return Ok(None) };
    let title = TITLES.iter().find(|title| line.starts_with(**title));
    if line.starts_with("Chainmail journal ") && title.is_none() {
        bail!("{} was written by another version of Chainmail: let that one deliver what is in it", path.display());
    }
    let Some((words, sum)) = line.rsplit_once(' ') else { return Ok(None) };
    if blake3::hash(words.as_bytes()).to_hex().get(..SUM) != Some(sum) {
        return Ok(None);
    }
    let rest = title.and_then(|title| words.strip_prefix(title));
    let Some((owner, key)) = rest.and_then(|rest| rest.rsplit_once(' ')) else { return Ok(None) };
    if owner != node {
        bail!("{} does not belong to the accept node {node}, but to {owner}", path.display());
    }
    Ok(blake3::Hash::from_hex(key).ok().map(|key| (*key.as_bytes(), line.len() + 1)))
}

/// The key by which the newest segments are written; none if there is no segment whose title can be read.
///
/// # Errors
/// As [`read_title`], and when a file cannot be read.
pub(super) fn known_key(folder: &Path, numbers: &[u64], node: &str) -> anyhow::Result<Option<Key>> {
    for number in numbers.iter().rev() {
        let path = mail_path(folder, *number);
        let mut begin = Vec::with_capacity(TITLE_MOST);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        file.take(TITLE_MOST as u64).read_to_end(&mut begin).with_context(|| format!("reading {}", path.display()))?;
        if let Some((key, _)) = read_title(&begin, node, &path)? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Removes the files of a segment; the records of a damaged one are left to whoever can make something of them. Files
/// that are gone already are no error.
pub(super) fn let_go(folder: &Path, number: u64, is_damaged: bool) -> io::Result<()> {
    let (mail, marks) = (mail_path(folder, number), marks_path(folder, number));
    let mail = if is_damaged { fs::rename(&mail, mail.with_extension("damaged")) } else { fs::remove_file(mail) };
    for gone in [mail, fs::remove_file(marks)] {
        match gone {
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
    pub(super) fn create(folder: &Path, number: u64, node: &str, key: &Key) -> io::Result<Self> {
        let path = mail_path(folder, number);
        let made = (|| {
            let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            let title = title(node, key);
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

    /// A segment in a file of another kind.
    #[cfg(test)]
    pub(super) fn of(file: File) -> Self {
        Self { number: 1, file, length: 0 }
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

/// How often a disk is looked at while it has plenty of room.
const LOOK: Duration = Duration::from_millis(100);
/// So much above what has to stay free is plenty: all that write to the disk together do not fill it between two looks.
const PLENTY: u64 = 1 << 30;

/// Whether the disk has to be looked at again, which had so much free when what we wrote since is taken off. Near the
/// mark it is looked at each time.
pub(super) fn look_is_due(free: u64, min_free: u64, last: Option<Duration>) -> bool {
    free < min_free.saturating_add(PLENTY) || last.is_none_or(|last| last >= LOOK)
}

/// Bytes free on the disk of a folder; none when nobody can say.
pub(super) fn free(folder: &Path) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(free: u64, min_free: u64, last: Option<u64>, want: bool) {
        assert_eq!(look_is_due(free, min_free, last.map(Duration::from_millis)), want);
    }

    #[test]
    fn a_disk_with_plenty_of_room_is_looked_at_now_and_then() {
        check(PLENTY, 0, Some(99), false);
        check(PLENTY, 0, Some(100), true);
        check(PLENTY, 0, None, true);
    }

    #[test]
    fn a_disk_that_fills_up_is_looked_at_each_time() {
        check(PLENTY - 1, 0, Some(0), true);
        check(PLENTY + 4, 5, Some(0), true);
        check(PLENTY + 5, 5, Some(0), false);
        check(u64::MAX - 1, u64::MAX, Some(0), true);
    }
}
