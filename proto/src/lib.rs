//! What travels between the programs: envelopes, ends, notices, and the names of every stream and subject.
//!
//! The generated protobuf types stay inside this crate. What leaves it is checked: nothing required is optional, ids
//! and digests have their length, and fields that a newer program added survive a program that does not know them.

mod dead;
mod ended;
mod envelope;
mod id;
mod notice;
pub mod subjects;
mod unknown;
mod verdict;
mod wire;

pub use dead::DeadLetter;
pub use ended::{Burial, End, EndKind, Ended};
pub use envelope::{Arrival, BodyRef, Client, Envelope, Folder, GateFacts, Listing, Recipient, Target};
pub use id::{Digest, MailId, Millis, NodeName};
pub use notice::{Decision, Notice};
pub use verdict::{Cut, Disposition, Symbol, Verdict};

/// Why bytes from the broker are not what they should be. Whoever meets one of these buries the message: trying again
/// gives the same bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// Not protobuf at all, or a field of the wrong type.
    #[error("not a readable message: {0}")]
    Undecodable(String),
    /// A field that must be there is absent.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A field is there and wrong.
    #[error("field {field} is {found}, it must be {wanted}")]
    Wrong {
        /// The field's name in `mail.proto`.
        field: &'static str,
        /// What was found.
        found: String,
        /// What would be right.
        wanted: &'static str,
    },
}

impl From<prost::DecodeError> for Malformed {
    fn from(error: prost::DecodeError) -> Self {
        Self::Undecodable(error.to_string())
    }
}
