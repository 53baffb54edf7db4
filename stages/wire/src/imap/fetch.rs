//! FETCH (RFC 3501 section 6.4.5): one message's response.

use std::collections::HashSet;
use std::num::NonZeroU32;

use bytes::{BufMut as _, Bytes, BytesMut};
use imap_types::fetch::{Macro, MacroOrMessageDataItemNames, MessageDataItemName as Item, Section};

use super::basic::basic;
use super::encode;
use super::envelope::envelope;
use super::outline::{Outline, is_kept};
use super::question::MessageRow;
use super::section::{self, binary, chosen, chosen_from, section};
use super::structure::{Form, structure};
use super::text::{Reach, Text};

/// A response may have bytes so many times those of its message, and this many more.
const MOST: (usize, usize) = (4, 1024 * 1024);

/// Shorter literals are copied into the response.
const COPIED: usize = 1024;

/// The items that are asked for, macros resolved, each once.
pub(super) fn items(wanted: MacroOrMessageDataItemNames<'static>) -> Vec<Item<'static>> {
    let fast = [Item::Flags, Item::InternalDate, Item::Rfc822Size];
    match wanted {
        MacroOrMessageDataItemNames::MessageDataItemNames(items) => {
            let mut seen = HashSet::new();
            items.into_iter().filter(|item| seen.insert(item.clone())).collect()
        }
        MacroOrMessageDataItemNames::Macro(Macro::Fast) => fast.to_vec(),
        MacroOrMessageDataItemNames::Macro(Macro::Full) => {
            fast.into_iter().chain([Item::Envelope, Item::Body]).collect()
        }
        MacroOrMessageDataItemNames::Macro(_) => fast.into_iter().chain([Item::Envelope]).collect(),
    }
}

/// What of a message is needed for its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Its row.
    Row,
    /// What is kept of its text.
    Outline,
    /// Its text.
    Text,
}

