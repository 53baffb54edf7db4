//! The end of DATA: takes a message's lines off the input, undoes dot-stuffing, and finds the one true end.
//!
//! Only CR LF `.` CR LF ends a message (RFC 5321 section 4.1.1.4). A CR or LF by itself spoils the message, since other
//! programs could see an end there; the reader keeps its place, reads on to the true end, and then says why the message
//! is refused. Whatever a message holds, nothing in it is ever taken for a command.

use bytes::{Buf as _, Bytes, BytesMut};

use super::reply::Reply;

/// A line without an end in sight is taken in pieces of this size, so that it does not gather in the input. Ordinary
/// mail has lines of up to 998 bytes (RFC 5321 section 4.5.3.1.6); longer ones are taken too, since many programs make
/// them.
const PIECE: usize = 64 * 1024;

/// Room for a message whose size was not declared, at first: most have less.
const UNDECLARED: u64 = 16 * 1024;

/// The least by which more room is asked for.
const GROWTH: u64 = 64 * 1024;

/// What reading has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More bytes are needed.
    More,
    /// More room must be reserved before reading goes on: so many bytes in all.
    Outgrown(u64),
    /// The true end was found.
    End,
}

/// Bounds of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of the whole message.
    pub(super) message: u64,
    /// Bytes of its header section.
    pub(super) header: u64,
}

/// A message that is being read.
#[derive(Debug)]
pub(super) struct Reader {
    body: BytesMut,
    bounds: Bounds,
    reserved: u64,
    /// Bytes of the body so far, those not copied yet included.
    total: u64,
    /// Why the message will be refused, once its end is found.
    refusal: Option<Reply>,
    /// The next byte stands right behind a CR LF (or the DATA command itself).
    at_line_start: bool,
    /// The next byte continues a line of which a piece was taken.
    mid_line: bool,
    in_header: bool,
}

impl Reader {
    /// A reader for a message that was declared with a size, or not, and may use `reserved` bytes before it asks for
    /// more.
    pub(super) fn new(bounds: Bounds, declared: Option<u64>, reserved: u64) -> Self {
        let room = declared.unwrap_or(UNDECLARED).min(reserved).min(bounds.message);
        Self {
            body: BytesMut::with_capacity(usize::try_from(room).unwrap_or_default()),
            bounds,
            reserved,
            total: 0,
            refusal: None,
            at_line_start: true,
            mid_line: false,
            in_header: true,
        }
    }

    /// More room was reserved: so many bytes in all. If that is not more than before, it is a failure of ours.
    pub(super) fn reserve(&mut self, total: u64) {
        if total <= self.reserved {
            self.refuse(Reply::local_error());
        }
        self.reserved = total;
    }

    /// The message will be refused at its end, and nothing of it is kept any more. The first reason stands.
    pub(super) fn refuse(&mut self, reply: Reply) {
        self.body = BytesMut::new();
        self.refusal.get_or_insert(reply);
    }

    /// The body, or the reply that refuses it.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn finish(self) -> Result<Bytes, Reply> {
        match self.refusal {
            Some(reply) => Err(reply),
            None => Ok(self.body.freeze()),
        }
    }

    /// Takes what it can off the front of `input`.
    pub(super) fn read(&mut self, input: &mut BytesMut) -> Progress {
        // Bytes from `run` up to `at` were looked at and belong to the body; they are copied together.
        let (mut run, mut at) = (0, 0);
        let progress = loop {
            let Some(length) = line_or_piece(&input[at..]) else { break Progress::More };
            let bytes = &input[at..at + length];
            if self.at_line_start && bytes == b".\r\n" {
                break Progress::End;
            }
            // RFC 5321 section 4.5.2.
            let stuffed = usize::from(self.at_line_start && bytes[0] == b'.');
            if let Some(total) = self.wants(bytes.len() - stuffed) {
                break Progress::Outgrown(total);
            }
            self.look_at(bytes);
            if stuffed == 1 {
                self.keep(&input[run..at]);
                run = at + 1;
            }
            at += length;
        };
        self.keep(&input[run..at]);
        input.advance(at + if progress == Progress::End { 3 } else { 0 });
        progress
    }

    /// Admits so many bytes more, or says how much room must be reserved first.
    fn wants(&mut self, more: usize) -> Option<u64> {
        if self.refusal.is_some() {
            return None;
        }
        let total = self.total + more as u64;
        let most = if self.in_header { self.bounds.header.min(self.bounds.message) } else { self.bounds.message };
        if total > self.reserved && self.reserved < most {
            let grown = self.reserved.saturating_mul(2).max(self.reserved.saturating_add(GROWTH));
            return Some(grown.min(self.bounds.message));
        }
        if total > self.bounds.message {
            self.refuse(Reply::too_large(self.bounds.message));
        } else if total > most {
            self.refuse(Reply::header_too_large());
        }
        self.total = total;
        None
    }

    /// Notices where lines end and whether they end as they must.
    fn look_at(&mut self, bytes: &[u8]) {
        let ended = bytes.ends_with(b"\n");
        let proper = bytes.ends_with(b"\r\n");
        let text = &bytes[..bytes.len() - if proper { 2 } else { usize::from(ended) }];
        if (ended && !proper) || memchr::memchr(b'\r', text).is_some() {
            self.refuse(Reply::bare_line_end_in_message());
        }
        if bytes == b"\r\n" && !self.mid_line {
            self.in_header = false;
        }
        self.at_line_start = proper;
        self.mid_line = !ended;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.refusal.is_none() {
            self.body.extend_from_slice(bytes);
        }
    }
}

