//! Command lines: takes them off the input one by one, whatever comes.
//!
//! Only CR LF ends a line. A line that is too long, or that holds a CR or LF by itself, is answered once and read over
//! up to its true end: nothing in it is taken for a command, since others may see commands there that we did not mean.

use bytes::{Buf as _, Bytes, BytesMut};

use super::reply::Reply;

/// Where in a line the input begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At its start.
    Start,
    /// Inside one that is too long; its sender was not told yet.
    TooLong,
    /// Inside one that was answered already.
    Answered,
}

/// Takes lines off an input.
#[derive(Debug)]
pub(super) struct Lines {
    /// Bytes of a line with its end.
    most: usize,
    place: Place,
}

impl Lines {
    pub(super) fn new(most: usize) -> Self {
        Self { most, place: Place::Start }
    }

    /// The next line without its end, or the reply to one that is not fit to be read; nothing while its end is missing.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Option<Result<Bytes, Reply>> {
        loop {
            let Some(end) = memchr::memchr(b'\n', input) else {
                self.drop_beginning(input);
                return None;
            };
            let line = input.split_to(end + 1).freeze();
            let whole = line.ends_with(b"\r\n");
            let after = if whole { Place::Start } else { Place::Answered };
            let place = std::mem::replace(&mut self.place, after);
            if place == Place::Answered {
                continue;
            }
            if place == Place::TooLong || line.len() > self.most {
                return Some(Err(Reply::line_too_long()));
            }
            let text = line.slice(..line.len() - usize::from(whole) - 1);
            let fit = whole && memchr::memchr2(b'\r', 0, &text).is_none();
            return Some(if fit { Ok(text) } else { Err(Reply::bare_line_end()) });
        }
    }

    /// Lets go of the beginning of a line that is too long already, but for a CR that may belong to its end.
    fn drop_beginning(&mut self, input: &mut BytesMut) {
        if input.len() < self.most {
            return;
        }
        input.advance(input.len() - usize::from(input.ends_with(b"\r")));
        if self.place == Place::Start {
            self.place = Place::TooLong;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `sent`, with the code for each that is refused, whatever the pieces in which they come.
    #[track_caller]
    fn check(sent: &[u8], want: &[Result<&str, u16>]) {
        for piece in [1, 2, 3, 5, 64] {
            let (mut lines, mut input, mut got) = (Lines::new(8), BytesMut::new(), Vec::new());
            for bytes in sent.chunks(piece) {
                input.extend_from_slice(bytes);
                while let Some(line) = lines.take(&mut input) {
                    got.push(line.map_err(|reply| reply.code()));
                }
            }
            let want: Vec<_> =
                want.iter().map(|line| line.map(|text| Bytes::copy_from_slice(text.as_bytes()))).collect();
            assert_eq!(got, want, "in pieces of {piece}");
        }
    }

    #[test]
    fn lines() {
        check(b"a\r\n\r\nbc\r\nd", &[Ok("a"), Ok(""), Ok("bc")]);
    }

    #[test]
    fn the_longest() {
        check(b"123456\r\n1234567\r\na\r\n", &[Ok("123456"), Err(500), Ok("a")]);
        check(&[&[b'x'; 100][..], b"\r\na\r\n"].concat(), &[Err(500), Ok("a")]);
    }

    #[test]
    fn nothing_behind_a_bare_line_end_is_a_command() {
        check(b"a\nb\r\nc\r\n", &[Err(500), Ok("c")]);
        check(b"a\rb\r\nc\r\n", &[Err(500), Ok("c")]);
        check(b"a\r\r\nc\r\n", &[Err(500), Ok("c")]);
        check(b"a\n\n\nb\nxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nc\r\n", &[Err(500), Ok("c")]);
        check(b"xxxxxxxxxxxxxxxxxxxxxx\nb\r\nc\r\n", &[Err(500), Ok("c")]);
    }

    #[test]
    fn no_nul() {
        check(b"a\0b\r\nc\r\n", &[Err(500), Ok("c")]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut lines, mut input) = (Lines::new(8), BytesMut::new());
        for _ in 0..100 {
            input.extend_from_slice(b"xxx\r");
            assert!(lines.take(&mut input).is_none());
            assert!(input.len() <= 8);
        }
    }
}
