//! SMTP, the journal, and the verdict before the 250.

pub mod journal;
