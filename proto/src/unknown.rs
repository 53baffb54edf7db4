//! Keeps the fields of a message that this program does not know, so that they travel on unchanged.

use bytes::{Buf, Bytes, BytesMut};
use prost::encoding::{DecodeContext, decode_key, skip_field};

use crate::Malformed;

/// Gives the encoded fields of `message` whose number is above `last_known`, one behind the other, as they came.
pub(crate) fn collect(message: &Bytes, last_known: u32) -> Result<Bytes, Malformed> {
    let mut rest = message.clone();
    let mut unknown = BytesMut::new();
    while rest.has_remaining() {
        let before = rest.clone();
        let (number, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        if number > last_known {
            unknown.extend_from_slice(&before[..before.len() - rest.len()]);
        }
    }
    Ok(unknown.freeze())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_unknown_ones_are_kept() {
        // Field 1 (varint 5), field 100 (bytes "hi"), field 2 (varint 1), field 101 (varint 300).
        let message = Bytes::from_static(b"\x08\x05\xa2\x06\x02hi\x10\x01\xa8\x06\xac\x02");
        assert_eq!(&collect(&message, 16).unwrap()[..], b"\xa2\x06\x02hi\xa8\x06\xac\x02");
        assert!(collect(&message, 101).unwrap().is_empty());
    }

    #[test]
    fn a_torn_field_is_an_error() {
        assert!(collect(&Bytes::from_static(b"\xa2\x06\x05hi"), 16).is_err());
    }
}
