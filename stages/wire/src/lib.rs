//! SMTP, POP3, IMAP and PROXY: bytes in, events and bytes out.
//!
//! Nothing here owns a socket, a clock or a task: each protocol is a [`session::Session`] that its driver feeds and
//! asks. What a peer sends can make a session answer with an error, or close; it can never make it panic or grow beyond
//! the limits given to its constructor.

pub mod imap;
pub mod mime;
pub mod pop3;
pub mod proxy;
pub mod secret;
pub mod session;
pub mod smtp;
