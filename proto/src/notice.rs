//! Notices to an accept node about mails whose sender may still be waiting. Losing one costs time only.

use bytes::Bytes;
use prost::Message as _;

use crate::envelope::Envelope;
use crate::{MailId, Malformed, wire};

/// What a stage tells the accept node.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// All checks passed: the waiting sender can have its 250.
    Cleared(MailId),
    /// A stage rejects this mail. Answered with a [`Decision`].
    Rejected(Box<Envelope>),
    /// The mail is held: the waiting sender can have its 250, but no check was passed by that.
    Held(MailId),
    /// The body of this mail is nowhere. Answered with a [`Decision`]: settled when the mail has ended, and undecided
    /// as long as accept sends it round.
    Missed(MailId),
}

/// What the accept node, the arbiter, made of a rejected mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The sender was told 550: the mail has ended.
    Refused,
    /// The sender had its 250 already: accept has sent the mail on as held.
    Held,
    /// Another round of this mail was cleared, or it has ended: accept has seen to it.
    Settled,
    /// Accept could not decide, or not send it on: ask again later.
    Undecided,
}

impl Notice {
    /// The notice as protobuf.
    pub fn encode(&self) -> Bytes {
        let what = match self {
            Self::Cleared(id) => wire::notice::What::Cleared(id.to_bytes().to_vec()),
            Self::Rejected(envelope) => wire::notice::What::Rejected(envelope.encode().to_vec()),
            Self::Held(id) => wire::notice::What::Held(id.to_bytes().to_vec()),
            Self::Missed(id) => wire::notice::What::Missed(id.to_bytes().to_vec()),
        };
        wire::Notice { what: Some(what) }.encode_to_vec().into()
    }

    /// Reads a notice. Errors: bytes that are not one.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        match wire::Notice::decode(bytes)?.what {
            Some(wire::notice::What::Cleared(id)) => Ok(Self::Cleared(MailId::checked(&id, "cleared")?)),
            Some(wire::notice::What::Rejected(envelope)) => {
                Ok(Self::Rejected(Box::new(Envelope::decode(envelope.into())?)))
            }
            Some(wire::notice::What::Held(id)) => Ok(Self::Held(MailId::checked(&id, "held")?)),
            Some(wire::notice::What::Missed(id)) => Ok(Self::Missed(MailId::checked(&id, "missed")?)),
            None => Err(Malformed::Missing("what")),
        }
    }
}

impl Decision {
    /// The decision as protobuf.
    pub fn encode(self) -> Bytes {
        let decision = match self {
            Self::Refused => wire::Decision::Refused,
            Self::Held => wire::Decision::Held,
            Self::Settled => wire::Decision::Settled,
            Self::Undecided => wire::Decision::Undecided,
        };
        wire::Arbitration { decision: decision.into() }.encode_to_vec().into()
    }

    /// Reads a decision. One that is not known is undecided: asking again is always safe.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let arbitration = wire::Arbitration::decode(bytes)?;
        Ok(match wire::Decision::try_from(arbitration.decision) {
            Ok(wire::Decision::Refused) => Self::Refused,
            Ok(wire::Decision::Held) => Self::Held,
            Ok(wire::Decision::Settled) => Self::Settled,
            Ok(wire::Decision::Undecided) | Err(_) => Self::Undecided,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn decisions_come_back() {
        for decision in [Decision::Refused, Decision::Held, Decision::Settled, Decision::Undecided] {
            assert_eq!(Decision::decode(decision.encode()).unwrap(), decision);
        }
    }

    #[test]
    fn an_unknown_or_empty_decision_decides_nothing() {
        assert_eq!(Decision::decode(Bytes::new()).unwrap(), Decision::Undecided);
        let raw = wire::Arbitration { decision: 42 }.encode_to_vec();
        assert_eq!(Decision::decode(raw.into()).unwrap(), Decision::Undecided);
    }

    #[test]
    fn a_notice_about_nothing_is_refused() {
        assert_eq!(Notice::decode(Bytes::new()), Err(Malformed::Missing("what")));
        let id = MailId::from_bytes([1; 16]);
        for notice in [Notice::Cleared(id), Notice::Held(id), Notice::Missed(id)] {
            assert_eq!(Notice::decode(notice.encode()).unwrap(), notice);
        }
    }
}
