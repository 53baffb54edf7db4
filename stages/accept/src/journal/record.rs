//! One mail in a segment: a fixed head with the lengths, the envelope, the body.
//!
//! The checksum is keyed with a secret of the journal's. Its sender knows every byte of a body, and without the key
//! could put a whole record into it, which would be found when the record around it is torn or damaged.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use proto::MailId;

use super::index::Doubt;
use super::{Mail, segment};

/// The secret with which checksums of a journal are keyed.
pub(super) type Key = [u8; 32];

/// What each record begins with.
pub(super) const MAGIC: [u8; 4] = *b"CmR1";
/// Bytes of the head: magic, recipients, envelope length, body length, id, key, checksum.
pub(super) const HEAD: usize = 4 + 4 + 4 + 8 + 16 + 32 + 32;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) envelope: u32,
    pub(super) body: u64,
}

impl Place {
    pub(super) fn length(&self) -> u64 {
        HEAD as u64 + u64::from(self.envelope) + self.body
    }
}

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) recipients: u32,
    pub(super) envelope: u32,
    pub(super) body: u64,
    pub(super) id: MailId,
    pub(super) doubt: Doubt,
    sum: [u8; 32],
}

/// The head of a mail's record. The checksum covers everything else.
pub(super) fn head(mail: &Mail, key: &Key) -> Bytes {
    let mut head = BytesMut::with_capacity(HEAD);
    head.put_slice(&MAGIC);
    head.put_u32_le(mail.recipients);
    head.put_u32_le(u32::try_from(mail.envelope.len()).unwrap_or(u32::MAX));
    head.put_u64_le(mail.body.len() as u64);
    head.put_slice(&mail.id.to_bytes());
    head.put_slice(&mail.doubt);
    let sum = checksum(key, &head, &mail.envelope, &mail.body);
    head.put_slice(&sum);
    head.freeze()
}

/// The pieces of a record, to be written behind each other without copying.
pub(super) fn pieces<'a>(head: &'a Bytes, mail: &'a Mail) -> [IoSlice<'a>; 3] {
    [IoSlice::new(head), IoSlice::new(&mail.envelope), IoSlice::new(&mail.body)]
}

fn checksum(key: &Key, head: &[u8], envelope: &[u8], body: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_keyed(key).update(head).update(envelope).update(body).finalize().as_bytes()
}

/// Reads a head. None if these bytes do not begin a record.
pub(super) fn parse_head(bytes: &[u8]) -> Option<Head> {
    let mut bytes = bytes.get(..HEAD)?;
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    bytes.advance(MAGIC.len());
    let (recipients, envelope, body) = (bytes.get_u32_le(), bytes.get_u32_le(), bytes.get_u64_le());
    let id = MailId::from_bytes(bytes[..16].try_into().ok()?);
    let doubt = bytes[16..48].try_into().ok()?;
    let sum = bytes[48..80].try_into().ok()?;
    Some(Head { recipients, envelope, body, id, doubt, sum })
}

/// A whole and sound record at the start of `bytes`, if there is one.
pub(super) fn parse(bytes: &[u8], key: &Key) -> Option<Head> {
    let head = parse_head(bytes)?;
    let envelope_end = HEAD.checked_add(usize::try_from(head.envelope).ok()?)?;
    let body_end = envelope_end.checked_add(usize::try_from(head.body).ok()?)?;
    let (envelope, body) = (bytes.get(HEAD..envelope_end)?, bytes.get(envelope_end..body_end)?);
    (checksum(key, &bytes[..HEAD - 32], envelope, body) == head.sum).then_some(head)
}

/// Why a record cannot be had. Both name file and offset.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The file cannot be read at the moment, or at all.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// It is not what was written.
    #[error("the record in {0} is damaged")]
    Damaged(String),
}

/// Reads and verifies the record of a mail.
pub(super) fn read(folder: &Path, place: Place, key: &Key, id: MailId) -> Result<(Head, Bytes, Bytes), ReadError> {
    let path = segment::mail_path(folder, place.segment);
    let named = || format!("{} at offset {}", path.display(), place.offset);
    let mut bytes = vec![0; usize::try_from(place.length()).map_err(|_| ReadError::Damaged(named()))?];
    let read = File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, place.offset));
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ReadError::Damaged(named())),
        read => read.map_err(|error| ReadError::Io(named(), error))?,
    }
    let Some(head) = parse(&bytes, key).filter(|head| head.id == id) else {
        return Err(ReadError::Damaged(named()));
    };
    let mut bytes = Bytes::from(bytes);
    bytes.advance(HEAD);
    let envelope = bytes.split_to(head.envelope as usize);
    Ok((head, envelope, bytes))
}
