//! The server's side of POP3.
