//! The server's side of POP3 (RFC 1939), with CAPA (RFC 2449), STLS (RFC 2595) and SASL PLAIN (RFC 5034).

mod command;
mod session;

pub use session::{Answer, Cleartext, Entry, Limits, Pop3Session, Question, Tls};
