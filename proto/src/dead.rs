//! Dead letters: messages that a stage gave up, kept for an operator.

use bytes::Bytes;
use prost::Message as _;

use crate::{Malformed, Millis, wire};

/// What the runtime puts into the stream DEAD when it buries a message. The journal still keeps the mail itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The stage that gave up.
    pub stage: String,
    /// Why, for people.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u64,
    /// From the mail's arrival to its burial.
    pub age: std::time::Duration,
    /// When it was buried.
    pub buried: Millis,
    /// The message as the stage got it: an [`crate::Envelope`], unless it was unreadable.
    pub payload: Bytes,
}

impl DeadLetter {
    /// The letter as protobuf.
    pub fn encode(&self) -> Bytes {
        wire::DeadLetter {
            stage: self.stage.clone(),
            reason: self.reason.clone(),
            attempts: self.attempts,
            age: u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX),
            buried: self.buried.0,
            payload: self.payload.clone(),
        }
        .encode_to_vec()
        .into()
    }

    /// Reads a letter. Errors: bytes that are not one.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let letter = wire::DeadLetter::decode(bytes)?;
        Ok(Self {
            stage: letter.stage,
            reason: letter.reason,
            attempts: letter.attempts,
            age: std::time::Duration::from_millis(letter.age),
            buried: Millis(letter.buried),
            payload: letter.payload,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_letter_comes_back_whole() {
        let letter = DeadLetter {
            stage: "scan".into(),
            reason: "panicked".into(),
            attempts: 3,
            age: std::time::Duration::from_secs(9),
            buried: Millis(77),
            payload: Bytes::from_static(b"\xff\xff"),
        };
        assert_eq!(DeadLetter::decode(letter.encode()).unwrap(), letter);
    }
}
