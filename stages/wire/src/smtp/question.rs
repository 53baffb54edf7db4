//! What an SMTP session asks of the world, and what the world answers.
//!
//! A question that gets an answer of another question's kind counts as a failure of ours: the client is told to try
//! again later.

use bytes::Bytes;

use super::command::{Recipient, Sender};
use super::reply::Reply;

/// A message that has come whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// What the client calls itself.
    pub helo: String,
    /// Whether it said EHLO (`ESMTP` in the Received field, RFC 3848) or HELO.
    pub extended: bool,
    /// MAIL.
    pub sender: Sender,
    /// RCPT; never empty.
    pub recipients: Vec<Recipient>,
    /// Exactly what the client sent, without dot-stuffing and the final dot. Every line ends with CR LF; no CR or LF
    /// stands alone. Zero bytes are a message too.
    pub body: Bytes,
}

/// What the session asks of the world.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// May this sender begin? Answer: accept or a refusing reply.
    Sender(Sender),
    /// Does this recipient exist? Answer: accept or a refusing reply.
    Recipient(Recipient),
    /// Is there room for a message? Answer: how many bytes are reserved for it, or a refusing reply. After a refusal
    /// the transaction stands, so that the client may try DATA again.
    Data {
        /// From SIZE, bytes.
        declared: Option<u64>,
    },
    /// The message needs more room than was reserved. Answer: reserve a larger total, or a refusing reply, which the
    /// client gets once the message has come to its end; until then nothing of it is kept.
    Grow {
        /// Bytes wanted in all. More may be reserved, and less as long as it is more than before.
        total: u64,
    },
    /// Here is a message; what was reserved for it passes to whoever answers. Answer: the final reply, whenever it is
    /// known.
    Message(Box<Message>),
    /// Bytes came after our final reply to the last message was put out, so its sender has most likely read it. What
    /// had come before proves nothing: clients send QUIT or the next MAIL together with the final dot (RFC 2920).
    /// Answer: noted.
    WentOn,
    /// The transaction is over without a message; what was reserved is free. Answer: noted.
    Abandoned,
}

/// What the world says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Accept,
    /// Yes, and so many bytes may be held in all.
    Reserve(u64),
    /// No, or the final word about a message.
    Reply(Reply),
    /// Heard.
    Noted,
}

impl Answer {
    /// The reply; for an answer that the question does not have, that something of ours is wrong.
    pub(super) fn into_reply(self) -> Reply {
        match self {
            Self::Reply(reply) => reply,
            Self::Accept | Self::Reserve(_) | Self::Noted => Reply::local_error(),
        }
    }
}
