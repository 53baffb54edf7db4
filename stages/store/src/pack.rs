//! Pack files: bodies, one behind the other, only ever appended.
//!
//! A record is written and synced before the rows that name it are committed, so what lies behind the last committed
//! record is what a crash left, and is cut off at start. A damaged record is an error that names file and offset, and
//! costs that record only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::{BufMut as _, Bytes, BytesMut};

/// What each record begins with.
const MAGIC: [u8; 4] = *b"CmB1";
/// Bytes of the head: magic, form, stored length, raw length, digest of the raw body.
const HEAD: usize = 4 + 1 + 8 + 8 + 32;
/// Fast, and half the gain of slower ones on mail.
const LEVEL: i32 = 1;
/// Smaller bodies are not worth the attempt.
const SMALLEST: usize = 256;

/// Where a body lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pack: i64,
    pub(crate) offset: i64,
    /// Bytes of the whole record.
    pub(crate) length: i64,
}

/// The record of a body.
pub(crate) fn record(body: &[u8], digest: &[u8; 32]) -> Bytes {
    let packed = if body.len() < SMALLEST { None } else { zstd::bulk::compress(body, LEVEL).ok() };
    let (form, stored) = match &packed {
        Some(packed) if packed.len() < body.len() => (1, packed.as_slice()),
        _ => (0, body),
    };
    let mut record = BytesMut::with_capacity(HEAD + stored.len());
    record.put_slice(&MAGIC);
    record.put_u8(form);
    record.put_u64_le(stored.len() as u64);
    record.put_u64_le(body.len() as u64);
    record.put_slice(digest);
    record.put_slice(stored);
    record.freeze()
}

fn path(folder: &Path, number: i64) -> PathBuf {
    folder.join(format!("{number:06}.pack"))
}

/// Reads a body and verifies its digest.
pub(crate) fn read(folder: &Path, place: Place, digest: &[u8; 32]) -> anyhow::Result<Bytes> {
    let path = path(folder, place.pack);
    let named = || format!("the body in {} at offset {}", path.display(), place.offset);
    let mut record = vec![0; usize::try_from(place.length)?];
    File::open(&path)
        .and_then(|file| file.read_exact_at(&mut record, u64::try_from(place.offset).unwrap_or(u64::MAX)))
        .with_context(named)?;
    let body = unpack(&record).with_context(named)?;
    if blake3::hash(&body).as_bytes() != digest {
        bail!("{} is damaged", named());
    }
    Ok(body)
}

fn unpack(record: &[u8]) -> anyhow::Result<Bytes> {
    let Some((head, stored)) = record.split_at_checked(HEAD) else { bail!("it is cut off") };
    if !head.starts_with(&MAGIC) {
        bail!("it is not a record");
    }
    let raw = u64::from_le_bytes(head[13..21].try_into()?);
    match head[4] {
        0 => Ok(Bytes::copy_from_slice(stored)),
        1 => Ok(zstd::bulk::decompress(stored, usize::try_from(raw)?)?.into()),
        form => bail!("its form {form} is not known"),
    }
}

/// The pack that is written.
#[derive(Debug)]
pub(crate) struct Current {
    folder: PathBuf,
    pub(crate) number: i64,
    file: File,
    pub(crate) length: i64,
}

impl Current {
    /// Opens a pack for appending, cut back to what is committed.
    pub(crate) fn open(folder: &Path, number: i64, committed: i64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let path = path(folder, number);
        let open = || -> io::Result<File> {
            let file = OpenOptions::new().append(true).create(true).open(&path)?;
            if file.metadata()?.len() < u64::try_from(committed).unwrap_or(0) {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than its committed records"));
            }
            file.set_len(u64::try_from(committed).unwrap_or(0))?;
            file.sync_all()?;
            File::open(folder)?.sync_all()?;
            Ok(file)
        };
        let file = open().with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { folder: folder.to_owned(), number, file, length: committed })
    }

    /// Appends what was gathered, and syncs.
    pub(crate) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all(records)?;
        self.file.sync_data()
    }

    /// What was appended is committed.
    pub(crate) fn committed(&mut self, bytes: usize) {
        self.length += i64::try_from(bytes).unwrap_or(0);
    }

    /// Takes back what was appended and not committed. After an error the file is opened anew: a handle whose sync failed
    /// is not trusted.
    pub(crate) fn take_back(&mut self) -> anyhow::Result<()> {
        *self = Self::open(&self.folder, self.number, self.length)?;
        Ok(())
    }

    /// Seals this pack and begins the next.
    pub(crate) fn seal(&mut self) -> anyhow::Result<()> {
        *self = Self::open(&self.folder, self.number + 1, 0)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn digest(body: &[u8]) -> [u8; 32] {
        *blake3::hash(body).as_bytes()
    }

    #[test]
    fn bodies_come_back_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut pack = Current::open(folder.path(), 1, 0).unwrap();
        let mut offset = 0;
        let mut places = Vec::new();
        let bodies: [&[u8]; 4] = [b"", b"short", &[b'x'; 10_000], &blake3::hash(b"r").as_bytes().repeat(20)];
        for body in bodies {
            let record = record(body, &digest(body));
            let length = i64::try_from(record.len()).unwrap();
            pack.append(&record).unwrap();
            pack.committed(record.len());
            places.push(Place { pack: 1, offset, length });
            offset += length;
        }
        for (body, place) in bodies.iter().zip(&places) {
            assert_eq!(&read(folder.path(), *place, &digest(body)).unwrap()[..], *body);
        }
        assert!(places[2].length < 1000, "compressed");
        let file = OpenOptions::new().write(true).open(path(folder.path(), 1)).unwrap();
        file.write_all_at(b"!", u64::try_from(places[1].offset).unwrap() + HEAD as u64).unwrap();
        let error = read(folder.path(), places[1], &digest(b"short")).unwrap_err().to_string();
        assert!(error.contains("000001.pack at offset 53"), "{error}");
        assert!(read(folder.path(), places[3], &digest(bodies[3])).is_ok());
    }

    #[test]
    fn what_was_not_committed_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut pack = Current::open(folder.path(), 1, 0).unwrap();
        pack.append(b"committed").unwrap();
        pack.committed(9);
        pack.append(b"not").unwrap();
        pack.take_back().unwrap();
        assert_eq!(fs::read(path(folder.path(), 1)).unwrap(), b"committed");
        assert!(Current::open(folder.path(), 1, 10).unwrap_err().to_string().contains("000001.pack"));
    }
}
