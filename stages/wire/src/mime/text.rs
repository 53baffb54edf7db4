//! What a part says, if it is text: transfer encoding and charset decoded.

use std::borrow::Cow;

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;

use super::{field, structured};

/// How a body is written (RFC 2045 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is: 7bit, 8bit, binary, or nothing that is known.
    Plain,
    /// base64
    Base64,
    /// quoted-printable
    QuotedPrintable,
}

/// The text of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The media type in lower case: `text/` and something, or `message/`.
    pub media: String,
    /// How it was written.
    pub encoding: Encoding,
    /// Whether it is not what its encoding says; then it is taken as it stands.
    pub is_broken: bool,
    /// What it says. What is wrong in its charset became U+FFFD.
    pub content: String,
}

/// Reads at most `most` bytes of a part's body; none if it is no text. A part without a type is text.
pub fn text(header: &[u8], body: &[u8], most: usize) -> Option<Text> {
    let mut read = None;
    read_text(header, &body[..body.len().min(most)], |media, encoding, is_broken, content| {
        read = Some(Text { media: media.to_owned(), encoding, is_broken, content: content.into_owned() });
    });
    read
}

/// Hands out what a part says, if it is text: what stands there as it is read is not copied.
pub fn with_text(header: &[u8], body: &[u8], take: impl FnOnce(&str)) {
    read_text(header, body, |_, _, _, content| take(&content));
}

fn read_text(header: &[u8], body: &[u8], take: impl FnOnce(&str, Encoding, bool, Cow<'_, str>)) {
    let content = field(header, "content-type").map(|raw| structured(&raw)).unwrap_or_default();
    let media = if content.value.is_empty() { "text/plain".to_owned() } else { content.value.to_ascii_lowercase() };
    if !(media.starts_with("text/") || media.starts_with("message/")) {
        return;
    }
    let encoding = field(header, "content-transfer-encoding").unwrap_or_default().to_ascii_lowercase();
    let (encoding, decoded) = match encoding.as_slice() {
        b"base64" => (Encoding::Base64, base64_decode(body)),
        b"quoted-printable" => (Encoding::QuotedPrintable, quoted_printable_decode(body)),
        _ => (Encoding::Plain, None),
    };
    let is_broken = encoding != Encoding::Plain && decoded.is_none();
    let bytes = decoded.as_deref().unwrap_or(body);
    let charset = content.parameter("charset").filter(|charset| !(holds_ascii(charset) && bytes.is_ascii()));
    let content = match charset.and_then(|charset| charset_decoder(charset.as_bytes())) {
        Some(decode) => Cow::Owned(decode(bytes)),
        None => String::from_utf8_lossy(bytes),
    };
    take(&media, encoding, is_broken, content);
}

/// Whether what is ASCII in this charset reads as it stands. There are charsets of seven bits that shift (RFC 1468,
/// RFC 2152).
fn holds_ascii(charset: &str) -> bool {
    let begins = |with: &str| charset.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    ["us-ascii", "utf-8", "iso-8859-", "windows-125"].into_iter().any(begins)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(header: &str, body: &str, want: (&str, bool)) {
        let text = text(header.as_bytes(), body.as_bytes(), 100).unwrap();
        assert_eq!((text.content.as_str(), text.is_broken), want);
    }

    #[test]
    fn texts_are_decoded() {
        check("", "as it is", ("as it is", false));
        check("Content-Transfer-Encoding: BASE64\r\n", "w7xi\r\nZXI=\r\n", ("\u{fc}ber", false));
        check("Content-Transfer-Encoding: base64\r\n", "<html>", ("<html>", true));
        let latin =
            "Content-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: quoted-printable\r\n";
        check(latin, "=FCb=\r\ner", ("\u{fc}ber", false));
        check(latin, "=F", ("", false));
        check(latin, "=G1", ("=G1", true));
        check("Content-Type: text/plain; charset=UTF-8\r\n", "\u{fc}", ("\u{fc}", false));
        check("Content-Type: text/plain; charset=utf-7\r\n", "+APw-ber", ("\u{fc}ber", false));
        check("Content-Type: text/plain; charset=klingon\r\n", "\u{fc}", ("\u{fc}", false));
    }

    #[test]
    fn what_is_no_text_says_nothing() {
        assert_eq!(text(b"Content-Type: image/png\r\n", b"PNG", 100), None);
        assert_eq!(text(b"Content-Type: TEXT/Html\r\n", b"x", 100).unwrap().media, "text/html");
        assert_eq!(text(b"", b"cut off here", 3).unwrap().content, "cut");
    }
}
