//! What clients ask about every message at first sight, so that it is kept beside the message and its text need not be
//! read: the fields of its header that lists are made of, and its structure.
//!
//! It is made of the text as it came, and is the same for every copy of it. A copy has header lines of its own before
//! it; as long as they are [neutral](is_neutral) they change nothing of what is kept.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::structure::{Form, structure};
use crate::mime::{Fields, parse, parse_header};

/// The fields that are kept: those that ENVELOPE and BODYSTRUCTURE are made of, that sorting and threading look at, and
/// that well-known clients ask for by name when they list a mailbox. No field that is long in most mails.
const KEPT: [&str; 45] = [
    "date",
    "subject",
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "in-reply-to",
    "message-id",
    "references",
    "content-type",
    "content-id",
    "content-description",
    "content-transfer-encoding",
    "content-md5",
    "content-disposition",
    "content-language",
    "content-location",
    "content-class",
    "mime-version",
    "importance",
    "priority",
    "x-priority",
    "x-msmail-priority",
    "newsgroups",
    "followup-to",
    "mail-followup-to",
    "mail-reply-to",
    "resent-message-id",
    "resent-date",
    "resent-from",
    "resent-to",
    "list-id",
    "list-post",
    "list-subscribe",
    "list-unsubscribe",
    "lines",
    "x-label",
    "x-mailing-list",
    "x-original-to",
    "disposition-notification-to",
    "return-receipt-to",
    "auto-submitted",
    "precedence",
];

/// What is kept of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The fields that are kept, as they stand in its header, in their order, and the blank line.
    pub fields: Bytes,
    /// Its BODYSTRUCTURE.
    pub structure: Bytes,
}

impl Outline {
    /// Raised when something else is made of a text than before: what was kept is then not used any more.
    pub const FORM: u8 = 2;
    /// The form before this one.
    pub const BEFORE: u8 = 1;

    /// Whether an outline of the form before would be made so today: all but those that tell of a parameter in pieces,
    /// which may not have been joined, or of a message in UTF-8, which was told of as a leaf.
    pub fn holds_still(&self) -> bool {
        let global = b"global";
        let is_told = self.structure.windows(global.len()).any(|word| word.eq_ignore_ascii_case(global));
        !is_told && memchr::memchr(b'*', &self.structure).is_none()
    }

    /// The outline of a text.
    pub fn of(text: &[u8]) -> Self {
        let root = parse(text);
        let mut out = BytesMut::with_capacity(512);
        structure(&mut out, text, &root, Form::Extended);
        Self { fields: kept_fields(&text[root.header]), structure: out.freeze() }
    }

    /// The fields of a text alone.
    pub fn fields_of(text: &[u8]) -> Bytes {
        kept_fields(&text[parse_header(text).header])
    }
}

fn kept_fields(header: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1024);
    for (_, range) in Fields::of(header).filter(|(name, _)| is_kept(name)) {
        out.put_slice(&header[range]);
    }
    out.put_slice(b"\r\n");
    out.freeze()
}

/// Whether the fields of this name are kept.
pub fn is_kept(name: &[u8]) -> bool {
    KEPT.iter().any(|kept| kept.as_bytes().eq_ignore_ascii_case(name))
}

/// Whether header lines before a text change nothing of what is kept of it: they are whole lines, do not end the
/// header, and none of them is a field that is kept.
pub fn is_neutral(prefix: &[u8]) -> bool {
    let mut at = 0;
    while let Some(end) = memchr::memchr(b'\n', &prefix[at..]) {
        if matches!(&prefix[at..=at + end], b"\n" | b"\r\n") {
            return false;
        }
        at += end + 1;
    }
    at == prefix.len() && !Fields::of(prefix).any(|(name, _)| is_kept(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imap::structure;

    #[track_caller]
    fn check(text: &str, fields: &str) {
        assert_eq!(Outline::of(text.as_bytes()).fields, fields);
    }

    #[test]
    fn the_fields_that_are_kept() {
        check(
            "Received: r\r\n by s\r\nSUBJECT : a\r\n b\r\nX-Y: z\r\nsubject: c\r\n\r\nFrom: body",
            "SUBJECT : a\r\n b\r\nsubject: c\r\n\r\n",
        );
        check("", "\r\n");
        check("\r\nSubject: a body", "\r\n");
        check("no field\r\n at all: here", "\r\n");
    }

    /// A field that a structure is made of, and that is not kept, would be missing in it without anybody's noticing.
    #[test]
    fn all_that_a_structure_is_made_of_is_kept() {
        for name in structure::NAMES {
            assert!(is_kept(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn prefixes() {
        for (prefix, want) in [
            ("", true),
            ("Return-Path: <>\r\nDelivered-To: a@x\r\nReceived: a\r\n b\r\n", true),
            ("X-Chainmail-Stray: what follows\r\n", true),
            ("Received: a\r\nSubject: [SPAM]\r\n", false),
            ("content-type: x\r\n", false),
            ("Received: a\r\n\r\n", false),
            ("Received: a", false),
        ] {
            assert_eq!(is_neutral(prefix.as_bytes()), want, "{prefix:?}");
        }
    }

    proptest! {
        /// Texts without a header, that begin with a blank, with an empty line, with a line that is no field.
        #[test]
        fn a_neutral_prefix_changes_nothing(
            prefix in "(Received: r\r\n|X-A: 1\r\n 2\r\n|\r\n|Subject: s\r\n|x){0,3}",
            text in "(Subject: |From: a@b|Content-Type: multipart/mixed; boundary=b\r\n|--b(--)?\r\n| |\r\n|\n\
    |x|:){0,12}",
        ) {
            if is_neutral(prefix.as_bytes()) {
                let whole = format!("{prefix}{text}");
                prop_assert_eq!(Outline::of(whole.as_bytes()), Outline::of(text.as_bytes()));
            }
        }
    }
}
