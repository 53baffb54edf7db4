//! What a client has sent and nobody has worked off. It keeps no room for what is not there: many clients are silent.

use std::ops::{Deref, DerefMut};

use bytes::BytesMut;

/// Bytes in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: BytesMut,
    /// How many there were when the last came.
    were: usize,
}

impl Input {
    /// More has come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.were = self.bytes.len();
    }

    /// What is left waits for more. It moves to a place of its own size if something was worked off: it came with that,
    /// so what is copied is less than what was read, however small the pieces.
    pub(super) fn rest(&mut self) {
        if self.bytes.len() < self.were {
            self.bytes = BytesMut::from(&self.bytes[..]);
            self.were = self.bytes.len();
        }
    }
}

impl Deref for Input {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        &self.bytes
    }
}

impl DerefMut for Input {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf as _;

    use super::*;

    #[test]
    fn what_was_worked_off_takes_no_room() {
        let mut input = Input::default();
        input.push(&[1; 50_000]);
        input.push(&[2; 50_000]);
        input.rest();
        assert_eq!(input.len(), 100_000, "nothing was worked off");
        input.advance(99_990);
        input.rest();
        assert_eq!(input[..], [2; 10]);
        input.push(&[3; 2]);
        assert!(input.capacity() < 1_000, "{}", input.capacity());
        input.advance(12);
        input.rest();
        assert_eq!((input.len(), input.capacity()), (0, 0));
    }
}
