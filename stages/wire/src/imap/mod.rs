//! The server's side of IMAP4rev1 (RFC 3501): logging in, finding mailboxes, reading, flags, searching, expunging.
//!
//! The grammar is imap-codec's. A mailbox is a snapshot that the session keeps, so that sequence numbers stand still until
//! the client may be told of changes.

mod encode;
mod envelope;
mod fetch;
mod names;
mod question;
mod readable;
mod rows;
mod search;
mod section;
mod session;
mod set;
mod structure;

pub use question::{Answer, FlagMode, Limits, Mailbox, MessageRow, Question, View, flags};
pub use rows::Rows;
pub use session::ImapSession;
