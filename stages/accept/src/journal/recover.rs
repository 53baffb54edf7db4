//! Opening a journal: reads every segment with its marks, cuts a torn tail, skips what is damaged.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes};
use proto::Millis;

use super::config::Config;
use super::index::{Doubt, Index};
use super::mark::Mark;
use super::record::{self, Key, Place};
use super::{books, segment};
use crate::arrival;

/// A file without a readable title that is no longer than this holds no mail: a title is longer with its first record.
const TORN_MOST: usize = record::HEAD;

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
        segment::let_go(folder, *number, ledger.damaged.contains(number))
            .with_context(|| format!("removing segment {number}"))?;
    }
    let numbers = segment::numbers(folder)?;
    let is_new = numbers.is_empty() && !folder.join("books").exists();
    // A segment whose title is damaged has the key of the others.
    let known = segment::known_key(folder, &numbers, node)?.or(ledger.key);
    if known.is_none() {
        refuse_unknown(folder, &numbers)?;
    }
    let knows_key = ledger.key.is_some() && ledger.key == known;
    let key = known.unwrap_or_else(runtime::clock::new_key);
    let mut index = Index::new(ledger, key, config.doubt_most, config.doubt_for);
    let mut recovery = Recovery::default();
    for (position, number) in numbers.iter().enumerate() {
        let is_last = position + 1 == numbers.len();
        let key = read_segment(folder, *number, node, is_last, now, &mut index, &mut recovery)?;
        read_marks(folder, *number, &key, &mut index, &mut recovery)?;
    }
    index.reading_is_over();
    for number in &numbers {
        sync(folder, *number)?;
    }
    // What a damaged record held is not known. Nor is what another folder knew before this one.
    let lacks_records = recovery.damage.iter().any(|damage| damage.file.extension().is_some_and(|kind| kind == "mail"));
    if lacks_records || is_new {
        index.vouch_from(now);
    }
    if lacks_records || is_new || !knows_key {
        match books::write(folder, index.ledger()).context("writing the books") {
            Err(error) if is_new => return Err(error),
            // A full disk must not keep what is pending from going round.
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the next start looks again"),
            Ok(()) => {}
        }
    }
    recovery.pending = index.pending() as u64;
    for damage in &recovery.damage {
        let (file, offset, bytes) = (damage.file.display(), damage.offset, damage.length);
        tracing::error!(%file, offset, bytes, "the journal is damaged here");
    }
    Ok((index, recovery))
}

/// Without the key nothing that is in a segment can be told from damage.
fn refuse_unknown(folder: &Path, numbers: &[u64]) -> anyhow::Result<()> {
    for number in numbers {
        let path = segment::mail_path(folder, *number);
        let length = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
        if length >= TORN_MOST as u64 {
            bail!(
                "the title of {} is damaged, and neither another segment nor the file `books` has its key: put the \
                 folder's files back as they were, or move this one away, with all the mail that is in it",
                path.display()
            );
        }
    }
    Ok(())
}

fn read_segment(
    folder: &Path,
    number: u64,
    node: &str,
    is_last: bool,
    now: Millis,
    index: &mut Index,
    recovery: &mut Recovery,
) -> anyhow::Result<Key> {
    let path = segment::mail_path(folder, number);
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let (key, mut at) = segment::read_title(&bytes, node, &path)?.unwrap_or((index.key, 0));
    index.begin_segment(number, key, bytes.len() as u64);
    while at < bytes.len() {
        if let Some(head) = record::parse(&bytes[at..], &key) {
            let place = Place { segment: number, offset: at as u64, envelope: head.envelope, body: head.body };
            index.insert(&head, keys_of_recipients(&head, &bytes[at..]), place, now);
            at += usize::try_from(place.length())?;
            continue;
        }
        match next_record(&bytes, at + 1, &key) {
            Some(next) => {
                index.note_damage(number);
                let (offset, length) = (at as u64, (next - at) as u64);
                recovery.damage.push(Damage { file: path.clone(), offset, length });
                at = next;
            }
            // Torn while the segment was being made: it never held anything.
            None if at == 0 && bytes.len() < TORN_MOST => break,
            // A record that is whole by its lengths, or one behind a title that cannot be read, may have been synced.
            None if is_last && at > 0 && !is_whole(&bytes[at..]) => {
                recovery.cut = (bytes.len() - at) as u64;
                cut(&path, at as u64)?;
                index.begin_segment(number, key, at as u64);
                break;
            }
            None => {
                index.note_damage(number);
                let (offset, length) = (at as u64, (bytes.len() - at) as u64);
                recovery.damage.push(Damage { file: path, offset, length });
                break;
            }
        }
    }
    Ok(key)
}

/// A mail with one recipient has no keys but its own.
fn keys_of_recipients(head: &record::Head, record: &[u8]) -> Vec<Doubt> {
    let envelope = record.get(record::HEAD..record::HEAD + head.envelope as usize);
    envelope.filter(|_| head.recipients > 1).map_or_else(Vec::new, arrival::keys_of_recipients)
}

/// A process that was killed may have written what it did not live to sync: marks beside any segment, and records in
/// one that it could not cut. What is found is relied on from now on.
fn sync(folder: &Path, number: u64) -> anyhow::Result<()> {
    for path in [segment::mail_path(folder, number), segment::marks_path(folder, number)] {
        match File::open(&path).and_then(|file| file.sync_all()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("syncing {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a record of the length that stands in its head is there, sound or not.
fn is_whole(bytes: &[u8]) -> bool {
    record::parse_head(bytes).is_some_and(|head| {
        let length = (record::HEAD as u64).saturating_add(u64::from(head.envelope)).saturating_add(head.body);
        length <= bytes.len() as u64
    })
}

fn cut(path: &Path, length: u64) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length).and_then(|()| file.sync_all()).with_context(|| format!("cutting {}", path.display()))
}

/// The next place at which a sound record begins.
fn next_record(bytes: &[u8], from: usize, key: &Key) -> Option<usize> {
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.windows(record::MAGIC.len()).position(|four| four == record::MAGIC) {
        at += found;
        if record::parse(&bytes[at..], key).is_some() {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Marks are not synced, so a torn tail is usual, and what is lost with it costs a repetition. A refusal or an
/// operator's decision is synced: damage before it must not hide it, so it is looked for behind the damage.
fn read_marks(folder: &Path, number: u64, key: &Key, index: &mut Index, recovery: &mut Recovery) -> anyhow::Result<()> {
    let path = segment::marks_path(folder, number);
    let mut bytes = match fs::read(&path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let whole = bytes.len();
    while !bytes.is_empty() {
        if let Some((id, mark)) = Mark::decode(&mut bytes, key) {
            index.recall(number, id, mark);
            continue;
        }
        let at = whole - bytes.len();
        let next = (1..bytes.len()).find(|skip| Mark::decode(&mut bytes.slice(*skip..), key).is_some());
        let Some(next) = next else {
            // New marks must stand behind sound ones, or they would be looked for in vain next time.
            return cut(&path, at as u64);
        };
        recovery.damage.push(Damage { file: path.clone(), offset: at as u64, length: next as u64 });
        bytes.advance(next);
    }
    Ok(())
}
