//! What imap-codec does not know of searching: `RETURN (...)` (RFC 4731, RFC 5267), and `$` for the messages that were
//! saved (RFC 5182), which may stand wherever a set of messages stands.
//!
//! Both are taken out of a command before the codec reads it: RETURN is given beside it, and in place of `$` stand the
//! numbers. Where `$` is a text, a keyword or a name, it is left alone. What cannot be understood here stays as it is:
//! the codec will not understand it either.

use std::ops::Range;

use crate::imap::session::UidForm;

/// Bytes that may stand in the place of all `$` of a command, where there are several: what a search has saved may be
/// the whole of a mailbox, and a command of 64 KiB may name it thousands of times.
const MOST: usize = 1024 * 1024;

/// What is to be told of the messages that were found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::imap) struct Returns {
    pub(in crate::imap) min: bool,
    pub(in crate::imap) max: bool,
    pub(in crate::imap) all: bool,
    pub(in crate::imap) count: bool,
    /// They are remembered as `$`.
    pub(in crate::imap) save: bool,
}

/// A command that the codec can read, and what it was rid of.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::imap) struct Plain {
    pub(in crate::imap) command: Vec<u8>,
    pub(in crate::imap) returns: Option<Returns>,
}

/// Rids a command of what the codec does not know; none if there is nothing of that. `saved` says which numbers `$`
/// stands for, as a set.
pub(in crate::imap) fn rid(message: &[u8], saved: impl Fn(UidForm) -> String) -> Option<Plain> {
    let is_extended = |word: &[u8]| word == b"$" || word.eq_ignore_ascii_case(b"return");
    let words = words(message);
    if !words.iter().any(|word| is_extended(&message[word.clone()])) {
        return None;
    }
    let upper = |at: usize| message.get(words.get(at)?.clone()).map(<[u8]>::to_ascii_uppercase);
    let (form, name) = match upper(1)?.as_slice() {
        b"UID" => (UidForm::Uid, 2),
        _ => (UidForm::Number, 1),
    };
    let mut cuts: Vec<(Range<usize>, String)> = Vec::new();
    let mut returns = None;
    match upper(name)?.as_slice() {
        b"FETCH" | b"STORE" | b"COPY" | b"MOVE" | b"EXPUNGE" if upper(name + 1)? == b"$" => {
            cuts.push((words[name + 1].clone(), saved(form)));
        }
        command @ (b"SEARCH" | b"SORT" | b"THREAD") => {
            let mut at = name + 1;
            if command != b"THREAD" && upper(at)? == b"RETURN" {
                let (read, end) = read_returns(&upper, at + 1)?;
                cuts.push((words[at].start..words.get(end)?.start, String::new()));
                (returns, at) = (Some(read), end);
            }
            let keys = saved_keys(&upper, at, &words);
            if !keys.is_empty() {
                let saved = saved(UidForm::Uid);
                if keys.len() > 1 && keys.len().saturating_mul(saved.len()) > MOST {
                    return None;
                }
                cuts.extend(keys.into_iter().map(|(range, before)| (range, format!("{before}{saved}"))));
            }
        }
        _ => {}
    }
    if cuts.is_empty() {
        return None;
    }
    let (mut command, mut done) = (Vec::with_capacity(message.len()), 0);
    for (range, instead) in cuts {
        command.extend_from_slice(&message[done..range.start]);
        command.extend_from_slice(instead.as_bytes());
        done = range.end;
    }
    command.extend_from_slice(&message[done..]);
    Some(Plain { command, returns })
}

/// The options in brackets, and the word behind them.
fn read_returns(upper: &impl Fn(usize) -> Option<Vec<u8>>, at: usize) -> Option<(Returns, usize)> {
    if upper(at)? != b"(" {
        return None;
    }
    let mut returns = Returns::default();
    for at in at + 1.. {
        match upper(at)?.as_slice() {
            b"MIN" => returns.min = true,
            b"MAX" => returns.max = true,
            b"ALL" => returns.all = true,
            b"COUNT" => returns.count = true,
            b"SAVE" => returns.save = true,
            b")" => {
                // RFC 4731 section 3.1: an empty list asks for all of them.
                returns.all |= returns == Returns::default();
                return Some((returns, at + 1));
            }
            _ => return None,
        }
    }
    None
}

/// Every `$` that is a search key or the set of the key UID, and what has to stand before the UIDs there.
fn saved_keys(
    upper: &impl Fn(usize) -> Option<Vec<u8>>,
    begin: usize,
    words: &[Range<usize>],
) -> Vec<(Range<usize>, &'static str)> {
    let (mut found, mut skip) = (Vec::new(), 0_u32);
    let mut after_uid = false;
    for (at, word) in words.iter().enumerate().skip(begin) {
        let is_key = skip == 0;
        skip = skip.saturating_sub(1);
        if !is_key {
            continue;
        }
        let key = upper(at).unwrap_or_default();
        match key.as_slice() {
            b"$" => found.push((word.clone(), if after_uid { "" } else { "UID " })),
            b"BCC" | b"BODY" | b"CC" | b"FROM" | b"SUBJECT" | b"TEXT" | b"TO" | b"KEYWORD" | b"UNKEYWORD"
            | b"CHARSET" => skip = 1,
            b"HEADER" => skip = 2,
            _ => {}
        }
        after_uid = key == b"UID";
    }
    found
}

