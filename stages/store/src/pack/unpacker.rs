//! Reads many bodies, one after the other: the file and the memory of one serve for the next. Records that lie close
//! together, as those of one mailbox often do, come in one stretch.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::inflate::Inflate;
use super::{Place, checked_length, parse, path};

/// Bytes that are read at once for more than one record: what a processor keeps at hand.
const STRETCH: i64 = 64 << 10;
/// Bytes between two records over which it is read on.
const GAP: i64 = 4 << 10;

/// Reads bodies of one folder.
pub(crate) struct Unpacker {
    folder: PathBuf,
    /// The pack that was read last. It may be gone by now: what it held is as good as before.
    open: Option<(i64, File)>,
    /// What was read of it, from this place on.
    read: Vec<u8>,
    from: i64,
    /// How much of that counts.
    length: usize,
    inflate: Inflate,
}

impl Unpacker {
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let (folder, inflate) = (folder.to_owned(), Inflate::take()?);
        Ok(Self { folder, open: None, read: Vec::new(), from: 0, length: 0, inflate })
    }

    /// Appends a body to `out`, and verifies its digest. After an error there may be a part of it. `next` are those
    /// that will be wanted next, if that is known.
    pub(crate) fn append(
        &mut self,
        out: &mut Vec<u8>,
        place: Place,
        digest: &[u8; 32],
        next: &[Place],
    ) -> anyhow::Result<()> {
        let found = self.unpack(out, place, digest, next);
        let named = || format!("the body in {} at offset {}", path(&self.folder, place.pack).display(), place.offset);
        if !found.with_context(named)? {
            bail!("{} is damaged", named());
        }
        Ok(())
    }

    /// Whether what was appended is sound.
    fn unpack(&mut self, out: &mut Vec<u8>, place: Place, digest: &[u8; 32], next: &[Place]) -> anyhow::Result<bool> {
        let length = checked_length(place)?;
        let at = match self.known(place, length) {
            Some(at) => at,
            None => self.read(place, length, next)?,
        };
        let (is_packed, raw, stored) = parse(&self.read[at..at + length])?;
        let begin = out.len();
        if is_packed {
            self.inflate.append(out, stored, raw)?;
        } else {
            out.reserve_exact(stored.len());
            out.extend_from_slice(stored);
        }
        Ok(blake3::hash(&out[begin..]).as_bytes() == digest)
    }

    /// Where a record begins in what was read before.
    fn known(&self, place: Place, length: usize) -> Option<usize> {
        let (pack, _) = self.open.as_ref()?;
        let at = usize::try_from(place.offset.checked_sub(self.from)?).ok()?;
        (*pack == place.pack && at.checked_add(length)? <= self.length).then_some(at)
    }

    /// Reads a record, and others behind it if they will be wanted; it begins what was read then.
    fn read(&mut self, place: Place, length: usize, next: &[Place]) -> anyhow::Result<usize> {
        self.length = 0;
        let file = match &mut self.open {
            Some((pack, file)) if *pack == place.pack => file,
            open => &mut open.insert((place.pack, File::open(path(&self.folder, place.pack))?)).1,
        };
        let offset = u64::try_from(place.offset).unwrap_or(u64::MAX);
        let stretch = stretch(place, length, next);
        if self.read.len() < stretch {
            self.read.resize(stretch, 0);
        }
        // What the others' rows say may be wrong: that is not this record's fault.
        let whole = file.read_exact_at(&mut self.read[..stretch], offset);
        let is_whole = whole.is_ok();
        if !is_whole {
            file.read_exact_at(&mut self.read[..length], offset)?;
        }
        (self.from, self.length) = (place.offset, if is_whole { stretch } else { length });
        Ok(0)
    }
}

/// How much is read from a place on.
fn stretch(place: Place, length: usize, next: &[Place]) -> usize {
    let Some(mut end) = i64::try_from(length).ok().and_then(|length| place.offset.checked_add(length)) else {
        return length;
    };
    for next in next {
        let near = end..=end.saturating_add(GAP);
        let reaches = next.offset.saturating_add(next.length);
        if next.pack != place.pack || !near.contains(&next.offset) || reaches < end {
            break;
        }
        if reaches.saturating_sub(place.offset) > STRETCH {
            break;
        }
        end = reaches;
    }
    usize::try_from(end.saturating_sub(place.offset)).map_or(length, |stretch| stretch.max(length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(offset: i64, length: i64) -> Place {
        Place { pack: 1, offset, length }
    }

    #[test]
    fn what_lies_close_behind_is_read_too() {
        let check = |next: &[Place], want: usize| assert_eq!(stretch(place(100, 60), 60, next), want, "{next:?}");
        check(&[], 60);
        check(&[place(160, 40), place(200, 100)], 200);
        check(&[place(160 + GAP, 40), place(100, 60)], 60 + 4096 + 40);
        check(&[place(161 + GAP, 40)], 60);
        check(&[place(159, 40)], 60);
        check(&[Place { pack: 2, ..place(160, 40) }], 60);
        check(&[place(160, STRETCH - 60)], 64 << 10);
        check(&[place(160, STRETCH - 59)], 60);
        check(&[place(160, -1), place(160, i64::MAX)], 60);
        assert_eq!(stretch(place(i64::MAX, 60), 60, &[]), 60);
        assert_eq!(stretch(place(i64::MIN, 60), 60, &[place(i64::MIN + 60, 10)]), 70);
    }

    #[test]
    fn a_stretch_that_cannot_be_read_costs_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let digest = |body: &[u8]| *blake3::hash(body).as_bytes();
        let mut pack = super::super::Current::open_last(folder.path(), 0).unwrap();
        let mut places = Vec::new();
        for body in [&b"one"[..], b"two"] {
            let record = super::super::record(body, &digest(body));
            places.push(place(pack.length, record.len().try_into().unwrap()));
            pack.append(&record).unwrap();
        }
        let next = [places[1], place(pack.length, 1000)];
        let mut unpacker = Unpacker::new(folder.path()).unwrap();
        let mut read = |place, body: &[u8], next: &[Place]| {
            let mut out = Vec::new();
            unpacker.append(&mut out, place, &digest(body), next).map(|()| assert_eq!(out, body))
        };
        read(places[0], b"one", &next).unwrap();
        read(places[1], b"two", &next[1..]).unwrap();
        assert!(read(next[1], b"three", &[]).is_err());
        read(places[0], b"one", &next[..1]).unwrap();
        // Both are there by now: the file is not looked at again.
        std::fs::write(super::super::path(folder.path(), 1), b"").unwrap();
        read(places[1], b"two", &[]).unwrap();
        read(places[0], b"one", &[]).unwrap();
        assert!(read(Place { pack: 2, ..places[0] }, b"one", &[]).is_err());
    }
}
