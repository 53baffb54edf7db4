//! Quoted strings in UTF-8 (RFC 6855 section 3, RFC 9051 section 4.3), which imap-codec does not know: a literal is put
//! in the place of each, which may have any byte. What is no UTF-8 stays as it is, and the codec refuses it.

use super::reader::Reader;
use super::search::words;

/// The command with literals in the place of such strings; none if there are none.
pub(in crate::imap) fn rid(message: &[u8]) -> Option<Vec<u8>> {
    let (mut command, mut done) = (Vec::new(), 0);
    for range in words(message) {
        let word = &message[range.clone()];
        if word.first() != Some(&b'"') || word.is_ascii() || str::from_utf8(word).is_err() {
            continue;
        }
        let Some(value) = Reader(word).string(|_| false) else { continue };
        command.extend_from_slice(&message[done..range.start]);
        command.extend_from_slice(format!("{{{}+}}\r\n", value.len()).as_bytes());
        command.extend_from_slice(&value);
        done = range.end;
    }
    if done == 0 {
        return None;
    }
    command.extend_from_slice(&message[done..]);
    Some(command)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quoted_strings() {
        for (message, want) in [
            ("a SELECT \"ü\"\r\n", Some("a SELECT {2+}\r\nü\r\n")),
            ("a RENAME \"a\" \"\\\"ü\\\\\"\r\n", Some("a RENAME \"a\" {4+}\r\n\"ü\\\r\n")),
            ("a SEARCH (TO \"ä\" CC \"ö\")\r\n", Some("a SEARCH (TO {2+}\r\nä CC {2+}\r\nö)\r\n")),
            ("a SEARCH TEXT {4+}\r\n\"ü\" TO x\r\n", None),
            ("a SELECT \"u\"\r\n", None),
            ("a SELECT ü\r\n", None),
            ("a SELECT \"ü\r\n", None),
            ("a SELECT \"ü\\", None),
        ] {
            assert_eq!(
                rid(message.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap()).as_deref(),
                want,
                "{message}"
            );
        }
        assert_eq!(rid(b"a SELECT \"\xff\"\r\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message: Vec<u8>, said in "(a |\"|\\\\|ü|\\{[0-9]{1,20}\\+?\\}\r\n|\\(| ){0,20}") {
            let _ = (rid(&message), rid(said.as_bytes()));
        }
    }
}
