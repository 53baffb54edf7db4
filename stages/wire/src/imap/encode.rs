//! How values are written in responses: strings, dates, flags.

use bytes::{BufMut as _, BytesMut};

/// A quoted string is kept to this; longer values go out as literals.
const QUOTED_MOST: usize = 1000;

/// A string: quoted where that is possible, else a literal (RFC 3501 section 4.3).
pub(super) fn string(out: &mut BytesMut, value: &[u8]) {
    let plain = |byte: &u8| (0x20..0x7f).contains(byte);
    if value.len() > QUOTED_MOST || !value.iter().all(plain) {
        return literal(out, value);
    }
    quoted(out, value);
}

/// A string, as an atom where it is one.
pub(super) fn astring(out: &mut BytesMut, value: &[u8]) {
    let is_part = |byte: &u8| byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(byte);
    if !value.is_empty() && value.iter().all(is_part) { out.put_slice(value) } else { string(out, value) }
}

/// A text without control characters for a client that reads UTF-8 between quotes (RFC 6855 section 3, RFC 9051 section
/// 4.3).
pub(super) fn text(out: &mut BytesMut, value: &str) {
    quoted(out, value.as_bytes());
}

fn quoted(out: &mut BytesMut, value: &[u8]) {
    out.put_u8(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

/// A literal. Bytes go out as they are, NUL included: what was delivered is what is read.
pub(super) fn literal(out: &mut BytesMut, value: &[u8]) {
    announce(out, value.len());
    out.put_slice(value);
}

/// A number, and the space before it.
pub(super) fn number(out: &mut BytesMut, value: u64) {
    out.put_u8(b' ');
    digits(out, value);
}

/// A number.
pub(super) fn digits(out: &mut BytesMut, value: u64) {
    // Twenty digits are the most that it can have.
    let (mut digits, mut at, mut rest) = ([b'0'; 20], 20, value);
    loop {
        at -= 1;
        digits[at] += u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// What announces a literal of this length.
pub(super) fn announce(out: &mut BytesMut, length: usize) {
    out.put_u8(b'{');
    digits(out, length as u64);
    out.put_slice(b"}\r\n");
}

/// What announces a literal that may have NULs in it (RFC 3516 section 6).
pub(super) fn announce_binary(out: &mut BytesMut, bytes: &[u8]) {
    if memchr::memchr(0, bytes).is_some() {
        out.put_u8(b'~');
    }
    announce(out, bytes.len());
}

/// A string, or NIL for none.
pub(super) fn nstring(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(value) => string(out, value),
        None => out.put_slice(b"NIL"),
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A date and time (RFC 3501 `date-time`), in UTC; milliseconds since 1970.
pub(super) fn date_time(millis: i64) -> String {
    let date = mail_parser::DateTime::from_timestamp(millis.div_euclid(1000));
    let month = MONTHS[usize::from(date.month.clamp(1, 12)) - 1];
    format!("\"{:2}-{month}-{:04} {:02}:{:02}:{:02} +0000\"", date.day, date.year, date.hour, date.minute, date.second)
}

/// The flags of a message as a list.
pub(super) fn flags(bits: i64, keywords: &str) -> String {
    let named = super::question::flags::NAMES.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name);
    let mut list = String::with_capacity(64);
    for name in named.chain(keywords.split(' ').filter(|keyword| !keyword.is_empty())) {
        list.push(if list.is_empty() { '(' } else { ' ' });
        list.push_str(name);
    }
    list.push_str(if list.is_empty() { "()" } else { ")" });
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &[u8], want: &[u8]) {
        let mut out = BytesMut::new();
        string(&mut out, value);
        assert_eq!(&out[..], want);
    }

    #[test]
    fn strings() {
        check(b"", b"\"\"");
        check(b"a \"b\" \\", b"\"a \\\"b\\\" \\\\\"");
        check(b"a\r\nb", b"{4}\r\na\r\nb");
        check("ü".as_bytes(), b"{2}\r\n\xc3\xbc");
        check(b"\0", b"{1}\r\n\0");
    }

    #[test]
    fn numbers() {
        for value in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = BytesMut::new();
            number(&mut out, value);
            assert_eq!(out, format!(" {value}").as_bytes());
        }
    }

    #[test]
    fn dates_and_flags() {
        assert_eq!(date_time(0), "\" 1-Jan-1970 00:00:00 +0000\"");
        assert_eq!(date_time(951_827_696_123), "\"29-Feb-2000 12:34:56 +0000\"");
        assert_eq!(flags(0, ""), "()");
        assert_eq!(flags(17, "a b"), "(\\Seen \\Draft a b)");
    }
}
