//! The store node: keeps the mail, serves IMAP and POP3.
