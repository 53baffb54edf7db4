//! BODY sections (RFC 3501 section 6.4.5): which bytes of a message a client asks for.

use std::borrow::Cow;

use imap_types::core::AString;
use imap_types::fetch::{Part as PartNumbers, Section};

use crate::mime::{Kind, Part, fields};

/// The bytes of a section; none if there is no such part.
pub(super) fn section<'a>(text: &'a [u8], root: &Part, wanted: Option<&Section<'_>>) -> Option<Cow<'a, [u8]>> {
    let whole = || Some(Cow::Borrowed(text));
    match wanted {
        None => whole(),
        Some(Section::Part(numbers)) => find(root, Some(numbers)).map(|part| Cow::Borrowed(&text[part.body.clone()])),
        Some(Section::Header(numbers)) => {
            message(root, numbers.as_ref()).map(|part| Cow::Borrowed(&text[part.header.clone()]))
        }
        Some(Section::Text(numbers)) => {
            message(root, numbers.as_ref()).map(|part| Cow::Borrowed(&text[part.body.clone()]))
        }
        Some(Section::Mime(numbers)) => find(root, Some(numbers)).map(|part| Cow::Borrowed(&text[part.header.clone()])),
        Some(Section::HeaderFields(numbers, names)) => {
            let names = names.as_ref();
            message(root, numbers.as_ref())
                .map(|part| Cow::Owned(chosen(&text[part.header.clone()], |name| named(names, name))))
        }
        Some(Section::HeaderFieldsNot(numbers, names)) => {
            let names = names.as_ref();
            message(root, numbers.as_ref())
                .map(|part| Cow::Owned(chosen(&text[part.header.clone()], |name| !named(names, name))))
        }
    }
}

/// The part with these numbers. Part 1 of what is not multipart is its body.
fn find<'a>(root: &'a Part, numbers: Option<&PartNumbers>) -> Option<&'a Part> {
    let mut part = root;
    let numbers = numbers.map(|numbers| numbers.0.as_ref()).unwrap_or_default();
    for (depth, number) in numbers.iter().enumerate() {
        let index = usize::try_from(number.get()).ok()? - 1;
        // Numbers go on into a message as if it were the whole.
        let inner = match &part.kind {
            Kind::Message(inner) if depth > 0 => inner,
            _ => part,
        };
        part = match &inner.kind {
            Kind::Multipart(parts) => parts.get(index)?,
            _ if index == 0 && (depth == 0 || !std::ptr::eq(inner, part)) => inner,
            _ => return None,
        };
    }
    Some(part)
}

/// The message whose HEADER or TEXT is meant: the whole, or a part that is a message.
fn message<'a>(root: &'a Part, numbers: Option<&PartNumbers>) -> Option<&'a Part> {
    match numbers {
        None => Some(root),
        Some(_) => match &find(root, numbers)?.kind {
            Kind::Message(inner) => Some(inner),
            _ => None,
        },
    }
}

fn named(names: &[AString<'_>], name: &[u8]) -> bool {
    names.iter().any(|wanted| wanted.as_ref().eq_ignore_ascii_case(name))
}

/// The chosen fields, and the blank line that always ends them.
fn chosen(header: &[u8], choose: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, range) in fields(header) {
        if choose(name) {
            out.extend_from_slice(&header[range]);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use imap_codec::CommandCodec;
    use imap_codec::decode::Decoder as _;
    use imap_types::command::CommandBody;
    use imap_types::fetch::{MacroOrMessageDataItemNames, MessageDataItemName};

    use super::*;
    use crate::mime::parse;

    const NESTED: &str = "Subject: out\r\nX-A: 1\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\none\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\ninner\r\n--c--\r\n--b--\r\n";

    #[track_caller]
    fn check(text: &str, wanted: &str, want: Option<&str>) {
        let command = format!("a FETCH 1 BODY[{wanted}]\r\n");
        let (_, command) = CommandCodec::default().decode(command.as_bytes()).unwrap();
        let CommandBody::Fetch {
            macro_or_item_names: MacroOrMessageDataItemNames::MessageDataItemNames(items), ..
        } = command.body
        else {
            panic!("not FETCH")
        };
        let MessageDataItemName::BodyExt { section: wanted, .. } = &items[0] else { panic!("not BODY[]") };
        let got = section(text.as_bytes(), &parse(text.as_bytes()), wanted.as_ref());
        assert_eq!(got.as_deref().map(|got| std::str::from_utf8(got).unwrap()), want);
    }

    #[test]
    fn plain() {
        let text = "A: 1\r\nB: 2\r\n\r\nbody\r\n";
        check(text, "", Some(text));
        check(text, "HEADER", Some("A: 1\r\nB: 2\r\n\r\n"));
        check(text, "TEXT", Some("body\r\n"));
        check(text, "1", Some("body\r\n"));
        check(text, "2", None);
        check(text, "1.1", None);
        check(text, "HEADER.FIELDS (b x)", Some("B: 2\r\n\r\n"));
        check(text, "HEADER.FIELDS.NOT (B)", Some("A: 1\r\n\r\n"));
    }

    #[test]
    fn nested() {
        check(NESTED, "1", Some("one"));
        check(NESTED, "1.MIME", Some("Content-Type: text/plain\r\n\r\n"));
        check(NESTED, "2.HEADER.FIELDS (SUBJECT)", Some("Subject: in\r\n\r\n"));
        check(NESTED, "2.1", Some("inner"));
        check(NESTED, "2.TEXT", Some("--c\r\n\r\ninner\r\n--c--"));
        check(NESTED, "1.HEADER", None);
        check(NESTED, "3", None);
    }
}
