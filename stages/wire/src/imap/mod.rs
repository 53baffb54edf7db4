//! The server's side of IMAP4rev1 (RFC 3501): logging in, finding mailboxes, reading, flags, searching, expunging.
//!
//! The grammar is imap-codec's. A mailbox is a snapshot that the session keeps, so that sequence numbers stand still
//! until the client may be told of changes.

#[cfg(test)]
mod agreement;
mod basic;
mod encode;
mod envelope;
mod extended;
mod facts;
mod fetch;
mod names;
mod needle;
mod outline;
mod pieces;
mod question;
mod readable;
mod rows;
mod search;
mod section;
mod session;
mod set;
mod sort;
mod structure;
mod subject;
mod text;
mod thread;

pub use names::is_mailbox_name;
pub use needle::Needle;
pub use outline::{Outline, is_kept, is_neutral};
pub use question::{
    Answer, Appended, CopyMode, FlagMode, Incoming, Keywords, Limits, Load, Mailbox, Manage, MessageRow, No, Placed,
    Question, Quota, View, flags,
};
pub use readable::Readable;
pub use rows::{Rows, WeakRows};
pub use search::{Criteria, Wanted};
pub use session::ImapSession;
