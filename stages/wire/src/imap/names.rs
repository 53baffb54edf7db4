//! Mailbox names: UTF-8 inside; on the wire modified UTF-7 (RFC 3501 section 5.1.3), or UTF-8 for clients that have
//! asked for that (RFC 6855, RFC 9051); and the wildcards of LIST.

use std::collections::HashMap;

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::NO_PAD;
use bytes::BytesMut;

use super::encode;

const BASE64: GeneralPurpose = GeneralPurpose::new(&IMAP_MUTF7, NO_PAD);

/// Bytes of a mailbox's name: enough for 32 levels with a word each, and each name lies in memory with every LIST.
pub(super) const LONGEST: usize = 512;
/// Levels of a name.
const LEVELS: usize = 32;

/// How names are written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// In modified UTF-7.
    Modified,
    /// As they are.
    Utf8,
}

/// Whether a mailbox may have this name: no empty levels, no wildcards, nothing that cannot be seen, and not too long.
pub fn is_mailbox_name(name: &str) -> bool {
    let is_level = |level: &str| !level.is_empty() && level != "." && level != "..";
    let is_bad = |c: char| c.is_control() || matches!(c, '%' | '*' | '\u{2028}' | '\u{2029}');
    name.len() <= LONGEST
        && name.split('/').count() <= LEVELS
        && name.split('/').all(is_level)
        && !name.contains(is_bad)
        && (name == "INBOX" || !name.eq_ignore_ascii_case("INBOX"))
}

/// Whether a new mailbox may have this name: RFC 9051 section 5.1 wants it composed (Unicode's form C), or there would
/// be two that look alike. One that has another name already keeps it.
pub(super) fn is_composed(name: &str) -> bool {
    name.is_ascii() || unicode_normalization::is_nfc(name)
}

/// Writes a name as it goes over the wire.
pub(super) fn write(out: &mut BytesMut, name: &str, spelling: Spelling) {
    match spelling {
        Spelling::Modified => encode::string(out, modified(name).as_bytes()),
        Spelling::Utf8 => encode::text(out, name),
    }
}

