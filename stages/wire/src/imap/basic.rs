//! BODY made of BODYSTRUCTURE (RFC 3501 section 7.4.2): the same tree without extension data.

use bytes::{BufMut as _, BytesMut};

/// Writes the BODY of what this is the BODYSTRUCTURE of; none if it is not one as we write them.
pub(super) fn basic(out: &mut BytesMut, structure: &[u8]) -> Option<()> {
    part(out, structure)?.is_empty().then_some(())
}

/// Writes one part, and gives what stands behind it.
fn part<'a>(out: &mut BytesMut, text: &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = text.strip_prefix(b"(")?;
    out.put_u8(b'(');
    if rest.starts_with(b"(") {
        while rest.starts_with(b"(") {
            rest = part(out, rest)?;
        }
        rest = copy(out, rest, 1)?;
    } else {
        let (main, behind) = rest.split_at_checked(value(rest)?)?;
        out.put_slice(main);
        let sub = behind.get(1..1 + value(behind.get(1..)?)?)?;
        // Subtype, parameters, id, description, encoding, size.
        rest = copy(out, behind, 6)?;
        if main.eq_ignore_ascii_case(b"\"message\"") && sub.eq_ignore_ascii_case(b"\"rfc822\"") {
            rest = copy(out, rest, 1)?;
            out.put_u8(b' ');
            rest = part(out, rest.strip_prefix(b" ")?)?;
            rest = copy(out, rest, 1)?;
        } else if main.eq_ignore_ascii_case(b"\"text\"") {
            rest = copy(out, rest, 1)?;
        }
    }
    out.put_u8(b')');
    while let Some(behind) = rest.strip_prefix(b" ") {
        rest = behind.get(value(behind)?..)?;
    }
    rest.strip_prefix(b")")
}

/// Writes so many values, each with the space before it, and gives what stands behind them.
fn copy<'a>(out: &mut BytesMut, text: &'a [u8], count: usize) -> Option<&'a [u8]> {
    let mut at = 0;
    for _ in 0..count {
        at += 1 + value(text.get(at..)?.strip_prefix(b" ")?)?;
    }
    out.put_slice(text.get(..at)?);
    text.get(at..)
}

/// The bytes of the value that stands here: an atom, a string, a list.
fn value(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match text.get(at)? {
            b'(' => (at, depth) = (at + 1, depth + 1),
            b')' => (at, depth) = (at + 1, depth.checked_sub(1)?),
            b'"' => at += quoted(&text[at..])?,
            b'{' => at += literal(&text[at..])?,
            b' ' if depth > 0 => {
                at += 1;
                continue;
            }
            b' ' => return None,
            _ => at += text[at..].iter().position(|byte| b" ()".contains(byte)).unwrap_or(text.len() - at),
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

fn quoted(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => 2,
            _ => 1,
        };
    }
}

fn literal(text: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b'}', text)?;
    let length: usize = std::str::from_utf8(&text[1..end]).ok()?.parse().ok()?;
    (end + 3).checked_add(length).filter(|end| *end <= text.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::imap::structure::{Form, structure};
    use crate::mime::parse;

    fn check(text: &[u8]) {
        let root = parse(text);
        let (mut whole, mut want, mut got) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        structure(&mut whole, text, &root, Form::Extended);
        structure(&mut want, text, &root, Form::Basic);
        assert!(basic(&mut got, &whole).is_some(), "{whole:?}");
        assert_eq!(got, want);
    }

    #[test]
    fn what_is_no_structure_is_refused() {
        for text in ["", "(", "()", "(\"text\" \"plain\")", "(\"a", "({9}\r\nx", "NIL", ")", "(\"a\" \"b\" (()))"] {
            assert_eq!(basic(&mut BytesMut::new(), text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_same(text in "(Content-Type: (multipart/(mixed|digest); boundary=b|message/rfc822|text/x; \
    a=\"(\\\\\" b)\\\\\"\"|x|;)\r\n|Content-(ID|MD5|Disposition|Language): ([(\"{ä3}]|NIL){0,4}\r\n|Subject: \u{e4}\r\n\
    |--b(--)?\r\n|\r\n|[a-z(]){0,30}") {
            check(text.as_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic(text in "([()\"{}\\\\ ]|NIL|[0-9]|\r\n|\"text\"|\"message\" \"rfc822\"){0,40}") {
            basic(&mut BytesMut::new(), text.as_bytes());
        }
    }
}
