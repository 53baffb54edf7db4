//! What of a message a person can read: fields with their encoded words (RFC 2047) decoded, texts with their transfer
//! encoding and charset decoded, all in lower case for searching.

use std::cell::OnceCell;

use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;

use super::envelope::addresses_of;
use super::needle::fold_into;
use super::search::{Wanted, day};
use crate::mime::{self, Kind, Part, field, fields, parse};

/// A message, decoded as far as it was asked for.
pub struct Readable<'a> {
    text: &'a [u8],
    root: OnceCell<Part>,
    header: OnceCell<Vec<Field>>,
    texts: OnceCell<Texts>,
}

/// A field as `name: value`.
struct Field {
    line: String,
    name: usize,
}

impl Field {
    fn name(&self) -> &str {
        &self.line[..self.name]
    }

    fn value(&self) -> &str {
        &self.line[self.name + 2..]
    }
}

#[derive(Default)]
struct Texts {
    /// The texts in the body, and the headers of messages in it.
    body: String,
    /// The headers of its parts.
    parts: String,
}

impl<'a> Readable<'a> {
    /// A message, or the beginning of its header.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, root: OnceCell::new(), header: OnceCell::new(), texts: OnceCell::new() }
    }

    /// Whether the text is as it is wanted; none if that is not told by the text.
    pub fn tells(&self, wanted: &Wanted) -> Option<bool> {
        Some(match wanted {
            Wanted::Older(_) | Wanted::Younger(_) => return None,
            Wanted::Sent(from, to) => self.date().is_some_and(|day| (*from..*to).contains(&day)),
            Wanted::Field(name, needle) => {
                self.header().iter().any(|field| field.name() == name && needle.is_in(field.value()))
            }
            Wanted::Addresses(name, needle) => {
                let holds =
                    |value: &str| needle.is_in(value) || plain_addresses(value).any(|plain| needle.is_in(&plain));
                self.header().iter().any(|field| field.name() == *name && holds(field.value()))
            }
            Wanted::Body(needle) => needle.is_in(&self.texts().body),
            // RFC 9051 section 6.4.4: the fields of its parts, too.
            Wanted::Text(needle) => {
                self.header().iter().any(|field| needle.is_in(&field.line))
                    || needle.is_in(&self.texts().body)
                    || needle.is_in(&self.texts().parts)
            }
        })
    }

    /// Everything in which something can be found: each field on a line of its own, with a line end before it, and the
    /// texts.
    pub fn whole(&self) -> String {
        let Texts { body, parts } = self.texts();
        let mut whole = String::with_capacity(body.len() + parts.len() + 1024);
        for field in self.header() {
            whole.push('\n');
            whole.push_str(&field.line);
        }
        for text in [body, parts] {
            whole.push('\n');
            whole.push_str(text);
        }
        whole
    }

    fn root(&self) -> &Part {
        self.root.get_or_init(|| parse(self.text))
    }

    fn header(&self) -> &[Field] {
        self.header.get_or_init(|| readable_fields(&self.text[self.root().header.clone()]))
    }

    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| {
            let mut texts = Texts::default();
            gather(&mut texts, self.text, self.root());
            texts
        })
    }

    /// The day in the `Date` field, as it was written.
    fn date(&self) -> Option<i64> {
        let raw = field(&self.text[self.root().header.clone()], "date")?;
        let date = mail_parser::DateTime::parse_rfc822(&String::from_utf8_lossy(&raw));
        date.filter(mail_parser::DateTime::is_valid).and_then(|date| day(&date))
    }
}

/// The addresses in a field without what may stand between their parts (RFC 5322 section 3.2.2), if there is any of
/// that.
fn plain_addresses(value: &str) -> impl Iterator<Item = String> {
    let is_plain = !value.contains(['(', '"']) && !value.contains(" @") && !value.contains("@ ");
    addresses_of(if is_plain { b"" } else { value.as_bytes() }).filter_map(|address| {
        let (mailbox, host) = (address.mailbox?, address.host?);
        Some(format!("{}@{}", String::from_utf8_lossy(&mailbox), String::from_utf8_lossy(&host)))
    })
}

