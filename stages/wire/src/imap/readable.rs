//! What of a message a person can read: fields with their encoded words (RFC 2047) decoded, texts with their transfer
//! encoding and charset decoded, all in lower case for searching.

use std::cell::OnceCell;

use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;

use crate::mime::{self, Kind, Part, field, fields, parse};

/// A message, decoded as far as it was asked for.
pub(super) struct Readable<'a> {
    text: &'a [u8],
    root: OnceCell<Part>,
    header: OnceCell<Vec<(String, String)>>,
    body: OnceCell<String>,
}

impl<'a> Readable<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, root: OnceCell::new(), header: OnceCell::new(), body: OnceCell::new() }
    }

    fn root(&self) -> &Part {
        self.root.get_or_init(|| parse(self.text))
    }

    /// The fields of the message's header: names and values.
    pub(super) fn header(&self) -> &[(String, String)] {
        self.header.get_or_init(|| readable_fields(&self.text[self.root().header.clone()]))
    }

    /// The texts in the message's body, and the headers of messages in it.
    pub(super) fn body(&self) -> &str {
        self.body.get_or_init(|| {
            let mut out = String::new();
            gather(&mut out, self.text, self.root());
            out
        })
    }

    /// The `Date` field, as it was written.
    pub(super) fn date(&self) -> Option<mail_parser::DateTime> {
        let raw = field(&self.text[self.root().header.clone()], "date")?;
        mail_parser::DateTime::parse_rfc822(&String::from_utf8_lossy(&raw)).filter(mail_parser::DateTime::is_valid)
    }
}

fn readable_fields(header: &[u8]) -> Vec<(String, String)> {
    let readable = |(name, range): (&[u8], std::ops::Range<usize>)| {
        let raw = &header[range];
        let value = memchr::memchr(b':', raw).map_or(&[][..], |colon| &raw[colon + 1..]);
        (String::from_utf8_lossy(name).to_ascii_lowercase(), decode_words(value))
    };
    fields(header).into_iter().map(readable).collect()
}

/// A field's value, unfolded, its encoded words decoded, in lower case.
fn decode_words(value: &[u8]) -> String {
    let mut unfolded: Vec<u8> = value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    if memchr::memmem::find(&unfolded, b"=?").is_none() {
        return String::from_utf8_lossy(unfolded.trim_ascii()).to_lowercase();
    }
    unfolded.push(b'\n');
    match MessageStream::new(&unfolded).parse_unstructured() {
        HeaderValue::Text(text) => text.to_lowercase(),
        _ => String::new(),
    }
}

fn gather(out: &mut String, text: &[u8], part: &Part) {
    match &part.kind {
        Kind::Multipart(parts) => parts.iter().for_each(|part| gather(out, text, part)),
        Kind::Message(inner) => {
            for (name, value) in readable_fields(&text[inner.header.clone()]) {
                out.push_str(&name);
                out.push_str(": ");
                out.push_str(&value);
                out.push('\n');
            }
            gather(out, text, inner);
        }
        Kind::Leaf => {
            if let Some(found) = mime::text(&text[part.header.clone()], &text[part.body.clone()], usize::MAX) {
                out.push_str(&found.content.to_lowercase());
                out.push('\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, fields: &[(&str, &str)], body: &str) {
        let readable = Readable::new(text.as_bytes());
        let got: Vec<(&str, &str)> = readable.header().iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(got, fields);
        assert_eq!(readable.body(), body);
    }

    #[test]
    fn encoded_words_and_texts_are_decoded() {
        check("Subject: Plain\r\n\r\nBody\r\n", &[("subject", "plain")], "body\r\n\n");
        check(
            "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?b?IMOc?=\r\nFrom: =?iso-8859-1?q?J=F6rg?= <J@b>\r\n\r\n",
            &[("subject", "grüße ü"), ("from", "jörg <j@b>")],
            "\n",
        );
        check(
            "Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe=\r\n!",
            &[("content-type", "text/plain; charset=iso-8859-1"), ("content-transfer-encoding", "quoted-printable")],
            "grüße!\n",
        );
    }

    #[test]
    fn only_texts_and_messages_are_read() {
        let parts = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png\r\n\r\nPNG\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\nw5xC\r\nRVI=\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: In\r\n\r\nner\r\n--b--\r\n";
        let readable = Readable::new(parts.as_bytes());
        assert_eq!(readable.body(), "über\nsubject: in\nner\n");
    }

    #[test]
    fn dates() {
        let date = |text: &str| Readable::new(text.as_bytes()).date().map(|date| (date.year, date.month, date.day));
        assert_eq!(date("Date: Mon, 2 Mar 2026 23:59:59 -0800 (PST)\r\n\r\n"), Some((2026, 3, 2)));
        assert_eq!(date("Date: yesterday\r\n\r\n"), None);
        assert_eq!(date("\r\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "(Subject: |=\\?utf-8\\?[bq]\\?|\\?=|Content-Type: text/x; charset=(utf-8|x)|Content-Transfer-Encoding: (base64|quoted-printable)|=[0-9A-F]{0,2}|\r\n|[a-zA-Z= ]|\u{e4}){0,40}") {
            let readable = Readable::new(text.as_bytes());
            let _ = (readable.header(), readable.body(), readable.date());
        }
    }
}
