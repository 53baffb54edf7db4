//! What the end-to-end tests share: a chain of real programs, and plain clients for it.
#![allow(clippy::unwrap_used, missing_docs)]

pub mod chain;
pub mod clamd;
pub mod clients;
pub mod corpora;
pub mod crowd;
pub mod dovecot;
pub mod imaptest;
pub mod load;
pub mod loadgen;
pub mod people;
pub mod ports;
pub mod servers;
pub mod trace;
