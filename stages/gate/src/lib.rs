//! The front line: DNS lists, asked before any mail is looked at.
