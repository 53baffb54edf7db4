//! Structure and sections of the same mail agree with each other: what BODYSTRUCTURE says of a part is what fetching
//! that part gives. Over mail that nobody here wrote, where the corpora are there, and over odd mail of our own.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use imap_types::fetch::{Part as Numbers, Section};
use proptest::prelude::*;

use super::envelope::envelope;
use super::outline::Outline;
use super::section::{binary, section};
use super::structure::{Form, structure};
use crate::mime::{Part, parse};

/// A value of a response, as a client reads it.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    Atom(String),
    Text(Vec<u8>),
    List(Vec<Value>),
}

impl Value {
    fn list(&self) -> &[Value] {
        let Self::List(values) = self else { panic!("{self:?} is no list") };
        values
    }

    fn number(&self) -> usize {
        let Self::Atom(atom) = self else { panic!("{self:?} is no number") };
        atom.parse().unwrap()
    }

    fn text(&self) -> String {
        let Self::Text(text) = self else { panic!("{self:?} is no string") };
        String::from_utf8_lossy(text).to_ascii_lowercase()
    }
}

/// Reads one value, and gives what stands behind it.
fn read(text: &[u8]) -> (Value, &[u8]) {
    match text[0] {
        b'(' => {
            let (mut values, mut rest) = (Vec::new(), &text[1..]);
            while rest[0] != b')' {
                let (value, behind) = read(rest);
                values.push(value);
                // Only bodies of a multipart stand together without a space.
                rest = behind.strip_prefix(b" ").unwrap_or(behind);
            }
            (Value::List(values), &rest[1..])
        }
        b'"' => {
            let (mut value, mut at) = (Vec::new(), 1);
            while text[at] != b'"' {
                at += usize::from(text[at] == b'\\');
                assert!(!matches!(text[at], b'\r' | b'\n' | 0), "not in a quoted string");
                value.push(text[at]);
                at += 1;
            }
            (Value::Text(value), &text[at + 1..])
        }
        b'{' => {
            let end = text.iter().position(|byte| *byte == b'}').unwrap();
            let length: usize = std::str::from_utf8(&text[1..end]).unwrap().parse().unwrap();
            let (value, rest) = text[end + 3..].split_at(length);
            (Value::Text(value.to_vec()), rest)
        }
        _ => {
            let end = text.iter().position(|byte| b" ()".contains(byte)).unwrap_or(text.len());
            (Value::Atom(String::from_utf8(text[..end].to_vec()).unwrap()), &text[end..])
        }
    }
}

/// A mail, as a client sees it.
struct Mail {
    text: Bytes,
    root: Part,
}

impl Mail {
    fn section(&self, section_wanted: &Section<'_>) -> Bytes {
        section(&self.text, &self.root, section_wanted).unwrap_or_else(|| panic!("no {section_wanted:?}"))
    }

    /// What is said of a part, and of all in it. A message within has the numbers of its part.
    fn check(&self, said: &Value, path: &[NonZeroU32], is_message: bool) {
        let values = said.list();
        let inner = |number: usize| {
            let number = NonZeroU32::new(u32::try_from(number).unwrap()).unwrap();
            [path, &[number]].concat()
        };
        if let Value::List(_) = values[0] {
            let parts = values.iter().take_while(|value| matches!(value, Value::List(_))).count();
            for (index, part) in values[..parts].iter().enumerate() {
                self.check(part, &inner(index + 1), false);
            }
            let none = Section::Part(Numbers(inner(parts + 1).try_into().unwrap()));
            assert_eq!(section(&self.text, &self.root, &none), None, "more parts than were said");
            return;
        }
        // What is no multipart is part 1 of its message.
        let path = if is_message { inner(1) } else { path.to_vec() };
        let numbers = || Numbers(path.clone().try_into().unwrap());
        let body = self.section(&Section::Part(numbers()));
        let lines = || body.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(values[6].number(), body.len(), "{path:?}");
        let kind = (values[0].text(), values[1].text());
        if path.len() > 1 || !is_message {
            let header = self.section(&Section::Mime(numbers()));
            let whole = [&header[..], &body].concat();
            assert!(memchr::memmem::find(&self.text, &whole).is_some(), "header and body lie together");
        }
        if kind == ("message".into(), "rfc822".into()) {
            let header = self.section(&Section::Header(Some(numbers())));
            let text = self.section(&Section::Text(Some(numbers())));
            assert_eq!([&header[..], &text].concat(), body);
            let mut own = BytesMut::new();
            envelope(&mut own, &header);
            assert_eq!(read(&own).0, values[7]);
            self.check(&values[8], &path, true);
            assert_eq!(values[9].number(), lines());
        } else if kind.0 == "text" {
            assert_eq!(values[7].number(), lines());
        }
        if let Some(Some(decoded)) = binary(&self.text, &self.root, &path) {
            assert!(
                decoded.len() <= body.len() || values[5].text() == "quoted-printable",
                "decoding makes nothing longer"
            );
        }
    }
}

