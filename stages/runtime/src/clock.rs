//! The only place that reads the wall clock and draws randomness, for ids and keys.
#![allow(clippy::disallowed_methods)]

use std::time::{SystemTime, UNIX_EPOCH};

use proto::{MailId, Millis};

/// The time by the wall clock. A clock set before 1970 reads as 1970.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A new mail id for a mail that arrives at this moment.
pub fn new_mail_id() -> MailId {
    MailId::new(now(), rand::random::<u128>() >> 48)
}

/// A secret for keyed checksums.
pub fn new_key() -> [u8; 32] {
    rand::random()
}