/// What is needed for these items.
pub(super) fn need(items: &[Item<'_>]) -> Need {
    items.iter().map(needed).max().unwrap_or(Need::Row)
}

fn needed(item: &Item<'_>) -> Need {
    match item {
        Item::Flags | Item::InternalDate | Item::Rfc822Size | Item::Uid | Item::ModSeq => Need::Row,
        Item::Envelope | Item::Body | Item::BodyStructure => Need::Outline,
        Item::BodyExt { section: Some(Section::HeaderFields(None, names)), .. }
            if names.as_ref().iter().all(|name| is_kept(name.as_ref())) =>
        {
            Need::Outline
        }
        _ => Need::Text,
    }
}

/// Whether fetching an item marks the message as seen.
pub(super) fn marks_seen(item: &Item<'_>) -> bool {
    matches!(
        item,
        Item::Rfc822 | Item::Rfc822Text | Item::BodyExt { peek: false, .. } | Item::Binary { peek: false, .. }
    )
}

/// Whether an item is known here.
pub(super) fn is_known(item: &Item<'_>) -> bool {
    matches!(
        item,
        Item::Binary { .. }
            | Item::BinarySize { .. }
            | Item::Body
            | Item::BodyExt { .. }
            | Item::BodyStructure
            | Item::Envelope
            | Item::Flags
            | Item::InternalDate
            | Item::Rfc822
            | Item::Rfc822Header
            | Item::Rfc822Size
            | Item::Rfc822Text
            | Item::ModSeq
            | Item::Uid
    )
}

/// Which part of a text its items need.
fn reach(items: &[Item<'_>]) -> Reach {
    let one = |item: &Item<'_>| match item {
        Item::Rfc822 | Item::BodyExt { section: None, .. } => Reach::Whole,
        Item::Envelope
        | Item::Rfc822Header
        | Item::Rfc822Text
        | Item::BodyExt {
            section: Some(Section::Header(None) | Section::HeaderFields(None, _) | Section::HeaderFieldsNot(None, _)),
            ..
        } => Reach::Header,
        Item::Body | Item::BodyStructure | Item::BodyExt { .. } | Item::Binary { .. } | Item::BinarySize { .. } => {
            Reach::Parts
        }
        _ => Reach::Whole,
    };
    items.iter().map(one).max().unwrap_or(Reach::Whole)
}

/// The names of fields in all items.
pub(super) fn field_names(items: &[Item<'static>]) -> usize {
    let names = |item: &Item<'static>| match item {
        Item::BodyExt { section: Some(wanted), .. } => section::names(wanted).len(),
        _ => 0,
    };
    items.iter().map(names).sum()
}

/// Whether a text has to be looked into for its items: for its header, which may be nearly all of it, or its parts.
pub(super) fn looks_inside(items: &[Item<'_>]) -> bool {
    reach(items) > Reach::Whole
}

/// Why no response is made; what stands behind NO.
pub(super) type Refusal = &'static str;

const TOO_LARGE: Refusal = "[LIMIT] the items repeat the message too often";
// RFC 3516 section 4.3.
const UNKNOWN_CTE: Refusal = "[UNKNOWN-CTE] it is not known how the part is encoded";

/// What a response is made of, beside the message's row.
#[derive(Debug)]
pub(super) enum Source {
    /// Nothing.
    Row,
    /// What is kept of its text.
    Outline(Outline),
    /// Its text.
    Text(Bytes),
}

/// A response in pieces, of which the large ones are the text's own bytes.
#[derive(Debug, Default)]
pub(super) struct Response {
    pieces: Vec<Bytes>,
    last: BytesMut,
    /// The bytes of the pieces.
    length: usize,
    /// The bytes of the parts that were decoded for it, and of the headers that were looked through: a little of each
    /// may be wanted a hundred times.
    looked: usize,
}

impl Response {
    fn text(&mut self, text: &[u8]) {
        self.last.put_slice(text);
    }

    fn literal(&mut self, bytes: &Bytes) {
        encode::announce(&mut self.last, bytes.len());
        self.bytes(bytes);
    }

    fn binary(&mut self, bytes: &Bytes) {
        encode::announce_binary(&mut self.last, bytes);
        self.bytes(bytes);
    }

    fn bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < COPIED {
            return self.last.put_slice(bytes);
        }
        let before = self.last.split().freeze();
        self.length += before.len() + bytes.len();
        self.pieces.extend([before, bytes.clone()]);
    }

    fn len(&self) -> usize {
        self.length + self.last.len()
    }

    /// The pieces, in their order.
    pub(super) fn finish(self) -> impl Iterator<Item = Bytes> {
        self.pieces.into_iter().chain([self.last.freeze()])
    }
}

/// Writes the response for one message; the source has what the items need. It is refused if it would be far larger
/// than the message, or a part cannot be decoded.
pub(super) fn response(
    number: usize,
    row: &MessageRow,
    items: &[Item<'static>],
    source: &Source,
) -> Result<Response, Refusal> {
    let mut out = Response { last: BytesMut::with_capacity(512), ..Response::default() };
    let text = match source {
        Source::Text(text) => Some(Text::new(text, reach(items))),
        Source::Row | Source::Outline(_) => None,
    };
    let length = match source {
        Source::Row => 0,
        Source::Outline(outline) => outline.fields.len() + outline.structure.len(),
        Source::Text(text) => text.len(),
    };
    out.text(b"*");
    encode::number(&mut out.last, number as u64);
    out.text(b" FETCH (");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.text(b" ");
        }
        match (source, &text) {
            (_, Some(text)) if needed(item) > Need::Row => of_text(&mut out, item, text)?,
            (Source::Outline(outline), _) if needed(item) > Need::Row => of_outline(&mut out, item, outline),
            _ => of_row(&mut out, row, item),
        }
        if out.len() + out.looked > MOST.0 * length + MOST.1 {
            return Err(TOO_LARGE);
        }
    }
    out.text(b")\r\n");
    Ok(out)
}

fn of_row(out: &mut Response, row: &MessageRow, item: &Item<'static>) {
    match item {
        Item::Flags => {
            out.text(b"FLAGS ");
            out.text(encode::flags(row.flags, &row.keywords).as_bytes());
        }
        Item::InternalDate => {
            out.text(b"INTERNALDATE ");
            out.text(encode::date_time(row.received).as_bytes());
        }
        Item::Rfc822Size => {
            out.text(b"RFC822.SIZE");
            encode::number(&mut out.last, row.size);
        }
        Item::ModSeq => {
            out.text(b"MODSEQ (");
            encode::digits(&mut out.last, row.modseq);
            out.text(b")");
        }
        // Items that are not known were refused.
        _ => {
            out.text(b"UID");
            encode::number(&mut out.last, row.uid.into());
        }
    }
}

