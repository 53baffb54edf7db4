//! BODY sections (RFC 3501 section 6.4.5): which bytes of a message a client asks for.

use std::borrow::Cow;
use std::collections::HashSet;
use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};
use imap_types::core::AString;
use imap_types::fetch::{Part as PartNumbers, Section};

use crate::mime::{Fields, Kind, Part, decode};

/// Names that a field's is compared with one by one, which is quickest for few. More are looked up.
const FEW: usize = 16;

/// The bytes of a section; none if there is no such part.
pub(super) fn section(text: &Bytes, root: &Part, wanted: &Section<'_>) -> Option<Bytes> {
    let header = |part: &Part| text.slice(part.header.clone());
    let body = |part: &Part| text.slice(part.body.clone());
    match wanted {
        Section::Part(numbers) => find(root, numbers.0.as_ref()).map(body),
        Section::Header(numbers) => message(root, numbers.as_ref()).map(header),
        Section::Text(numbers) => message(root, numbers.as_ref()).map(body),
        Section::Mime(numbers) => find(root, numbers.0.as_ref()).map(header),
        Section::HeaderFields(numbers, names) => {
            message(root, numbers.as_ref()).map(|part| chosen(&text[part.header.clone()], names.as_ref()))
        }
        Section::HeaderFieldsNot(numbers, names) => {
            let names = Names::of(names.as_ref());
            message(root, numbers.as_ref()).map(|part| select(&text[part.header.clone()], |name| !names.have(name)))
        }
    }
}

/// Bytes of the header whose fields a section is chosen from: it is read again for every such section.
pub(super) fn chosen_from(root: &Part, wanted: &Section<'_>) -> usize {
    match wanted {
        Section::HeaderFields(numbers, _) | Section::HeaderFieldsNot(numbers, _) => {
            message(root, numbers.as_ref()).map_or(0, |part| part.header.len())
        }
        _ => 0,
    }
}

/// The names of fields in a section.
pub(super) fn names<'a>(wanted: &'a Section<'static>) -> &'a [AString<'static>] {
    match wanted {
        Section::HeaderFields(_, names) | Section::HeaderFieldsNot(_, names) => names.as_ref(),
        _ => &[],
    }
}

/// What a part's body stands for (RFC 3516): none if there is no such part, and then none if its encoding is not known.
/// Without numbers it is the whole message, which like all that has parts stands for itself.
pub(super) fn binary(text: &Bytes, root: &Part, numbers: &[NonZeroU32]) -> Option<Option<Bytes>> {
    if numbers.is_empty() {
        return Some(Some(text.clone()));
    }
    let part = find(root, numbers)?;
    let body = text.slice(part.body.clone());
    if !matches!(part.kind, Kind::Leaf) {
        return Some(Some(body));
    }
    Some(decode(&text[part.header.clone()], &body).map(|decoded| match decoded {
        Cow::Borrowed(_) => body.clone(),
        Cow::Owned(decoded) => decoded.into(),
    }))
}

/// The part with these numbers. Part 1 of what is not multipart is its body.
fn find<'a>(root: &'a Part, numbers: &[NonZeroU32]) -> Option<&'a Part> {
    let mut part = root;
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
        Some(numbers) => match &find(root, numbers.0.as_ref())?.kind {
            Kind::Message(inner) => Some(inner),
            _ => None,
        },
    }
}

/// Names of fields that are asked for, in whichever case. A header may have a million fields, so that none of them may
/// be compared with very many names.
enum Names<'a> {
    Few(&'a [AString<'a>]),
    /// In lower case, with the bytes of the longest.
    Many(HashSet<Vec<u8>>, usize),
}

impl<'a> Names<'a> {
    fn of(names: &'a [AString<'a>]) -> Self {
        if names.len() <= FEW {
            return Self::Few(names);
        }
        let names: HashSet<_> = names.iter().map(|name| name.as_ref().to_ascii_lowercase()).collect();
        let longest = names.iter().map(Vec::len).max().unwrap_or(0);
        Self::Many(names, longest)
    }

    fn have(&self, name: &[u8]) -> bool {
        match self {
            Self::Few(names) => names.iter().any(|wanted| wanted.as_ref().eq_ignore_ascii_case(name)),
            Self::Many(names, longest) => name.len() <= *longest && names.contains(&name.to_ascii_lowercase()),
        }
    }
}

/// The fields of these names.
pub(super) fn chosen(header: &[u8], names: &[AString<'_>]) -> Bytes {
    let names = Names::of(names);
    select(header, |name| names.have(name))
}

/// The chosen fields, and the blank line that always ends them.
fn select(header: &[u8], choose: impl Fn(&[u8]) -> bool) -> Bytes {
    let mut out = BytesMut::new();
    for (_, range) in Fields::of(header).filter(|(name, _)| choose(name)) {
        out.extend_from_slice(&header[range]);
    }
    out.extend_from_slice(b"\r\n");
    out.freeze()
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

    const NESTED: &str = "Subject: out\r\nX-A: 1\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
                          Content-Type: text/plain\r\n\r\none\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
                          Subject: in\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\ninner\r\n--c--\r\n\
                          --b--\r\n";

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
        let text = Bytes::copy_from_slice(text.as_bytes());
        let got = section(&text, &parse(&text), wanted.as_ref().unwrap());
        assert_eq!(got.as_deref().map(|got| std::str::from_utf8(got).unwrap()), want);
    }

    #[test]
    fn plain() {
        let text = "A: 1\r\nB: 2\r\n\r\nbody\r\n";
        check(text, "HEADER", Some("A: 1\r\nB: 2\r\n\r\n"));
        check(text, "TEXT", Some("body\r\n"));
        check(text, "1", Some("body\r\n"));
        check(text, "2", None);
        check(text, "1.1", None);
        check(text, "HEADER.FIELDS (b x)", Some("B: 2\r\n\r\n"));
        check(text, "HEADER.FIELDS.NOT (B)", Some("A: 1\r\n\r\n"));
        let many: String = (0..FEW).map(|at| format!("x{at} ")).collect();
        check(text, &format!("HEADER.FIELDS ({many}b)"), Some("B: 2\r\n\r\n"));
        check(text, &format!("HEADER.FIELDS.NOT ({many}B)"), Some("A: 1\r\n\r\n"));
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
