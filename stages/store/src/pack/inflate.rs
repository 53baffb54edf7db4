//! Unpacking what is stored. To set out for it costs more than to unpack a mail, so a few who have done so are handed
//! on from reader to reader.

use std::io::{self, Cursor};
use std::sync::{Mutex, PoisonError};

use zstd::bulk::Decompressor;

/// So many wait for the next reader, each with some 100 KB.
const SPARE: usize = 16;

static IDLE: Mutex<Vec<Decompressor<'static>>> = Mutex::new(Vec::new());

/// Unpacks; waits for the next reader when it is dropped.
pub(super) struct Inflate(Option<Decompressor<'static>>);

impl Inflate {
    pub(super) fn take() -> io::Result<Self> {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Self(Some(match idle {
            Some(idle) => idle,
            None => Decompressor::new()?,
        })))
    }

    /// Unpacks to the end of `out`, at most so many bytes, or nothing at all.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, stored: &[u8], most: usize) -> io::Result<()> {
        let Some(decompressor) = &mut self.0 else { return Ok(()) };
        // Exactly: what has room left would be copied when it is given to whoever asked for it.
        out.reserve_exact(most);
        let end = out.len() as u64;
        let mut behind = Cursor::new(out);
        behind.set_position(end);
        decompressor.decompress_to_buffer(stored, &mut behind).map(drop)
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < SPARE {
            idle.extend(self.0.take());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_goes_on_after_an_error() {
        let packed = zstd::bulk::compress(&[b'x'; 1000], 1).unwrap();
        let mut out = b"before".to_vec();
        for _ in 0..3 {
            let mut inflate = Inflate::take().unwrap();
            let (full, cut) = (packed.as_slice(), &packed[..packed.len() - 1]);
            assert!(inflate.append(&mut out, cut, 1000).is_err());
            assert_eq!(out, b"before");
            out.shrink_to_fit();
            assert!(inflate.append(&mut out, full, 999).is_err());
            inflate.append(&mut out, full, 1000).unwrap();
            assert_eq!(out, [&b"before"[..], &[b'x'; 1000]].concat());
            out.truncate(6);
            out.shrink_to_fit();
        }
    }
}