/// The words of a command: atoms, quoted strings, literals with their announcement, and brackets each by itself.
pub(super) fn words(message: &[u8]) -> Vec<Range<usize>> {
    let (mut words, mut at) = (Vec::new(), 0);
    while let Some(byte) = message.get(at) {
        let end = match byte {
            b' ' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'(' | b')' => at + 1,
            b'"' => quoted_end(message, at),
            b'{' => literal_end(message, at),
            _ => message[at..]
                .iter()
                .position(|byte| b" ()\r\n".contains(byte))
                .map_or(message.len(), |length| at + length),
        };
        words.push(at..end);
        at = end;
    }
    words
}

fn quoted_end(message: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(byte) = message.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    message.len()
}

fn literal_end(message: &[u8], begin: usize) -> usize {
    let rest = &message[begin..];
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len() - 1);
    let digits: String =
        rest[1..end.max(1)].iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
    let length = digits.parse().unwrap_or(0_usize);
    (begin + end + 1).saturating_add(length).min(message.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn rid_of(message: &str) -> Option<(String, Option<Returns>)> {
        let saved = |form| if form == UidForm::Uid { "5,9" } else { "1:2" }.to_owned();
        let plain = rid(message.as_bytes(), saved)?;
        Some((String::from_utf8(plain.command).unwrap(), plain.returns))
    }

    #[test]
    fn what_is_returned() {
        let none = Returns::default();
        let all = Returns { all: true, ..none };
        for (message, command, returns) in [
            ("a SEARCH RETURN () ALL\r\n", "a SEARCH ALL\r\n", all),
            (
                "a uid search return (min Max count) 1\r\n",
                "a uid search 1\r\n",
                Returns { min: true, max: true, count: true, ..none },
            ),
            (
                "a SEARCH RETURN (SAVE) CHARSET UTF-8 TEXT x\r\n",
                "a SEARCH CHARSET UTF-8 TEXT x\r\n",
                Returns { save: true, ..none },
            ),
            ("a SORT RETURN (ALL) (DATE) UTF-8 ALL\r\n", "a SORT (DATE) UTF-8 ALL\r\n", all),
        ] {
            assert_eq!(rid_of(message), Some((command.to_owned(), Some(returns))), "{message}");
        }
    }

    #[test]
    fn what_was_saved() {
        for (message, command) in [
            ("a FETCH $ FLAGS\r\n", "a FETCH 1:2 FLAGS\r\n"),
            ("a UID STORE $ +FLAGS ($)\r\n", "a UID STORE 5,9 +FLAGS ($)\r\n"),
            ("a UID COPY $ $\r\n", "a UID COPY 5,9 $\r\n"),
            ("a SEARCH $ SUBJECT $\r\n", "a SEARCH UID 5,9 SUBJECT $\r\n"),
            ("a SEARCH (UID $) NOT ($ UNSEEN)\r\n", "a SEARCH (UID 5,9) NOT (UID 5,9 UNSEEN)\r\n"),
            ("a SEARCH HEADER $ $ KEYWORD $ $\r\n", "a SEARCH HEADER $ $ KEYWORD $ UID 5,9\r\n"),
            ("a SEARCH TEXT {3+}\r\n $  $\r\n", "a SEARCH TEXT {3+}\r\n $  UID 5,9\r\n"),
            ("a SEARCH TEXT \"\\\" $ \" $\r\n", "a SEARCH TEXT \"\\\" $ \" UID 5,9\r\n"),
            ("a THREAD REFERENCES UTF-8 $\r\n", "a THREAD REFERENCES UTF-8 UID 5,9\r\n"),
        ] {
            assert_eq!(rid_of(message), Some((command.to_owned(), None)), "{message}");
        }
    }

    #[test]
    fn what_was_saved_is_not_repeated_without_bound() {
        let length = |keys: usize, saved: usize| {
            let message = format!("a SEARCH{}\r\n", " $".repeat(keys));
            rid(message.as_bytes(), |_| "7".repeat(saved)).map(|plain| plain.command.len())
        };
        assert!(length(1, 10 * MOST).is_some() && length(1000, 1000).is_some());
        assert_eq!(length(30_000, 700_000), None);
    }

    #[test]
    fn what_is_left_alone() {
        for message in [
            "a SEARCH SUBJECT return\r\n",
            "a SEARCH SUBJECT $\r\n",
            "a SEARCH RETURN (SOME) ALL\r\n",
            "a SEARCH RETURN (ALL",
            "a LOGIN $ return\r\n",
            "a SELECT $\r\n",
            "$",
            "",
        ] {
            assert_eq!(rid_of(message), None, "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in "(a |UID |SEARCH |RETURN |\\(|\\)|MIN|\\$| |\"|\\{[0-9]{1,20}\\}\r\n\
    |\\\\|\u{e4}){0,20}") {
            rid_of(&message);
        }
    }
}
