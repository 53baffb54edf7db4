//! A message's text while items of it are fetched: looked into no further than they need.

use bytes::Bytes;

use crate::mime::{Kind, Part, parse, parse_header};

/// How far items reach into a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// They take it as it is.
    Whole,
    /// To the end of its header, which is the beginning of its body.
    Header,
    /// Into its parts.
    Parts,
}

/// A text, with what is known of it.
pub(super) struct Text {
    pub(super) whole: Bytes,
    /// Where header, body and parts lie.
    pub(super) root: Part,
}

impl Text {
    pub(super) fn new(whole: &Bytes, reach: Reach) -> Self {
        let root = match reach {
            Reach::Whole => Part { header: 0..0, body: 0..0, kind: Kind::Leaf },
            Reach::Header => parse_header(whole),
            Reach::Parts => parse(whole),
        };
        Self { whole: whole.clone(), root }
    }

    /// Its header with the blank line.
    pub(super) fn header(&self) -> Bytes {
        self.whole.slice(self.root.header.clone())
    }
}