fn modified(name: &str) -> String {
    let mut out = String::new();
    let mut shifted: Vec<u8> = Vec::new();
    let flush = |out: &mut String, shifted: &mut Vec<u8>| {
        if !shifted.is_empty() {
            out.push('&');
            out.push_str(&BASE64.encode(&shifted));
            out.push('-');
            shifted.clear();
        }
    };
    for c in name.chars() {
        if (' '..='~').contains(&c) {
            flush(&mut out, &mut shifted);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            let mut units = [0; 2];
            shifted.extend(c.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut out, &mut shifted);
    out
}

/// The name that was meant; none if it is not spelt so.
pub(super) fn decode(wire: &[u8], spelling: Spelling) -> Option<String> {
    let mut rest = std::str::from_utf8(wire).ok()?;
    if spelling == Spelling::Utf8 {
        return Some(with_inbox(rest.to_owned()));
    }
    let mut name = String::new();
    while let Some(at) = rest.find('&') {
        name.push_str(&rest[..at]);
        let end = at + rest[at..].find('-')?;
        let shifted = &rest[at + 1..end];
        if shifted.is_empty() {
            name.push('&');
        } else {
            let bytes = BASE64.decode(shifted).ok()?;
            let units: Vec<u16> = bytes.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
            (bytes.len() % 2 == 0).then_some(())?;
            name.push_str(&String::from_utf16(&units).ok()?);
        }
        rest = &rest[end + 1..];
    }
    name.push_str(rest);
    Some(with_inbox(name))
}

/// INBOX, and what is below it, in whichever case it is written (RFC 3501 section 5.1).
fn with_inbox(name: String) -> String {
    match name.split_at_checked("INBOX".len()) {
        Some((inbox, rest)) if inbox.eq_ignore_ascii_case("INBOX") && (rest.is_empty() || rest.starts_with('/')) => {
            format!("INBOX{rest}")
        }
        _ => name,
    }
}

/// A pattern of LIST: `*` is anything, `%` anything within one level. Read once and asked of every name. No
/// backtracking: the positions of the pattern that are reached after so much of a name are bits, so that each letter
/// takes a few steps whatever the pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    length: usize,
    /// Where which letter stands.
    letters: HashMap<char, Vec<u64>>,
    /// Where `*` stands.
    any: Vec<u64>,
    /// Where `*` or `%` stands: one is never behind another.
    wild: Vec<u64>,
}

impl Pattern {
    /// Reads a pattern. None if it is longer than every name that it could match.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let mut letters: Vec<char> = Vec::new();
        for letter in pattern.chars() {
            match letters.last_mut() {
                // Two wildcards are the stronger one of them.
                Some(last @ ('*' | '%')) if letter == '*' => *last = '*',
                Some('*' | '%') if letter == '%' => {}
                _ => letters.push(letter),
            }
        }
        if letters.len() > 2 * LONGEST + 1 {
            return None;
        }
        let words = letters.len() / 64 + 1;
        let none = || vec![0; words];
        let mut new = Self { length: letters.len(), letters: HashMap::new(), any: none(), wild: none() };
        for (at, letter) in letters.into_iter().enumerate() {
            let set = |words: &mut Vec<u64>| words[at / 64] |= 1 << (at % 64);
            match letter {
                '*' => [&mut new.any, &mut new.wild].into_iter().for_each(set),
                '%' => set(&mut new.wild),
                letter => set(new.letters.entry(letter).or_insert_with(none)),
            }
        }
        Some(new)
    }

    /// Words of which each letter of a name takes a step.
    pub(super) fn words(&self) -> usize {
        self.wild.len()
    }

    pub(super) fn letters(&self) -> usize {
        self.length
    }

    /// Marks whether the names above a name, the highest first, and at last itself, match. It is gone through once for
    /// all.
    pub(super) fn mark(&self, name: &str, levels: &mut Vec<bool>) {
        levels.resize(name.matches('/').count() + 1, false);
        let mut reached = vec![0; self.wild.len()];
        reached[0] = 1;
        self.pass_wildcards(&mut reached);
        let mut level = 0;
        for letter in name.chars() {
            if letter == '/' {
                levels[level] |= self.is_at_end(&reached);
                level += 1;
            }
            let goes_on = self.letters.get(&letter);
            let stays = if letter == '/' { &self.any } else { &self.wild };
            let mut carry = 0;
            for (word, here) in reached.iter_mut().enumerate() {
                let steps = *here & goes_on.map_or(0, |goes_on| goes_on[word]);
                *here = *here & stays[word] | steps << 1 | carry;
                carry = steps >> 63;
            }
            if reached.iter().all(|here| *here == 0) {
                return;
            }
            self.pass_wildcards(&mut reached);
        }
        levels[level] |= self.is_at_end(&reached);
    }

    fn is_at_end(&self, reached: &[u64]) -> bool {
        reached[self.length / 64] >> (self.length % 64) & 1 == 1
    }

    /// A wildcard may stand for nothing.
    fn pass_wildcards(&self, reached: &mut [u64]) {
        let mut carry = 0;
        for (here, wild) in reached.iter_mut().zip(&self.wild) {
            let steps = *here & wild;
            *here |= steps << 1 | carry;
            carry = steps >> 63;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (name, wire) in [
            ("INBOX", "INBOX"),
            ("A&B", "A&-B"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("日本語", "&ZeVnLIqe-"),
            ("😀", "&2D3eAA-"),
        ] {
            assert_eq!(modified(name), wire);
            assert_eq!(decode(wire.as_bytes(), Spelling::Modified).as_deref(), Some(name));
        }
        for wire in ["&", "&AP", "&!!-", "&AA-"] {
            assert_eq!(decode(wire.as_bytes(), Spelling::Modified), None, "{wire}");
        }
        assert_eq!(decode("&AP/ü".as_bytes(), Spelling::Utf8).as_deref(), Some("&AP/ü"));
        assert_eq!(decode(b"\xff", Spelling::Utf8), None);
        let mut written = BytesMut::new();
        write(&mut written, "a\"ü", Spelling::Utf8);
        assert_eq!(&written[..], "\"a\\\"ü\"".as_bytes());
        assert_eq!(decode(b"inbox", Spelling::Modified).as_deref(), Some("INBOX"));
        assert_eq!(decode(b"inbox/x", Spelling::Utf8).as_deref(), Some("INBOX/x"));
        assert_eq!(decode(b"inboxes", Spelling::Modified).as_deref(), Some("inboxes"));
    }

    #[test]
    fn good_names() {
        for (name, want) in [
            ("INBOX", true),
            ("a/b", true),
            ("Entwürfe", true),
            ("", false),
            ("/a", false),
            ("a//b", false),
            ("a/", false),
            ("a%", false),
            ("a*b", false),
            ("a\nb", false),
            ("a\u{85}", false),
            ("../a", false),
        ] {
            assert_eq!(is_mailbox_name(name), want, "{name:?}");
        }
        assert!(is_mailbox_name(&"x".repeat(LONGEST)) && !is_mailbox_name(&"x".repeat(LONGEST + 1)));
        assert!(is_mailbox_name(&["x"; LEVELS].join("/")) && !is_mailbox_name(&["x"; LEVELS + 1].join("/")));
    }

    fn matches(pattern: &str, name: &str) -> bool {
        let mut levels = Vec::new();
        Pattern::new(pattern).unwrap().mark(name, &mut levels);
        levels.pop().unwrap()
    }

    #[test]
    fn what_is_above_a_name_is_marked_with_it() {
        for (pattern, want) in [
            ("*", [true, true, true]),
            ("%", [true, false, false]),
            ("*b", [false, true, false]),
            ("a/%", [false, true, false]),
            ("x", [false, false, false]),
        ] {
            let mut levels = Vec::new();
            Pattern::new(pattern).unwrap().mark("a/b/cd", &mut levels);
            assert_eq!(levels, want, "{pattern}");
        }
        let mut levels = Vec::new();
        for pattern in ["a", "a/b/cd"] {
            Pattern::new(pattern).unwrap().mark("a/b/cd", &mut levels);
        }
        assert_eq!(levels, [true, false, true]);
    }

    #[test]
    fn wildcards() {
        for (pattern, name, want) in [
            ("*", "a/b", true),
            ("%", "a/b", false),
            ("%", "a", true),
            ("a/%", "a/b", true),
            ("a/%", "a/b/c", false),
            ("*c", "a/b/c", true),
            ("INBOX", "INBOX", true),
            ("IN", "INBOX", false),
            ("", "", true),
            ("%%", "a/b", false),
            ("a%*", "a/b", true),
            ("%/%b", "a/ab", true),
            ("%/%b", "a/a/b", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
        let many = "*a".repeat(200);
        assert!(!matches(&many, &"a".repeat(199)) && matches(&many, &"a".repeat(200)));
        assert!(matches(&many, &"ba".repeat(250)));
        assert!(matches(&"%*".repeat(30_000), "a/b"));
        assert!(Pattern::new(&"a".repeat(2 * LONGEST + 2)).is_none());
    }
}