fn of_outline(out: &mut Response, item: &Item<'static>, outline: &Outline) {
    match item {
        Item::Envelope => {
            out.text(b"ENVELOPE ");
            envelope(&mut out.last, &outline.fields);
        }
        Item::BodyStructure => {
            out.text(b"BODYSTRUCTURE ");
            out.text(&outline.structure);
        }
        Item::BodyExt { section: Some(wanted @ Section::HeaderFields(None, names)), partial, .. } => {
            put_name(out, Some(wanted), *partial);
            out.looked += outline.fields.len();
            let found = chosen(&outline.fields, names.as_ref());
            out.literal(&cut(&found, *partial));
        }
        _ => {
            out.text(b"BODY ");
            // What is kept was made by us, and found to be as it was made.
            if basic(&mut out.last, &outline.structure).is_none() {
                out.text(b"NIL");
            }
        }
    }
}

fn of_text(out: &mut Response, item: &Item<'static>, text: &Text) -> Result<(), Refusal> {
    match item {
        Item::Envelope => {
            out.text(b"ENVELOPE ");
            envelope(&mut out.last, &text.header());
        }
        Item::Body => {
            out.text(b"BODY ");
            structure(&mut out.last, &text.whole, &text.root, Form::Basic);
        }
        Item::BodyStructure => {
            out.text(b"BODYSTRUCTURE ");
            structure(&mut out.last, &text.whole, &text.root, Form::Extended);
        }
        Item::Rfc822 => {
            out.text(b"RFC822 ");
            out.literal(&text.whole);
        }
        Item::Rfc822Header => {
            out.text(b"RFC822.HEADER ");
            out.literal(&text.header());
        }
        Item::Rfc822Text => {
            out.text(b"RFC822.TEXT ");
            out.literal(&text.whole.slice(text.root.body.clone()));
        }
        Item::BodyExt { section: None, partial, .. } => {
            put_name(out, None, *partial);
            out.literal(&cut(&text.whole, *partial));
        }
        Item::BodyExt { section: Some(wanted), partial, .. } => {
            put_name(out, Some(wanted), *partial);
            out.looked += chosen_from(&text.root, wanted);
            match section(&text.whole, &text.root, wanted) {
                Some(found) => out.literal(&cut(&found, *partial)),
                None => out.text(b"NIL"),
            }
        }
        Item::Binary { section: numbers, partial, .. } => {
            put_numbers(out, "BINARY", numbers, *partial);
            match decoded(out, text, numbers)? {
                // What is cut out would keep all of the part.
                Some(found) if partial.is_some() => out.binary(&Bytes::copy_from_slice(&cut(&found, *partial))),
                Some(found) => out.binary(&found),
                None => out.text(b"NIL"),
            }
        }
        Item::BinarySize { section: numbers } => {
            put_numbers(out, "BINARY.SIZE", numbers, None);
            // RFC 3516 has no word for a part that is not there: it has no bytes.
            let found = decoded(out, text, numbers)?.unwrap_or_default();
            encode::digits(&mut out.last, found.len() as u64);
        }
        _ => {}
    }
    Ok(())
}

/// What a part stands for; none if there is no such part.
fn decoded(out: &mut Response, text: &Text, numbers: &[NonZeroU32]) -> Result<Option<Bytes>, Refusal> {
    let Some(found) = binary(&text.whole, &text.root, numbers) else { return Ok(None) };
    let found = found.ok_or(UNKNOWN_CTE)?;
    out.looked += found.len();
    Ok(Some(found))
}

fn put_numbers(out: &mut Response, name: &str, numbers: &[NonZeroU32], partial: Option<(u32, NonZeroU32)>) {
    let numbers = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
    let origin = partial.map(|(origin, _)| format!("<{origin}>")).unwrap_or_default();
    out.text(format!("{name}[{numbers}]{origin} ").as_bytes());
}

