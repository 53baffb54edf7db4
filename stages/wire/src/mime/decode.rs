//! A part's body without its transfer encoding (RFC 2045 section 6). Decoding never fails: what is no part of the
//! encoding is passed over, or taken as it stands.

use std::borrow::Cow;

use super::{field, structured};

/// The bytes that a part's body stands for; none if nobody here knows how it is encoded.
pub fn decode<'a>(header: &[u8], body: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let encoding = field(header, "content-transfer-encoding").map(|raw| structured(&raw).value.to_ascii_lowercase());
    match encoding.as_deref().unwrap_or("") {
        "" | "7bit" | "8bit" | "binary" => Some(Cow::Borrowed(body)),
        "base64" => Some(Cow::Owned(base64(body))),
        "quoted-printable" => Some(Cow::Owned(quoted_printable(body))),
        _ => None,
    }
}

/// RFC 2045 section 6.8: characters that are not of the alphabet are passed over; what comes behind the padding begins
/// anew, for some join two texts.
fn base64(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in body {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                count = 0;
                continue;
            }
            _ => continue,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count).to_le_bytes()[0]);
        }
    }
    out
}

/// RFC 2045 section 6.7.
fn quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut at = 0;
    while at < body.len() {
        let end = memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |end| at + end + 1);
        let line = &body[at..end];
        at = end;
        let content = line.trim_ascii_end();
        let soft = content.ends_with(b"=");
        decode_line(&mut out, content);
        if !soft {
            let ending = if line.ends_with(b"\r\n") { 2 } else { usize::from(line.ends_with(b"\n")) };
            out.extend_from_slice(&line[line.len() - ending..]);
        }
    }
    out
}

fn decode_line(out: &mut Vec<u8>, line: &[u8]) {
    let mut rest = line.strip_suffix(b"=").unwrap_or(line);
    while let Some(mark) = memchr::memchr(b'=', rest) {
        out.extend_from_slice(&rest[..mark]);
        let digits = rest.get(mark + 1..mark + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &rest[mark + 3..];
            }
            None => {
                out.push(b'=');
                rest = &rest[mark + 1..];
            }
        }
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use ::base64::Engine as _;
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(encoding: &str, body: &str, want: Option<&[u8]>) {
        let header = format!("Content-Transfer-Encoding: {encoding}\r\n\r\n");
        assert_eq!(decode(header.as_bytes(), body.as_bytes()).as_deref(), want, "{encoding} {body}");
    }

    #[test]
    fn encodings() {
        check("8BIT", "a=b\r\n", Some(b"a=b\r\n"));
        check("x-uuencode", "begin", None);
        check("base64", "AAEC\r\n/w==\r\n", Some(b"\0\x01\x02\xff"));
        check("Base64 (comment)", "Y-Q==Yg==", Some(b"ab"));
        check("base64", "YWI", Some(b"ab"));
        check("quoted-printable", "a=3Db =\r\nc  \r\n=00=G1=\r\n", Some(b"a=b c\r\n\0=G1"));
        check("quoted-printable", "=C3=BC=", Some("\u{fc}".as_bytes()));
        assert_eq!(decode(b"\r\n", b"=41").as_deref(), Some(&b"=41"[..]));
    }

    proptest! {
        #[test]
        fn base64_comes_back(bytes: Vec<u8>) {
            let encoded = ::base64::engine::general_purpose::STANDARD.encode(&bytes);
            prop_assert_eq!(base64(encoded.as_bytes()), bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>, text in "([=\r\n +]|[0-9A-Fa-f]){0,40}") {
            base64(&body);
            quoted_printable(&body);
            quoted_printable(text.as_bytes());
        }
    }
}
