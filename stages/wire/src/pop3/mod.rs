//! The server's side of POP3 (RFC 1939), with CAPA (RFC 2449), STLS (RFC 2595) and SASL PLAIN (RFC 5034).

mod command;
mod question;
mod session;
mod text;

pub use question::{Answer, Entry, Limits, Question};
pub use session::Pop3Session;
