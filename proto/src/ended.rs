//! What became of a mail's recipients, told to the accept node whose journal keeps the mail.

use bytes::Bytes;
use prost::Message as _;

use crate::{MailId, Malformed, wire};

/// How a recipient ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// In a mailbox of its own.
    Stored,
    /// In the quarantine's mailbox.
    Held,
    /// Given up by an operator.
    Dropped,
}

/// One target of one recipient is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Index into the envelope's recipients.
    pub recipient: u32,
    /// Names the set of targets that the recipient was resolved to.
    pub routing: u64,
    /// Which of them this is: the account's address.
    pub target: String,
    /// How many they are: the recipient has ended when all targets of one set have.
    pub of: u32,
    /// How it ended.
    pub kind: EndKind,
}

/// A stage gave the mail up for these recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burial {
    /// The stage that gave up.
    pub stage: String,
    /// Why, for people.
    pub reason: String,
    /// Indexes into the envelope's recipients.
    pub recipients: Vec<u32>,
}

/// News about one mail for its accept node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The mail.
    pub id: MailId,
    /// Targets that are done.
    pub ends: Vec<End>,
    /// Set when a stage buried it.
    pub burial: Option<Burial>,
}

impl Ended {
    /// The news as protobuf.
    pub fn encode(&self) -> Bytes {
        wire::Ended {
            id: self.id.to_bytes().to_vec(),
            ends: self.ends.iter().map(encode_end).collect(),
            burial: self.burial.clone().map(|b| wire::Burial {
                stage: b.stage,
                reason: b.reason,
                recipients: b.recipients,
            }),
        }
        .encode_to_vec()
        .into()
    }

    /// Reads the news. Errors: bytes that are not one, an id of the wrong length, a kind of end that is not known.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let ended = wire::Ended::decode(bytes)?;
        Ok(Self {
            id: MailId::checked(&ended.id, "id")?,
            ends: ended.ends.into_iter().map(decode_end).collect::<Result<_, _>>()?,
            burial: ended.burial.map(|b| Burial { stage: b.stage, reason: b.reason, recipients: b.recipients }),
        })
    }
}

fn encode_end(end: &End) -> wire::End {
    let kind = match end.kind {
        EndKind::Stored => wire::EndKind::Stored,
        EndKind::Held => wire::EndKind::Held,
        EndKind::Dropped => wire::EndKind::Dropped,
    };
    wire::End {
        recipient: end.recipient,
        routing: end.routing,
        target: end.target.clone(),
        of: end.of,
        kind: kind.into(),
    }
}

fn decode_end(end: wire::End) -> Result<End, Malformed> {
    let kind = match wire::EndKind::try_from(end.kind) {
        Ok(wire::EndKind::Stored) => EndKind::Stored,
        Ok(wire::EndKind::Held) => EndKind::Held,
        Ok(wire::EndKind::Dropped) => EndKind::Dropped,
        Ok(wire::EndKind::Unspecified) | Err(_) => {
            let found = end.kind.to_string();
            return Err(Malformed::Wrong { field: "kind", found, wanted: "a known kind of end" });
        }
    };
    Ok(End { recipient: end.recipient, routing: end.routing, target: end.target, of: end.of, kind })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ended() -> Ended {
        let end = |kind| End { recipient: 1, routing: 7, target: "a@example.org".into(), of: 2, kind };
        Ended {
            id: MailId::from_bytes([3; 16]),
            ends: vec![end(EndKind::Stored), end(EndKind::Held), end(EndKind::Dropped)],
            burial: Some(Burial { stage: "store".into(), reason: "why".into(), recipients: vec![0, 4] }),
        }
    }

    #[test]
    fn the_news_come_back_whole() {
        assert_eq!(Ended::decode(ended().encode()).unwrap(), ended());
    }

    #[test]
    fn an_unknown_kind_of_end_is_never_taken_for_an_end() {
        for kind in [0, 9] {
            let mut raw = wire::Ended { id: vec![3; 16], ..wire::Ended::default() };
            raw.ends.push(wire::End { kind, ..wire::End::default() });
            assert!(Ended::decode(raw.encode_to_vec().into()).is_err());
        }
    }

    #[test]
    fn an_id_of_the_wrong_length_is_refused() {
        let raw = wire::Ended { id: vec![3; 15], ..wire::Ended::default() };
        assert!(Ended::decode(raw.encode_to_vec().into()).is_err());
    }
}