fn put_name(out: &mut Response, wanted: Option<&Section<'_>>, partial: Option<(u32, NonZeroU32)>) {
    out.text(b"BODY[");
    out.text(&name(wanted));
    out.text(b"]");
    if let Some((origin, _)) = partial {
        out.text(format!("<{origin}>").as_bytes());
    }
    out.text(b" ");
}

/// The part of some bytes that is asked for; none of them if it begins behind them (RFC 3501 section 6.4.5).
fn cut(bytes: &Bytes, partial: Option<(u32, NonZeroU32)>) -> Bytes {
    let Some((origin, length)) = partial else { return bytes.clone() };
    let from = usize::try_from(origin).unwrap_or(usize::MAX).min(bytes.len());
    let to = from.saturating_add(usize::try_from(length.get()).unwrap_or(usize::MAX)).min(bytes.len());
    bytes.slice(from..to)
}

/// The section as the client wrote it, in its canonical form.
fn name(wanted: Option<&Section<'_>>) -> BytesMut {
    let numbers =
        |part: &imap_types::fetch::Part| part.0.as_ref().iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
    let before =
        |part: &Option<imap_types::fetch::Part>| part.as_ref().map(|part| numbers(part) + ".").unwrap_or_default();
    let (name, names) = match wanted {
        None => (String::new(), None),
        Some(Section::Part(part)) => (numbers(part), None),
        Some(Section::Header(part)) => (before(part) + "HEADER", None),
        Some(Section::Text(part)) => (before(part) + "TEXT", None),
        Some(Section::Mime(part)) => (numbers(part) + ".MIME", None),
        Some(Section::HeaderFields(part, names)) => (before(part) + "HEADER.FIELDS ", Some(names.as_ref())),
        Some(Section::HeaderFieldsNot(part, names)) => (before(part) + "HEADER.FIELDS.NOT ", Some(names.as_ref())),
    };
    let mut out = BytesMut::from(name.as_str());
    for (at, name) in names.into_iter().flatten().enumerate() {
        out.put_u8(if at == 0 { b'(' } else { b' ' });
        encode::astring(&mut out, &name.as_ref().to_ascii_uppercase());
    }
    out.put_slice(if names.is_some() { b")" } else { b"" });
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use imap_types::core::AString;

    use super::*;

    /// A hundred bytes of a part each would be as many times the whole part, in time and in memory.
    #[test]
    fn a_part_is_not_decoded_without_bound() {
        let text = Bytes::from(format!("Content-Transfer-Encoding: base64\r\n\r\n{}", "QUFB".repeat(1 << 19)));
        let row = MessageRow { uid: 1, flags: 0, keywords: "".into(), size: text.len() as u64, received: 0, modseq: 1 };
        let fetched = |count: u32| {
            let one = NonZeroU32::MIN;
            let item = |at| Item::Binary { section: vec![one], partial: Some((at, one)), peek: true };
            let items: Vec<_> = (0..count).map(item).collect();
            response(1, &row, &items, &Source::Text(text.clone())).map(|response| response.len())
        };
        assert!(fetched(3).is_ok_and(|length| length < 200));
        assert_eq!(fetched(100), Err(TOO_LARGE));
    }

    /// A header of very many fields would be gone through for each of a hundred items.
    #[test]
    fn a_header_is_not_looked_through_without_bound() {
        let header = Bytes::from(format!("a: {}\r\n", "b".repeat(1019)).repeat(4096));
        let row = MessageRow { uid: 1, flags: 0, keywords: "".into(), size: 0, received: 0, modseq: 1 };
        let outline = Outline { fields: header.clone(), structure: Bytes::new() };
        for source in [Source::Text(header), Source::Outline(outline)] {
            let fetched = |count: usize| {
                let names = |at: usize| vec![AString::try_from(format!("cc{at}")).unwrap()].try_into().unwrap();
                let item = |at| Item::BodyExt {
                    section: Some(Section::HeaderFields(None, names(at))),
                    partial: None,
                    peek: true,
                };
                let items: Vec<_> = (0..count).map(item).collect();
                response(1, &row, &items, &source).map(|response| response.len())
            };
            assert!(fetched(4).is_ok_and(|length| length < 300));
            assert_eq!(fetched(5), Err(TOO_LARGE));
        }
    }
}