/// The length of the line at the start of `bytes`, or of a piece of it if it is long; the same however the bytes came.
/// A CR at a piece's end is left for the next one: it may belong to the line's end.
fn line_or_piece(bytes: &[u8]) -> Option<usize> {
    let window = &bytes[..bytes.len().min(PIECE)];
    match memchr::memchr(b'\n', window) {
        Some(end) => Some(end + 1),
        None if bytes.len() > PIECE => Some(PIECE - usize::from(window.ends_with(b"\r"))),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { message: 300_000, header: 200_000 };

    type Read = (Result<Vec<u8>, u16>, Vec<u8>);

    /// Feeds `sent` in pieces; gives the body or the refusal's code, and what is left behind the end.
    fn run(sent: &[u8], piece: usize, bounds: Bounds) -> Option<Read> {
        let (mut reader, mut input) = (Reader::new(bounds, None, u64::MAX), BytesMut::new());
        let mut rest = sent;
        loop {
            match reader.read(&mut input) {
                Progress::End => {
                    let body = reader.finish().map(|body| body.to_vec()).map_err(|reply| reply.code());
                    return Some((body, [&input[..], rest].concat()));
                }
                _ if rest.is_empty() => return None,
                _ => {
                    let (now, later) = rest.split_at(piece.min(rest.len()));
                    input.extend_from_slice(now);
                    rest = later;
                }
            }
        }
    }

    #[track_caller]
    fn check(sent: &[u8], want: Option<Result<&[u8], u16>>) {
        for piece in [1, 2, 3, 7, sent.len().max(1)] {
            let got = run(sent, piece, BOUNDS);
            let got = got.as_ref().map(|(body, _)| body.as_ref().map(Vec::as_slice).map_err(|code| *code));
            assert_eq!(got, want, "in pieces of {piece}");
        }
    }

    #[test]
    fn plain() {
        check(b"a: b\r\n\r\ntext\r\n.\r\n", Some(Ok(b"a: b\r\n\r\ntext\r\n")));
    }

    #[test]
    fn an_empty_message_is_a_message() {
        check(b".\r\n", Some(Ok(b"")));
    }

    #[test]
    fn dots_are_unstuffed() {
        check(b"..\r\n...x\r\n.y\r\na.\r\n.\r\n", Some(Ok(b".\r\n..x\r\ny\r\na.\r\n")));
    }

    #[test]
    fn only_the_true_end_ends() {
        for fake in
            [&b"a\n.\n"[..], b"a\n.\r\n", b"a\r\n.\n", b"a\r.\r\n", b"a\r\n.\r", b"a\r\n\x00.\r\n", b"a\r\n.\r\r\n"]
        {
            check(fake, None);
        }
    }

    #[test]
    fn smuggled_ends_are_read_over_and_refused() {
        for fake in [&b"\n.\n"[..], b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r.\r", b"\r\n.\r\r\n", b"\n.\r", b"\r"] {
            let sent = [b"a", fake, b"MAIL FROM:<x@y>\r\n.\r\n"].concat();
            check(&sent, Some(Err(550)));
        }
    }

    #[test]
    fn nuls_and_high_bytes_pass_unaltered() {
        check(b"\0\xff\x80\r\n.\r\n", Some(Ok(b"\0\xff\x80\r\n")));
    }

    #[test]
    fn what_follows_the_end_stays() {
        let (body, rest) = run(b"a\r\n.\r\nQUIT\r\n", 4, BOUNDS).unwrap();
        assert_eq!((body, rest), (Ok(b"a\r\n".to_vec()), b"QUIT\r\n".to_vec()));
    }

    #[test]
    fn an_endless_line_does_not_gather() {
        let (mut reader, mut input) = (Reader::new(BOUNDS, Some(9), u64::MAX), BytesMut::new());
        for _ in 0..100 {
            input.extend_from_slice(&[b'x'; 16 * 1024]);
            assert_eq!(reader.read(&mut input), Progress::More);
            assert!(input.len() <= PIECE && reader.body.len() as u64 <= BOUNDS.message);
        }
        input.extend_from_slice(b"\r\n.\r\n");
        assert_eq!(reader.read(&mut input), Progress::End);
        assert_eq!(reader.finish().unwrap_err().code(), 552);
    }

    #[test]
    fn a_long_line_comes_through_whole() {
        let line = [b".".repeat(100_000), b"\r\n".to_vec()].concat();
        check(&[b"h: v\r\n\r\n", &line[..], b".\r\n"].concat(), Some(Ok(&[b"h: v\r\n\r\n", &line[1..]].concat())));
    }

    #[test]
    fn bounds() {
        let bounds = Bounds { message: 10, header: 4 };
        let code = |sent: &[u8]| run(sent, 3, bounds).unwrap().0;
        assert_eq!(code(b"\r\n12345678\r\n.\r\n"), Err(552));
        assert_eq!(code(b"\r\n123456\r\n.\r\n"), Ok(b"\r\n123456\r\n".to_vec()));
        assert_eq!(code(b"12345\r\n.\r\n"), Err(552));
    }

    #[test]
    fn more_than_was_reserved_is_asked_for() {
        let (mut reader, mut input) = (Reader::new(BOUNDS, None, 5), BytesMut::from(&b"1234\r\n5678\r\n.\r\n"[..]));
        assert_eq!(reader.read(&mut input), Progress::Outgrown(5 + GROWTH));
        assert_eq!(&input[..], b"1234\r\n5678\r\n.\r\n");
        reader.reserve(100);
        assert_eq!(reader.read(&mut input), Progress::End);
        assert_eq!(&reader.finish().unwrap()[..], b"1234\r\n5678\r\n");
    }

    #[test]
    fn room_that_does_not_grow_refuses() {
        let (mut reader, mut input) = (Reader::new(BOUNDS, None, 5), BytesMut::from(&b"1234\r\n.\r\n"[..]));
        assert!(matches!(reader.read(&mut input), Progress::Outgrown(_)));
        reader.reserve(5);
        assert_eq!(reader.read(&mut input), Progress::End);
        assert_eq!(reader.finish().unwrap_err().code(), 451);
    }

    #[test]
    fn pieces_of_long_lines_end_anywhere() {
        for length in PIECE - 3..PIECE + 3 {
            let line = [&vec![b'x'; length][..], b"\r\n"].concat();
            for sent in [[&line[..], b".\r\n"].concat(), [&line[..length], b"\n\r\n.\r\n"].concat()] {
                let whole = run(&sent, sent.len(), BOUNDS).unwrap();
                assert_eq!(run(&sent, 1021, BOUNDS).unwrap(), whole, "a line of {length}");
                assert_eq!(whole.0, if sent.starts_with(&line) { Ok(line.clone()) } else { Err(550) });
            }
        }
    }

    proptest! {
        #[test]
        fn any_body_comes_through(
            lines in proptest::collection::vec("[.a \\x00-\\x09\\x0e-\\x7f]{0,12}", 0..20),
            piece in 1usize..40,
        ) {
            let body: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let stuffed: String = lines.iter().map(|line| {
                if line.starts_with('.') { format!(".{line}\r\n") } else { format!("{line}\r\n") }
            }).collect();
            let sent = stuffed + ".\r\n";
            let (got, rest) = run(sent.as_bytes(), piece, BOUNDS).unwrap();
            prop_assert_eq!(got, Ok(body.into_bytes()));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_split_gives_the_same(sent in "[.\\r\\na]{0,40}", piece in 1usize..10) {
            let whole = run(sent.as_bytes(), sent.len().max(1), BOUNDS);
            prop_assert_eq!(run(sent.as_bytes(), piece, BOUNDS), whole);
        }
    }
}