fn readable_fields(header: &[u8]) -> Vec<Field> {
    let readable = |(name, range): (&[u8], std::ops::Range<usize>)| {
        let raw = &header[range];
        let value = memchr::memchr(b':', raw).map_or(&[][..], |colon| &raw[colon + 1..]);
        let mut line = String::from_utf8_lossy(name).to_ascii_lowercase();
        let name = line.len();
        line.push_str(": ");
        decode_words(&mut line, value);
        Field { line, name }
    };
    fields(header).into_iter().map(readable).collect()
}

/// A field's value, unfolded, its encoded words decoded, in lower case.
pub(super) fn decode_words(out: &mut String, value: &[u8]) {
    let mut unfolded: Vec<u8> = value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    if memchr::memmem::find(&unfolded, b"=?").is_none() {
        return fold_into(out, &String::from_utf8_lossy(unfolded.trim_ascii()));
    }
    unfolded.push(b'\n');
    if let HeaderValue::Text(text) = MessageStream::new(&unfolded).parse_unstructured() {
        fold_into(out, &text);
    }
}

fn gather(out: &mut Texts, text: &[u8], part: &Part) {
    match &part.kind {
        Kind::Multipart(parts) => {
            for part in parts {
                put_lines(&mut out.parts, &text[part.header.clone()]);
                gather(out, text, part);
            }
        }
        Kind::Message(inner) => {
            put_lines(&mut out.body, &text[inner.header.clone()]);
            gather(out, text, inner);
        }
        Kind::Leaf => {
            let put = |content: &str| {
                fold_into(&mut out.body, content);
                out.body.push('\n');
            };
            mime::with_text(&text[part.header.clone()], &text[part.body.clone()], put);
        }
    }
}

fn put_lines(out: &mut String, header: &[u8]) {
    for field in readable_fields(header) {
        out.push_str(&field.line);
        out.push('\n');
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
        let got: Vec<(&str, &str)> = readable.header().iter().map(|field| (field.name(), field.value())).collect();
        assert_eq!(got, fields);
        assert_eq!(readable.texts().body, body);
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
            "Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
             Gr=FC=DFe=\r\n!",
            &[("content-type", "text/plain; charset=iso-8859-1"), ("content-transfer-encoding", "quoted-printable")],
            "grüße!\n",
        );
    }

    #[test]
    fn only_texts_and_messages_are_read() {
        let parts = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png\r\n\r\nPNG\r\n\
                     --b\r\nContent-Transfer-Encoding: base64\r\n\r\nw5xC\r\nRVI=\r\n--b\r\n\
                     Content-Type: message/rfc822\r\n\r\nSubject: In\r\n\r\nner\r\n--b--\r\n";
        let readable = Readable::new(parts.as_bytes());
        assert_eq!(readable.texts().body, "über\nsubject: in\nner\n");
        let parts = "content-type: image/png\ncontent-transfer-encoding: base64\ncontent-type: message/rfc822\n";
        assert_eq!(readable.texts().parts, parts);
    }

    #[test]
    fn dates() {
        let date = |text: &str| Readable::new(text.as_bytes()).date();
        assert_eq!(date("Date: Mon, 2 Mar 2026 23:59:59 -0800 (PST)\r\n\r\n"), Some(20_514));
        assert_eq!(date("Date: yesterday\r\n\r\n"), None);
        assert_eq!(date("\r\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "(Subject: |=\\?utf-8\\?[bq]\\?|\\?=|Content-Type: text/x; \
                charset=(utf-8|x)|Content-Transfer-Encoding: (base64|quoted-printable)|=[0-9A-F]{0,2}|\r\n|[a-zA-Z= ]|\
                \u{e4}){0,40}") {
            let readable = Readable::new(text.as_bytes());
            let _ = (readable.whole(), readable.date());
        }
    }
}
