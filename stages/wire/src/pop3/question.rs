//! What the session asks of the world, what the world answers, and what both are about.

use bytes::Bytes;

use crate::secret::Secret;

/// What a client may take up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a line with its end; RFC 2449 section 4 asks for 255, an initial response of SASL for more.
    pub line: usize,
    /// Commands that get an error, before the connection is closed.
    pub errors: u32,
    /// Logins that fail, before the connection is closed.
    pub failed_logins: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line: 1024, errors: 20, failed_logins: 3 }
    }
}

/// One message of the maildrop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Bytes.
    pub size: u64,
    /// Names it for ever (RFC 1939 section 7): 1 to 70 printable characters.
    pub unique: String,
}

/// What the session asks of the world.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// Is this the user's password? Answer: the maildrop, refused, elsewhere, or unavailable.
    Login {
        /// The user.
        user: String,
        /// The password.
        password: Secret<String>,
    },
    /// The text of the message at this index of the maildrop, counted from 0. Answer: text, or unavailable.
    Message(usize),
    /// Delete these messages for good. Answer: done, or unavailable.
    Delete(Vec<usize>),
}

/// What the world says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Logged in.
    Maildrop(Vec<Entry>),
    /// Wrong user or password.
    Refused,
    /// The message.
    Text(Bytes),
    /// Done.
    Done,
    /// The maildrop is on the store node of this name.
    Elsewhere(String),
    /// The account has as many sessions as it may have.
    Crowded,
    /// Not at the moment.
    Unavailable,
}
