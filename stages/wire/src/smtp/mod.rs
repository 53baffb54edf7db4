//! The server's side of SMTP (RFC 5321), with PIPELINING, SIZE, 8BITMIME, STARTTLS and ENHANCEDSTATUSCODES.

pub mod client;
pub mod command;
pub mod data;
pub mod path;
pub mod reply;
mod session;

pub use command::{Recipient, Sender};
pub use path::Path;
pub use reply::Reply;
pub use session::{Answer, Limits, Message, Question, SmtpSession, Tls};
