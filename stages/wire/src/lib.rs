//! SMTP, POP3, IMAP and PROXY: bytes in, events and bytes out.
