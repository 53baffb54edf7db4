//! Reads many bodies, one after the other: the file and the memory of one serve for the next.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use zstd::bulk::Decompressor;

use super::{Place, checked_length, parse, path};

/// Reads bodies of one folder.
pub(crate) struct Unpacker {
    folder: PathBuf,
    /// The pack that was read last. It may be gone by now: what it held is as good as before.
    open: Option<(i64, File)>,
    record: Vec<u8>,
    inflate: Decompressor<'static>,
}

impl Unpacker {
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self { folder: folder.to_owned(), open: None, record: Vec::new(), inflate: Decompressor::new()? })
    }

    /// Appends a body to `out`, and verifies its digest. After an error there may be a part of it.
    pub(crate) fn append(&mut self, out: &mut Vec<u8>, place: Place, digest: &[u8; 32]) -> anyhow::Result<()> {
        let path = path(&self.folder, place.pack);
        let named = || format!("the body in {} at offset {}", path.display(), place.offset);
        self.record.resize(checked_length(place).with_context(named)?, 0);
        if self.open.as_ref().is_none_or(|(pack, _)| *pack != place.pack) {
            self.open = Some((place.pack, File::open(&path).with_context(named)?));
        }
        if let Some((_, file)) = &self.open {
            let offset = u64::try_from(place.offset).unwrap_or(u64::MAX);
            file.read_exact_at(&mut self.record, offset).with_context(named)?;
        }
        let (is_packed, length, stored) = parse(&self.record).with_context(named)?;
        let begin = out.len();
        if is_packed {
            out.resize(begin + length, 0);
            let written = self.inflate.decompress_to_buffer(stored, &mut out[begin..]).with_context(named)?;
            out.truncate(begin + written);
        } else {
            out.extend_from_slice(stored);
        }
        if blake3::hash(&out[begin..]).as_bytes() != digest {
            bail!("{} is damaged", named());
        }
        Ok(())
    }
}
