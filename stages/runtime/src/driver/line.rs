//! What is sent and heard over a socket, packed (RFC 4978) if both sides have agreed on that.
//!
//! Whatever a peer packs, it is unpacked a read's worth at a time, and no more before the session has taken that. A
//! peer that waits costs what its own packing may refer back to, 32 KiB and some; our side of it begins anew when it
//! goes on.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Conversation, READ, WRITE};

/// Lists of mails and their headers shrink to a third with little work; a higher level costs more than it gives.
const LEVEL: u32 = 2;

/// A socket, and how it is packed.
pub(super) struct Line<'a> {
    pub(super) socket: &'a mut Conversation,
    packing: Option<Packing>,
}

struct Packing {
    unpack: Decompress,
    /// What has come and is not unpacked.
    packed: BytesMut,
    /// None while nothing is said.
    pack: Option<Compress>,
}

impl<'a> Line<'a> {
    pub(super) fn new(socket: &'a mut Conversation) -> Self {
        Self { socket, packing: None }
    }

    /// From now on both directions are packed.
    pub(super) fn begin_packing(&mut self) {
        self.packing = Some(Packing { unpack: Decompress::new(false), packed: BytesMut::new(), pack: None });
    }

    /// Gives back what is not needed while nothing is said. What comes then refers to nothing that was before.
    pub(super) fn rest(&mut self) {
        if let Some(packing) = &mut self.packing {
            packing.pack = None;
        }
    }

    /// Gives what is there already, at most so much, to `take`, and says how much it was; nothing if nothing is there.
    pub(super) fn read_at_once(&mut self, most: usize, take: impl FnOnce(&[u8])) -> Option<io::Result<usize>> {
        let Some(packing) = &mut self.packing else { return self.socket.read_at_once(most, take) };
        loop {
            let mut plain = [0; READ];
            match packing.unpack(&mut plain) {
                Ok(0) => {}
                Ok(count) => {
                    take(&plain[..count]);
                    return Some(Ok(count));
                }
                Err(error) => return Some(Err(error)),
            }
            match self.socket.read_at_once(READ, |bytes| packing.packed.extend_from_slice(bytes))? {
                Ok(1..) => {}
                ended => return Some(ended),
            }
        }
    }

    /// Writes all of it; `stalled` is the longest that the peer may take none of it.
    pub(super) async fn write(&mut self, bytes: &[u8], stalled: Duration) -> io::Result<()> {
        let Some(packing) = &mut self.packing else { return self.socket.write(bytes, stalled).await };
        for piece in bytes.chunks(WRITE) {
            self.socket.write(&packing.pack(piece)?, stalled).await?;
        }
        Ok(())
    }
}

impl Packing {
    /// Unpacks what there is room for; nothing if more has to come first.
    fn unpack(&mut self, plain: &mut [u8]) -> io::Result<usize> {
        let (before, given) = (self.unpack.total_in(), self.unpack.total_out());
        let status = self.unpack.decompress(&self.packed, plain, FlushDecompress::Sync).map_err(io::Error::other)?;
        self.packed.advance(usize::try_from(self.unpack.total_in() - before).unwrap_or(usize::MAX));
        if self.packed.is_empty() {
            self.packed = BytesMut::new();
        }
        match usize::try_from(self.unpack.total_out() - given).unwrap_or(usize::MAX) {
            0 if status == Status::StreamEnd => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }

    /// Packs a piece so that the peer can unpack all of it.
    fn pack(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        let pack = self.pack.get_or_insert_with(|| Compress::new(Compression::new(LEVEL), false));
        let (begin, mut packed) = (pack.total_in(), Vec::with_capacity(piece.len() / 2 + 64));
        loop {
            let taken = usize::try_from(pack.total_in() - begin).unwrap_or(usize::MAX);
            pack.compress_vec(&piece[taken..], &mut packed, FlushCompress::Sync).map_err(io::Error::other)?;
            // Room that is left means that nothing is held back.
            if packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(packed.len().max(64));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn packing() -> Packing {
        Packing { unpack: Decompress::new(false), packed: BytesMut::new(), pack: None }
    }

    #[test]
    fn what_is_packed_is_unpacked_in_pieces_whatever_its_size() {
        let (mut one, mut other) = (packing(), packing());
        for (round, length) in [0, 1, 100, 5_000, 70_000, WRITE, 1_000_000].into_iter().enumerate() {
            let said: Vec<u8> =
                (0..length).map(|at: usize| u8::try_from((at * at / 7 + round) % 251).unwrap()).collect();
            let mut heard = Vec::new();
            for piece in said.chunks(WRITE) {
                other.packed.extend_from_slice(&one.pack(piece).unwrap());
                let mut plain = [0; READ];
                while let count @ 1.. = other.unpack(&mut plain).unwrap() {
                    heard.extend_from_slice(&plain[..count]);
                }
            }
            assert!(heard == said, "round {round}");
            // It goes on after a rest.
            one.pack = None;
        }
    }

    /// A thousand times its size: it comes a read's worth at a time, and what waits is what was sent.
    #[test]
    fn a_bomb_goes_off_slowly() {
        let (mut one, mut other) = (packing(), packing());
        let zeros = vec![0; 16 << 20];
        for piece in zeros.chunks(WRITE) {
            other.packed.extend_from_slice(&one.pack(piece).unwrap());
        }
        let sent = other.packed.len();
        assert!(sent < zeros.len() / 100);
        let (mut plain, mut all) = ([0; READ], 0);
        while let count @ 1.. = other.unpack(&mut plain).unwrap() {
            all += count;
            assert!(other.packed.capacity() <= 2 * sent);
        }
        assert_eq!(all, zeros.len());
    }

    #[test]
    fn what_is_not_packed_is_an_error() {
        let mut packing = packing();
        packing.packed.extend_from_slice(&[0xff; 100]);
        assert!(packing.unpack(&mut [0; 100]).is_err());
    }
}
