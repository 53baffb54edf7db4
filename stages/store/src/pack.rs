//! Pack files: bodies, one behind the other, only ever appended.
//!
//! A record is written before the rows that name it are committed, and synced before or, for small batches, kept in the
//! database until it is (see `redo.rs`). What was written is never cut off: what no row names is dead. A pack that is
//! mostly dead is rewritten: what lives in it is copied to the current one, and its file goes. A damaged record is an
//! error that names file and offset, and costs that record only.

mod inflate;
mod unpacker;

pub(crate) use unpacker::Unpacker;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use zstd::bulk::Compressor;

use self::inflate::Inflate;

/// What each record begins with.
const MAGIC: [u8; 4] = *b"CmB1";
/// Bytes of the head: magic, form, stored length, raw length, digest of the raw body.
const HEAD: usize = 4 + 1 + 8 + 8 + 32;
/// Fast, and half the gain of slower ones on mail.
const LEVEL: i32 = 1;
/// Smaller bodies are not worth the attempt.
const SMALLEST: usize = 256;

/// No body is longer: the largest message that can be configured.
const LONGEST: u64 = 1 << 30;

/// Where a body lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pack: i64,
    pub(crate) offset: i64,
    /// Bytes of the whole record.
    pub(crate) length: i64,
}

/// Makes records of bodies. With a compressor of its own: to make one costs as much as to compress a small mail.
pub(crate) struct Packer(Option<Compressor<'static>>);

impl Packer {
    pub(crate) fn new() -> Self {
        Self(Compressor::new(LEVEL).ok())
    }

    /// The record of a body.
    pub(crate) fn record(&mut self, body: &[u8], digest: &[u8; 32]) -> Bytes {
        let packed = match &mut self.0 {
            Some(compressor) if body.len() >= SMALLEST => compressor.compress(body).ok(),
            _ => None,
        };
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
}

#[cfg(test)]
pub(crate) fn record(body: &[u8], digest: &[u8; 32]) -> Bytes {
    Packer::new().record(body, digest)
}

/// The file of a pack.
pub(crate) fn path(folder: &Path, number: i64) -> PathBuf {
    folder.join(format!("{number:06}.pack"))
}

/// The numbers of the packs whose files are in a folder.
pub(crate) fn numbers(folder: &Path) -> anyhow::Result<Vec<i64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let name = entry?.file_name();
        let number: Option<i64> =
            name.to_str().and_then(|name| name.strip_suffix(".pack")).and_then(|name| name.parse().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

/// Reads a body and verifies its digest.
pub(crate) fn read(folder: &Path, place: Place, digest: &[u8; 32]) -> anyhow::Result<Bytes> {
    Ok(load(folder, place, digest)?.1)
}

/// Reads a body's record as it lies there, and verifies it.
pub(crate) fn read_record(folder: &Path, place: Place, digest: &[u8; 32]) -> anyhow::Result<Bytes> {
    Ok(load(folder, place, digest)?.0)
}

/// Whether a body could not be read because its pack is not there.
pub(crate) fn is_gone(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
}

fn load(folder: &Path, place: Place, digest: &[u8; 32]) -> anyhow::Result<(Bytes, Bytes)> {
    let path = path(folder, place.pack);
    let named = || format!("the body in {} at offset {}", path.display(), place.offset);
    let mut record = vec![0; checked_length(place).with_context(named)?];
    File::open(&path)
        .and_then(|file| file.read_exact_at(&mut record, u64::try_from(place.offset).unwrap_or(u64::MAX)))
        .with_context(named)?;
    let record = Bytes::from(record);
    let body = self::body(&record).with_context(named)?;
    if blake3::hash(&body).as_bytes() != digest {
        bail!("{} is damaged", named());
    }
    Ok((record, body))
}

/// A row may be damaged, too, and must not cost all the memory that it speaks of.
fn checked_length(place: Place) -> anyhow::Result<usize> {
    if !(HEAD as u64..=HEAD as u64 + LONGEST).contains(&u64::try_from(place.length).unwrap_or(0)) {
        bail!("its row says that it is {} bytes long", place.length);
    }
    Ok(usize::try_from(place.length)?)
}

/// The body of a record.
pub(crate) fn body(record: &Bytes) -> anyhow::Result<Bytes> {
    match parse(record)? {
        (false, ..) => Ok(record.slice(HEAD..)),
        (true, length, stored) => {
            let mut body = Vec::new();
            Inflate::take()?.append(&mut body, stored, length)?;
            Ok(body.into())
        }
    }
}

/// Whether a record is packed, the length of its body, and what is stored.
fn parse(record: &[u8]) -> anyhow::Result<(bool, usize, &[u8])> {
    let Some((head, stored)) = record.split_at_checked(HEAD) else { bail!("it is cut off") };
    if !head.starts_with(&MAGIC) {
        bail!("it is not a record");
    }
    let length = u64::from_le_bytes(head[5..13].try_into()?);
    if length != stored.len() as u64 {
        bail!("it says that {length} bytes are stored, its row says {}", stored.len());
    }
    let raw = u64::from_le_bytes(head[13..21].try_into()?);
    if raw > LONGEST {
        bail!("it says that it is {raw} bytes long, which is too long");
    }
    match head[4] {
        form @ (0 | 1) => Ok((form == 1, usize::try_from(raw)?, stored)),
        form => bail!("its form {form} is not known"),
    }
}

/// The pack that is written.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) folder: PathBuf,
    pub(crate) number: i64,
    file: File,
    /// Where the next record goes: behind everything that a row may name.
    pub(crate) length: i64,
    /// Bytes before that which are not synced.
    pub(crate) unsynced: i64,
    /// When the first of them was appended.
    pub(crate) unsynced_since: Option<Instant>,
    /// The last append failed: this handle is not trusted any more.
    pub(crate) is_suspect: bool,
}

impl Current {
    /// Opens the last pack of a folder for appending; `known` is the last that the rows know.
    pub(crate) fn open_last(folder: &Path, known: i64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        if let Some(above) = folder.parent() {
            File::open(above)
                .and_then(|above| above.sync_all())
                .with_context(|| format!("syncing {}", above.display()))?;
        }
        let last = numbers(folder)?.into_iter().max().unwrap_or(1);
        Self::open(folder, last.max(known).max(1))
    }

    /// Opens a pack for appending behind all that is in it. What a crash left there without a row stays, and is never
    /// looked at: cutting it off could only destroy what an older database does not know.
    fn open(folder: &Path, number: i64) -> anyhow::Result<Self> {
        let path = path(folder, number);
        let open = || -> io::Result<(File, u64)> {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            file.sync_all()?;
            File::open(folder)?.sync_all()?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().with_context(|| format!("opening {}", path.display()))?;
        let (folder, length) = (folder.to_owned(), i64::try_from(length)?);
        Ok(Self { folder, number, file, length, unsynced: 0, unsynced_since: None, is_suspect: false })
    }

    /// Appends what was gathered, and syncs. After an error nothing was appended: the next records go where these would
    /// have gone. Once this has succeeded the records stay, even if the rows that name them are not committed: a commit
    /// that failed may turn out to be there after a crash.
    pub(crate) fn append(&mut self, records: &[u8]) -> anyhow::Result<()> {
        self.write(records)?;
        self.is_suspect = true;
        self.file.sync_data()?;
        self.is_suspect = false;
        self.length += i64::try_from(records.len())?;
        (self.unsynced, self.unsynced_since) = (0, None);
        Ok(())
    }

    /// Appends what was gathered, for readers to find. It is on the disk with a later `append`.
    pub(crate) fn append_unsynced(&mut self, records: &[u8]) -> anyhow::Result<()> {
        self.write(records)?;
        let written = i64::try_from(records.len())?;
        self.length += written;
        self.unsynced += written;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn write(&mut self, records: &[u8]) -> anyhow::Result<()> {
        if self.is_suspect {
            let length = self.length;
            *self = Self::open(&self.folder, self.number)?;
            self.length = length;
        }
        let at = u64::try_from(self.length)?;
        self.is_suspect = true;
        self.file.write_all_at(records, at)?;
        self.is_suspect = false;
        Ok(())
    }

    /// Seals this pack and begins the next.
    pub(crate) fn seal(&mut self) -> anyhow::Result<()> {
        *self = Self::open(&self.folder, self.number + 1)?;
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
        let mut pack = Current::open_last(folder.path(), 0).unwrap();
        let mut offset = 0;
        let mut places = Vec::new();
        let bodies: [&[u8]; 4] = [b"", b"short", &[b'x'; 10_000], &blake3::hash(b"r").as_bytes().repeat(20)];
        for body in bodies {
            let record = record(body, &digest(body));
            let length = i64::try_from(record.len()).unwrap();
            pack.append(&record).unwrap();
            places.push(Place { pack: 1, offset, length });
            offset += length;
        }
        for (body, place) in bodies.iter().zip(&places) {
            assert_eq!(&read(folder.path(), *place, &digest(body)).unwrap()[..], *body);
        }
        let mut unpacker = Unpacker::new(folder.path()).unwrap();
        for (body, place) in bodies.iter().zip(&places).rev() {
            let mut out = b"prefix".to_vec();
            unpacker.append(&mut out, *place, &digest(body), &[]).unwrap();
            assert_eq!(out, [&b"prefix"[..], body].concat());
            let error = unpacker.append(&mut out, *place, &digest(b"other"), &[]).unwrap_err().to_string();
            assert!(error.contains("000001.pack at offset"), "{error}");
        }
        assert!(places[2].length < 1000, "compressed");
        let file = OpenOptions::new().write(true).open(path(folder.path(), 1)).unwrap();
        file.write_all_at(b"!", u64::try_from(places[1].offset).unwrap() + HEAD as u64).unwrap();
        let error = read(folder.path(), places[1], &digest(b"short")).unwrap_err().to_string();
        assert!(error.contains("000001.pack at offset 53"), "{error}");
        assert!(read(folder.path(), places[3], &digest(bodies[3])).is_ok());
        for length in [-1, 0, HEAD as i64 - 1, 1 << 40, 1 << 62, i64::MAX] {
            let error = read(folder.path(), Place { length, ..places[3] }, &digest(bodies[3])).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains("its row says that it is"), "{error}");
        }
    }

    #[test]
    fn nothing_that_was_appended_is_touched_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut pack = Current::open_last(folder.path(), 0).unwrap();
        pack.append(b"kept").unwrap();
        // As after a write that broke off in the middle.
        pack.file.write_all_at(b"torn", 4).unwrap();
        pack.is_suspect = true;
        pack.append(b"next").unwrap();
        assert_eq!(fs::read(path(folder.path(), 1)).unwrap(), b"keptnext");
        pack.seal().unwrap();
        pack.append(b"two").unwrap();
        drop(pack);
        let pack = Current::open_last(folder.path(), 1).unwrap();
        assert_eq!((pack.number, pack.length), (2, 3));
        assert_eq!(Current::open_last(folder.path(), 5).unwrap().number, 5, "the rows know of more");
    }

    #[test]
    fn an_absurd_length_is_an_error() {
        let mut record = record(&[b'x'; 1000], &digest(b"")).to_vec();
        record[13..21].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        assert!(body(&record.into()).unwrap_err().to_string().contains("too long"));
    }
}
