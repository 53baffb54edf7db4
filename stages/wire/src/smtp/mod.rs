//! The server's side of SMTP (RFC 5321), with PIPELINING, SIZE, 8BITMIME, STARTTLS and ENHANCEDSTATUSCODES.
//!
//! [`SmtpSession`] is the dialogue; it asks its driver [`Question`]s and is bound by [`Limits`]. What a client does
//!   wrong
//! costs it a reply; what the world cannot answer is put to the client as "later".

pub mod client;
pub mod command;
mod data;
mod input;
mod limits;
mod line;
mod mode;
pub mod path;
mod question;
pub mod reply;
mod session;

pub use command::{Recipient, Sender};
pub use limits::Limits;
pub use path::Path;
pub use question::{Answer, Message, Question};
pub use reply::Reply;
pub use session::SmtpSession;
