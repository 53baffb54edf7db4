//! Mailbox names: UTF-8 inside, modified UTF-7 on the wire (RFC 3501 section 5.1.3), and the wildcards of LIST.

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::NO_PAD;

const BASE64: GeneralPurpose = GeneralPurpose::new(&IMAP_MUTF7, NO_PAD);

/// Bytes of a mailbox's name: enough for 32 levels with a word each, and each name lies in memory with every LIST.
const LONGEST: usize = 512;
/// Levels of a name.
const LEVELS: usize = 32;

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

/// The name as it goes over the wire.
pub(super) fn encode(name: &str) -> String {
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

/// The name that was meant; none if it is not modified UTF-7.
pub(super) fn decode(wire: &[u8]) -> Option<String> {
    let mut rest = std::str::from_utf8(wire).ok()?;
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

/// Whether a name matches the pattern of LIST: `*` is anything, `%` anything within one level.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    // Which positions of the pattern are reached after so much of the name: no backtracking, whatever the pattern.
    let mut reached = vec![false; pattern.len() + 1];
    let close = |reached: &mut Vec<bool>| {
        for at in 0..pattern.len() {
            if reached[at] && matches!(pattern[at], '*' | '%') {
                reached[at + 1] = true;
            }
        }
    };
    reached[0] = true;
    close(&mut reached);
    for c in name.chars() {
        let mut next = vec![false; pattern.len() + 1];
        for at in (0..pattern.len()).filter(|at| reached[*at]) {
            match pattern[at] {
                '*' => next[at] = true,
                '%' if c != '/' => next[at] = true,
                '%' => {}
                wanted if wanted == c => next[at + 1] = true,
                _ => {}
            }
        }
        close(&mut next);
        reached = next;
    }
    reached[pattern.len()]
}

#[cfg(test)]
mod tests {
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
            assert_eq!(encode(name), wire);
            assert_eq!(decode(wire.as_bytes()).as_deref(), Some(name));
        }
        for wire in ["&", "&AP", "&!!-", "&AA-"] {
            assert_eq!(decode(wire.as_bytes()), None, "{wire}");
        }
        assert_eq!(decode(b"inbox").as_deref(), Some("INBOX"));
        assert_eq!(decode(b"inbox/x").as_deref(), Some("INBOX/x"));
        assert_eq!(decode(b"inboxes").as_deref(), Some("inboxes"));
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
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(200), &"a".repeat(150)));
    }
}
