//! FETCH (RFC 3501 section 6.4.5): one message's response.

use std::collections::HashSet;

use bytes::{BufMut as _, BytesMut};
use imap_types::fetch::{Macro, MacroOrMessageDataItemNames, MessageDataItemName as Item, Section};

use super::encode;
use super::envelope::envelope;
use super::question::MessageRow;
use super::section::section;
use super::structure::{Form, structure};
use crate::mime::{Part, parse, parse_header};

/// A response may have bytes so many times those of its message, and this many more.
const MOST: (usize, usize) = (4, 1024 * 1024);

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

/// Whether an item needs the message's text.
pub(super) fn needs_text(item: &Item<'_>) -> bool {
    !matches!(item, Item::Flags | Item::InternalDate | Item::Rfc822Size | Item::Uid)
}

/// Whether fetching an item marks the message as seen.
pub(super) fn marks_seen(item: &Item<'_>) -> bool {
    matches!(item, Item::Rfc822 | Item::Rfc822Text | Item::BodyExt { peek: false, .. })
}

/// Whether an item is known here.
pub(super) fn is_known(item: &Item<'_>) -> bool {
    matches!(
        item,
        Item::Body
            | Item::BodyExt { .. }
            | Item::BodyStructure
            | Item::Envelope
            | Item::Flags
            | Item::InternalDate
            | Item::Rfc822
            | Item::Rfc822Header
            | Item::Rfc822Size
            | Item::Rfc822Text
            | Item::Uid
    )
}

/// Whether an item needs to know where a message's parts lie; the others need its header's end at most.
fn needs_parts(item: &Item<'_>) -> bool {
    match item {
        Item::Body | Item::BodyStructure => true,
        Item::BodyExt { section: Some(section), .. } => !matches!(
            section,
            Section::Header(None)
                | Section::Text(None)
                | Section::HeaderFields(None, _)
                | Section::HeaderFieldsNot(None, _)
        ),
        _ => false,
    }
}

/// Writes the response for one message; `text` is there if any item needs it. None if it would be far larger than the
/// message.
pub(super) fn response(
    number: usize,
    row: &MessageRow,
    items: &[Item<'static>],
    text: Option<&[u8]>,
) -> Option<BytesMut> {
    let most = MOST.0 * text.map_or(0, <[u8]>::len) + MOST.1;
    let mut out =
        BytesMut::with_capacity(256 + text.map_or(0, |text| text.len() * usize::from(items.iter().any(marks_seen))));
    out.put_slice(format!("* {number} FETCH (").as_bytes());
    let parts = items.iter().any(needs_parts);
    let parsed = text.map(|text| (text, if parts { parse(text) } else { parse_header(text) }));
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b' ');
        }
        one(&mut out, row, item, parsed.as_ref().map(|(text, root)| (*text, root)));
        if out.len() > most {
            return None;
        }
    }
    out.put_slice(b")\r\n");
    Some(out)
}

fn one(out: &mut BytesMut, row: &MessageRow, item: &Item<'static>, parsed: Option<(&[u8], &Part)>) {
    match (item, parsed) {
        (Item::Flags, _) => out.put_slice(format!("FLAGS {}", encode::flags(row.flags, &row.keywords)).as_bytes()),
        (Item::InternalDate, _) => {
            out.put_slice(format!("INTERNALDATE {}", encode::date_time(row.received)).as_bytes())
        }
        (Item::Rfc822Size, _) => out.put_slice(format!("RFC822.SIZE {}", row.size).as_bytes()),
        (Item::Uid, _) => out.put_slice(format!("UID {}", row.uid).as_bytes()),
        (Item::Envelope, Some((text, root))) => {
            out.put_slice(b"ENVELOPE ");
            envelope(out, &text[root.header.clone()]);
        }
        (Item::Body, Some((text, root))) => {
            out.put_slice(b"BODY ");
            structure(out, text, root, Form::Basic);
        }
        (Item::BodyStructure, Some((text, root))) => {
            out.put_slice(b"BODYSTRUCTURE ");
            structure(out, text, root, Form::Extended);
        }
        (Item::Rfc822, Some((text, _))) => {
            out.put_slice(b"RFC822 ");
            encode::literal(out, text);
        }
        (Item::Rfc822Header, Some((text, root))) => {
            out.put_slice(b"RFC822.HEADER ");
            encode::literal(out, &text[root.header.clone()]);
        }
        (Item::Rfc822Text, Some((text, root))) => {
            out.put_slice(b"RFC822.TEXT ");
            encode::literal(out, &text[root.body.clone()]);
        }
        (Item::BodyExt { section: wanted, partial, .. }, Some((text, root))) => {
            let origin = partial.map(|(origin, _)| format!("<{origin}>")).unwrap_or_default();
            out.put_slice(format!("BODY[{}]{origin} ", name(wanted.as_ref())).as_bytes());
            match section(text, root, wanted.as_ref()) {
                Some(found) => encode::literal(out, cut(&found, *partial)),
                None => out.put_slice(b"NIL"),
            }
        }
        // Items that are not known were refused; a text that is gone has no parts.
        (_, _) => out.put_slice(format!("UID {}", row.uid).as_bytes()),
    }
}

fn cut(bytes: &[u8], partial: Option<(u32, std::num::NonZeroU32)>) -> &[u8] {
    let Some((origin, length)) = partial else { return bytes };
    let from = usize::try_from(origin).unwrap_or(usize::MAX).min(bytes.len());
    let to = from.saturating_add(usize::try_from(length.get()).unwrap_or(usize::MAX)).min(bytes.len());
    &bytes[from..to]
}

/// The section as the client wrote it, in its canonical form.
fn name(wanted: Option<&Section<'_>>) -> String {
    let numbers =
        |part: &imap_types::fetch::Part| part.0.as_ref().iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
    let before =
        |part: &Option<imap_types::fetch::Part>| part.as_ref().map(|part| numbers(part) + ".").unwrap_or_default();
    let names = |names: &[imap_types::core::AString<'_>]| {
        names
            .iter()
            .map(|name| String::from_utf8_lossy(name.as_ref()).to_ascii_uppercase())
            .collect::<Vec<_>>()
            .join(" ")
    };
    match wanted {
        None => String::new(),
        Some(Section::Part(part)) => numbers(part),
        Some(Section::Header(part)) => before(part) + "HEADER",
        Some(Section::Text(part)) => before(part) + "TEXT",
        Some(Section::Mime(part)) => numbers(part) + ".MIME",
        Some(Section::HeaderFields(part, list)) => format!("{}HEADER.FIELDS ({})", before(part), names(list.as_ref())),
        Some(Section::HeaderFieldsNot(part, list)) => {
            format!("{}HEADER.FIELDS.NOT ({})", before(part), names(list.as_ref()))
        }
    }
}
