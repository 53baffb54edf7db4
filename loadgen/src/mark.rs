//! The mark that each mail carries: who it is, and a digest of all that follows. Pure.
//!
//! It is the first line of a mail as it is sent. A chain puts its own header lines before it and may change nothing
//! behind it; whoever changes header lines by right is compared by the body alone.

use clap::ValueEnum;

/// How a mark begins.
const FIELD: &[u8] = b"X-Loadgen: ";
/// The mark of a mail stands within its first bytes: before it there is only what a chain has put there.
const WITHIN: usize = 64 * 1024;

/// What the digest is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Span {
    /// Everything behind the mark.
    Whole,
    /// The body: for chains that add to the header behind the mark.
    Body,
}

/// A mark that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Which mail it is.
    pub(crate) id: String,
    /// What the mail is now. None when the mark itself is not as it was written for what follows it.
    pub(crate) digest: Option<blake3::Hash>,
}

impl Span {
    /// The digest of a mail behind its mark.
    pub(crate) fn digest(self, rest: &[u8]) -> blake3::Hash {
        let from = match self {
            Self::Whole => 0,
            Self::Body => memchr::memmem::find(rest, b"\r\n\r\n").map_or(rest.len(), |at| at + 4),
        };
        blake3::hash(&rest[from..])
    }

    /// Looks for the mark of a mail that was read back.
    pub(crate) fn find(self, mail: &[u8]) -> Option<Mark> {
        let head = &mail[..mail.len().min(WITHIN)];
        let starts = memchr::memmem::find_iter(head, FIELD);
        let at = starts.into_iter().find(|at| *at == 0 || head[at - 1] == b'\n')?;
        let end = at + memchr::memchr(b'\n', &mail[at..])? + 1;
        let line = std::str::from_utf8(&mail[at..end]).ok()?;
        let (id, _) = line[FIELD.len()..].trim_end().split_once(' ')?;
        let digest = self.digest(&mail[end..]);
        Some(Mark { id: id.to_owned(), digest: (line == written(id, digest)).then_some(digest) })
    }
}

/// The mail with its mark in front, and its digest.
pub(crate) fn mark(span: Span, id: &str, rest: &[u8]) -> (Vec<u8>, blake3::Hash) {
    let digest = span.digest(rest);
    ([written(id, digest).as_bytes(), rest].concat(), digest)
}

fn written(id: &str, digest: blake3::Hash) -> String {
    format!("X-Loadgen: {id} {}\r\n", digest.to_hex())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_change_is_seen() {
        let rest = b"Subject: a\r\n\r\nX-Loadgen: no mark\r\nb\r\n";
        for span in [Span::Whole, Span::Body] {
            let (mail, digest) = mark(span, "r.1", rest);
            let came = [b"Received: X-Loadgen: none\r\n".as_slice(), &mail].concat();
            let found = span.find(&came).unwrap();
            assert_eq!((found.id.as_str(), found.digest), ("r.1", Some(digest)));
            // Any byte from the mark on, the mark's own among them: it is another mail then, or no mail of ours.
            let (begin, body) = (came.len() - mail.len(), memchr::memmem::find(&came, b"\r\n\r\n").unwrap() + 4);
            let header = begin + mail.len() - rest.len()..body;
            for change in (begin..came.len()).filter(|at| span == Span::Whole || !header.contains(at)) {
                let mut came = came.clone();
                came[change] ^= 1;
                let is_it = |mark: Mark| mark.id == "r.1" && mark.digest == Some(digest);
                assert!(!span.find(&came).is_some_and(is_it), "byte {change}");
            }
            assert_ne!(span.find(&came[..came.len() - 2]).unwrap().digest, Some(digest));
            assert_ne!(span.find(&[came.as_slice(), b"\r\n"].concat()).unwrap().digest, Some(digest));
            let at = memchr::memmem::find(&came, b"Subject").unwrap();
            let more = [&came[..at], b"X-Spam: no\r\n", &came[at..]].concat();
            assert_eq!(span.find(&more).unwrap().digest == Some(digest), span == Span::Body);
            let less = [&came[..at], &came[at + b"Subject: a\r\n".len()..]].concat();
            assert!(span == Span::Body || span.find(&less).unwrap().digest != Some(digest), "without its subject");
        }
    }

    #[test]
    fn what_has_no_mark() {
        for mail in [&b""[..], b"Subject: X-Loadgen: a b\r\n\r\n", b"X-Loadgen: a\r\n\r\n", b"X-Loadgen: a b"] {
            assert_eq!(Span::Whole.find(mail), None);
        }
    }
}
