//! What the operator's commands print, on standard output.
//!
//! Whoever reads may leave early, like `head`: what is left to print goes nowhere then, and the command does the rest
//! of its work all the same. `println!` would panic there, between a change and its announcement.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};

/// Prints a line.
///
/// # Errors
/// When it cannot be written, but not because nobody reads any more.
pub(crate) fn say(line: fmt::Arguments<'_>) -> io::Result<()> {
    read_or_left(writeln!(io::stdout(), "{line}"))
}

/// Prints a text as it is.
///
/// # Errors
/// When it cannot be written, but not because nobody reads any more.
pub(crate) fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    // What does not end with a line's end would be written when the program ends, where no error is seen.
    read_or_left(stdout.write_all(text).and_then(|()| stdout.flush()))
}

fn read_or_left(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
