//! Opening a journal: reads every segment with its marks, cuts a torn tail, skips what is damaged.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use proto::Millis;

use super::config::Config;
use super::index::Index;
use super::mark::Mark;
use super::record::{self, Place};
use super::{books, segment};

/// A place in a segment that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where the damage begins.
    pub offset: u64,
    /// Bytes until the next sound record, or the end.
    pub length: u64,
}

/// What opening a journal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Mails that have not ended.
    pub pending: u64,
    /// Bytes of a torn record at the end of the last segment, cut off.
    pub cut: u64,
    /// Places that cannot be read. Each costs what lay there, and nothing else.
    pub damage: Vec<Damage>,
}

/// Reads everything.
pub(super) fn recover(config: &Config, node: &str, now: Millis) -> anyhow::Result<(Index, Recovery)> {
    let folder = &config.folder;
    let ledger = books::read(folder)?;
    for number in &ledger.folded {
        segment::remove(folder, *number).with_context(|| format!("removing segment {number}"))?;
    }
    let mut index = Index::new(ledger, config.doubt_most, config.doubt_for);
    let mut recovery = Recovery::default();
    let numbers = segment::numbers(folder)?;
    for (position, number) in numbers.iter().enumerate() {
        let is_last = position + 1 == numbers.len();
        read_segment(folder, *number, node, is_last, now, &mut index, &mut recovery)?;
        read_marks(folder, *number, &mut index)?;
    }
    recovery.pending = index.pending() as u64;
    for damage in &recovery.damage {
        tracing::error!(file = %damage.file.display(), offset = damage.offset, bytes = damage.length, "the journal is damaged here");
    }
    Ok((index, recovery))
}

fn read_segment(
    folder: &Path,
    number: u64,
    node: &str,
    is_last: bool,
    now: Millis,
    index: &mut Index,
    recovery: &mut Recovery,
) -> anyhow::Result<()> {
    let path = segment::mail_path(folder, number);
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let known = index.segments.entry(number).or_default();
    known.bytes = bytes.len() as u64;
    let Some(mut at) = segment::records_begin(&bytes, node, &path)? else { return Ok(()) };
    while at < bytes.len() {
        if let Some(head) = record::parse(&bytes[at..]) {
            let place = Place { segment: number, offset: at as u64, envelope: head.envelope, body: head.body };
            index.insert(&head, place, now);
            at += usize::try_from(place.length())?;
            continue;
        }
        match next_record(&bytes, at + 1) {
            Some(next) => {
                let (offset, length) = (at as u64, (next - at) as u64);
                recovery.damage.push(Damage { file: path.clone(), offset, length });
                at = next;
            }
            None if is_last => {
                recovery.cut = (bytes.len() - at) as u64;
                let file = OpenOptions::new().write(true).open(&path)?;
                file.set_len(at as u64)
                    .and_then(|()| file.sync_all())
                    .with_context(|| format!("cutting {}", path.display()))?;
                index.segments.entry(number).or_default().bytes = at as u64;
                return Ok(());
            }
            None => {
                let (offset, length) = (at as u64, (bytes.len() - at) as u64);
                recovery.damage.push(Damage { file: path, offset, length });
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The next place at which a sound record begins.
fn next_record(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.windows(record::MAGIC.len()).position(|four| four == record::MAGIC) {
        at += found;
        if record::parse(&bytes[at..]).is_some() {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn read_marks(folder: &Path, number: u64, index: &mut Index) -> anyhow::Result<()> {
    let path = segment::marks_path(folder, number);
    let mut bytes = match fs::read(&path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let whole = bytes.len();
    while let Some((id, mark)) = Mark::decode(&mut bytes) {
        index.recall(id, mark);
    }
    if !bytes.is_empty() {
        // New marks must stand behind sound ones, or they would not be found next time.
        let sound = (whole - bytes.len()) as u64;
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(sound).with_context(|| format!("cutting {}", path.display()))?;
    }
    Ok(())
}
