//! Marks: what happened to a mail after it was kept, in the file beside its segment.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use proto::{End, EndKind, MailId};

use super::record::Key;

/// Bytes before the payload: length, kind, id.
const HEAD: usize = 2 + 1 + 16;
/// Bytes of the checksum behind it.
const SUM: usize = 8;
/// A reason is cut to this, so that no mark grows.
const REASON_MOST: usize = 500;
/// No payload is longer: what says so is no mark.
const PAYLOAD_MOST: usize = REASON_MOST;

/// One mark about one mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// The sender went on after our reply.
    WentOn,
    /// Answered 550 in the session.
    Refused,
    /// Goes on as held.
    Held(String),
    /// One target of one recipient is done.
    End(EndMark),
    /// A recipient is with the dead letters.
    Buried(u32),
    /// A recipient is sent round again from there.
    Replayed(u32),
    /// A recipient is given up there.
    Dropped(u32),
    /// A recipient was refused in the session. A mail that is carried over brings this; for all recipients at once
    /// there is
    /// [`Mark::Refused`].
    Rejected(u32),
    /// All checks were passed in some round.
    Cleared,
}

/// An end, with a hash in place of the target's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EndMark {
    pub(super) recipient: u32,
    pub(super) routing: u64,
    pub(super) target: u64,
    pub(super) of: u32,
    pub(super) kind: EndKind,
}

impl From<&End> for EndMark {
    fn from(end: &End) -> Self {
        let hash = blake3::hash(end.target.as_bytes());
        let target = (&hash.as_bytes()[..8]).get_u64_le();
        Self { recipient: end.recipient, routing: end.routing, target, of: end.of, kind: end.kind }
    }
}

impl Mark {
    pub(super) fn end(end: &End) -> Self {
        Self::End(end.into())
    }

    /// The mark's bytes: length of the payload, kind, mail id, payload, checksum.
    pub(super) fn encode(&self, id: MailId, key: &Key, out: &mut BytesMut) {
        let mut payload = BytesMut::new();
        let kind = match self {
            Self::WentOn => 1,
            Self::Refused => 2,
            Self::Held(reason) => {
                let cut = reason.floor_char_boundary(REASON_MOST);
                payload.put_slice(&reason.as_bytes()[..cut]);
                3
            }
            Self::End(end) => {
                payload.put_u32_le(end.recipient);
                payload.put_u64_le(end.routing);
                payload.put_u64_le(end.target);
                payload.put_u32_le(end.of);
                payload.put_u8(match end.kind {
                    EndKind::Stored => 1,
                    EndKind::Held => 2,
                    EndKind::Dropped => 3,
                });
                4
            }
            Self::Buried(recipient) => of_one(*recipient, 5, &mut payload),
            Self::Replayed(recipient) => of_one(*recipient, 6, &mut payload),
            Self::Dropped(recipient) => of_one(*recipient, 7, &mut payload),
            Self::Rejected(recipient) => of_one(*recipient, 8, &mut payload),
            Self::Cleared => 9,
        };
        let start = out.len();
        out.put_u16_le(u16::try_from(payload.len()).unwrap_or(0));
        out.put_u8(kind);
        out.put_slice(&id.to_bytes());
        out.put_slice(&payload);
        let sum = blake3::keyed_hash(key, &out[start..]);
        out.put_slice(&sum.as_bytes()[..SUM]);
    }

    /// Takes one mark off the front. None at the end, or where what is there cannot be read.
    pub(super) fn decode(bytes: &mut Bytes, key: &Key) -> Option<(MailId, Self)> {
        let length = usize::from(bytes.get(..2).map(|mut two| two.get_u16_le())?);
        if length > PAYLOAD_MOST {
            return None;
        }
        let whole = bytes.get(..HEAD + length + SUM)?;
        let (content, sum) = whole.split_at(HEAD + length);
        if blake3::keyed_hash(key, content).as_bytes()[..SUM] != *sum {
            return None;
        }
        let id = MailId::from_bytes(content[3..HEAD].try_into().ok()?);
        let mark = payload(content[2], &content[HEAD..])?;
        bytes.advance(HEAD + length + SUM);
        Some((id, mark))
    }
}

fn of_one(recipient: u32, kind: u8, payload: &mut BytesMut) -> u8 {
    payload.put_u32_le(recipient);
    kind
}

fn payload(kind: u8, mut payload: &[u8]) -> Option<Mark> {
    match (kind, payload.len()) {
        (1, _) => Some(Mark::WentOn),
        (2, _) => Some(Mark::Refused),
        (3, _) => Some(Mark::Held(String::from_utf8_lossy(payload).into_owned())),
        (4, 25) => Some(Mark::End(EndMark {
            recipient: payload.get_u32_le(),
            routing: payload.get_u64_le(),
            target: payload.get_u64_le(),
            of: payload.get_u32_le(),
            kind: match payload.get_u8() {
                1 => EndKind::Stored,
                2 => EndKind::Held,
                3 => EndKind::Dropped,
                _ => return None,
            },
        })),
        (5, 4) => Some(Mark::Buried(payload.get_u32_le())),
        (6, 4) => Some(Mark::Replayed(payload.get_u32_le())),
        (7, 4) => Some(Mark::Dropped(payload.get_u32_le())),
        (8, 4) => Some(Mark::Rejected(payload.get_u32_le())),
        (9, _) => Some(Mark::Cleared),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = [3; 32];

    fn all() -> Vec<Mark> {
        let end = |kind| Mark::End(EndMark { recipient: 1, routing: u64::MAX, target: 5, of: 2, kind });
        vec![
            Mark::WentOn,
            Mark::Refused,
            Mark::Held("virus".into()),
            end(EndKind::Stored),
            end(EndKind::Held),
            end(EndKind::Dropped),
            Mark::Buried(7),
            Mark::Replayed(7),
            Mark::Dropped(7),
            Mark::Rejected(7),
            Mark::Cleared,
        ]
    }

    #[test]
    fn marks_come_back_and_a_torn_one_ends_them() {
        let mut out = BytesMut::new();
        let id = MailId::from_bytes([9; 16]);
        for mark in all() {
            mark.encode(id, &KEY, &mut out);
        }
        let whole = out.freeze();
        let read = |bytes: Bytes| {
            let mut bytes = bytes;
            std::iter::from_fn(|| Mark::decode(&mut bytes, &KEY)).collect::<Vec<_>>()
        };
        assert_eq!(read(whole.clone()), all().into_iter().map(|mark| (id, mark)).collect::<Vec<_>>());
        assert_eq!(read(whole.slice(..whole.len() - 1)).len(), all().len() - 1);
        assert_eq!(Mark::decode(&mut whole.clone(), &[4; 32]), None, "of another journal");
    }

    #[test]
    fn a_long_reason_is_cut() {
        let mut out = BytesMut::new();
        Mark::Held("ü".repeat(70_000)).encode(MailId::from_bytes([0; 16]), &KEY, &mut out);
        assert!(Mark::decode(&mut out.freeze(), &KEY).is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Mark::decode(&mut bytes.into(), &KEY);
        }
    }
}
