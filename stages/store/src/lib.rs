//! The store node: keeps the mail, serves IMAP and POP3.
//!
//! Accounts are spread over shards; a shard is a database for everything small and pack files for the bodies. A
//! delivery is answered when body and rows are synced; a repeated one creates nothing. When the disk fails, deliveries
//! wait.

pub mod config;
pub mod held;
mod imap;
pub mod indexing;
pub mod ingest;
mod logins;
pub mod node;
mod pack;
mod pop3;
mod rewrite;
mod seats;
mod serve;
pub mod shard;
mod syncs;
mod texts;
pub mod verify;
mod views;

pub use config::Config;
pub use ingest::Ingest;
pub use node::Node;
pub use serve::serve;
