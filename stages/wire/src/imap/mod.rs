//! The server's side of IMAP.
