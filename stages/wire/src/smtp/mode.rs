//! Where in the dialogue a session is.

use super::command::{Recipient, Sender};
use super::data::Reader;

#[derive(Debug)]
pub(super) enum Mode {
    Command,
    Data(Reader),
    /// The last question decides what the answer means.
    Asked(Asked),
}

#[derive(Debug)]
pub(super) enum Asked {
    Sender(Sender),
    Recipient(Recipient),
    Data,
    Grow(Reader),
    Message,
}

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) sender: Sender,
    pub(super) recipients: Vec<Recipient>,
}
