//! A message as it goes over the wire: its first lines, and its dots doubled.

use bytes::{BufMut as _, Bytes, BytesMut};

/// The header, the blank line behind it, and so many lines; everything if no number is given.
pub(super) fn top(text: &[u8], lines: Option<usize>) -> &[u8] {
    let Some(mut left) = lines else { return text };
    let (mut at, mut in_header) = (0, true);
    while let Some(end) = memchr::memchr(b'\n', &text[at..]) {
        let line = &text[at..=at + end];
        if in_header {
            in_header = !matches!(line, b"\r\n" | b"\n");
        } else if left == 0 {
            return &text[..at];
        } else {
            left -= 1;
        }
        at += end + 1;
    }
    if !in_header && left == 0 { &text[..at] } else { text }
}

/// A multi-line response: dots at the start of lines doubled, the end added (RFC 1939 section 3).
pub(super) fn stuffed(text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + text.len() / 50 + 8);
    let mut rest = text;
    while !rest.is_empty() {
        if rest[0] == b'.' {
            out.put_u8(b'.');
        }
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        out.put_slice(&rest[..end]);
        rest = &rest[end..];
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        out.put_slice(b"\r\n");
    }
    out.put_slice(b".\r\n");
    out.freeze()
}