fn check(text: &[u8]) {
    let mail = Mail { text: Bytes::copy_from_slice(text), root: parse(text) };
    let mut said = BytesMut::new();
    structure(&mut said, text, &mail.root, Form::Extended);
    let (value, rest) = read(&said);
    assert!(rest.is_empty());
    mail.check(&value, &[], true);
    let header = mail.section(&Section::Header(None));
    let body = mail.section(&Section::Text(None));
    assert_eq!([&header[..], &body].concat(), text);
    // What is kept says the same as the text itself.
    let outline = Outline::of(text);
    assert_eq!(outline.structure, said);
    let (mut kept, mut own) = (BytesMut::new(), BytesMut::new());
    envelope(&mut kept, &outline.fields);
    envelope(&mut own, &header);
    assert_eq!(kept, own);
    assert_eq!(read(&own).0.list().len(), 10);
}

/// The archives, if they are there.
fn corpora() -> Vec<PathBuf> {
    let near = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora");
    let folder = std::env::var_os("CHAINMAIL_CORPORA").map_or(near, PathBuf::from).join("mime");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: there is no {}", folder.display());
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().ends_with(".tar.zst")).collect()
}

/// As they are, and with the line ends with which they come over SMTP.
#[test]
fn mail_of_others() {
    for path in corpora() {
        let mut archive = tar::Archive::new(zstd::Decoder::new(File::open(&path).unwrap()).unwrap());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            // Some are megabytes of noise: what is large is no odder than the rest.
            bytes.truncate(128 << 10);
            let lines = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").replace('\n', "\r\n");
            check(&bytes);
            check(lines.as_bytes());
        }
    }
}

#[test]
fn odd_mail() {
    for text in [
        "",
        "\r\n",
        "no header",
        "Content-Type: multipart/mixed\r\n\r\nno boundary",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\nno parts",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b\r\n\r\n--b--",
        "Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ntext",
        "Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n\
         Content-Type: message/rfc822\r\n\r\n\r\ntwo\r\n--b--",
        "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\nContent-Type: ;x=y\r\n\r\nSubject: in\r\n\r\ntext\r\n\
         --b--",
        "Content-Type: /; a=\"\r\n\"\r\nContent-ID: \"\\\r\n\r\n",
    ] {
        check(text.as_bytes());
    }
    check("Content-Type: message/rfc822\r\n\r\n".repeat(60).as_bytes());
}

proptest! {
    #[test]
    fn any_mail(text in "(Content-Type: (multipart/(mixed|digest); boundary=b|message/rfc822|text/x; \
    a=\"\\\\\"\"|x|;)\r\n|Content-(ID|MD5|Disposition|Language|Transfer-Encoding): ([(\"{ä3}]|base64){0,3}\r\n\
    |--b(--)?\r\n|\r\n|\n|[a-z(=]){0,30}") {
        check(text.as_bytes());
    }
}
