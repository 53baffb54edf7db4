//! What imap-codec does not know of the commands: read before it.

pub(super) mod deep;
pub(super) mod list;
pub(super) mod quoted;
mod reader;
pub(super) mod search;
