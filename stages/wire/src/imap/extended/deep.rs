//! SEARCH, SORT and THREAD whose criteria stand within each other deeper than imap-codec reads them: where a client
//! lets its user say "any of these", ten terms are ten ORs within each other.
//!
//! The codec reads every criterion by itself, and what comes before them. Here they are only put together.

use std::ops::Range;

use imap_codec::CommandCodec;
use imap_codec::decode::Decoder as _;
use imap_types::IntoStatic as _;
use imap_types::command::{Command, CommandBody};
use imap_types::core::Vec1;
use imap_types::search::SearchKey;

use super::search::words;
use crate::imap::search::DEPTH;

/// The command, if it is one of these. Criteria that are too deep are cut off where they are: nobody follows them so
/// far.
pub(in crate::imap) fn read(message: &[u8]) -> Option<Command<'static>> {
    let words = words(message);
    let name = 1 + usize::from(word(message, &words, 1)?.eq_ignore_ascii_case(b"UID"));
    let begin = match word(message, &words, name)?.to_ascii_uppercase().as_slice() {
        b"SEARCH" if word(message, &words, name + 1)?.eq_ignore_ascii_case(b"CHARSET") => name + 3,
        b"SEARCH" => name + 1,
        // An order in brackets, and a charset.
        b"SORT" => (name + 1..).find(|at| word(message, &words, *at).is_none_or(|word| word == b")"))? + 2,
        b"THREAD" => name + 3,
        _ => return None,
    };
    let mut command = message[..words.get(begin)?.start].to_vec();
    command.extend_from_slice(b"ALL\r\n");
    let mut command = decode(&command)?;
    let mut keys = Keys { message, words: &words[begin..], is_cut: false };
    let read = keys.read_all(0)?;
    if !keys.words.is_empty() && !keys.is_cut {
        return None;
    }
    match &mut command.body {
        CommandBody::Search { criteria, .. }
        | CommandBody::Sort { search_criteria: criteria, .. }
        | CommandBody::Thread { search_criteria: criteria, .. } => *criteria = read,
        _ => return None,
    }
    Some(command)
}

fn decode(command: &[u8]) -> Option<Command<'static>> {
    let (rest, command) = CommandCodec::default().decode(command).ok()?;
    rest.is_empty().then(|| command.into_static())
}

fn word<'a>(message: &'a [u8], words: &[Range<usize>], at: usize) -> Option<&'a [u8]> {
    message.get(words.get(at)?.clone())
}

/// Criteria that are still to be read.
struct Keys<'a> {
    message: &'a [u8],
    words: &'a [Range<usize>],
    /// Some were too deep: what comes behind them is not read any more.
    is_cut: bool,
}

impl Keys<'_> {
    /// At least one, up to a bracket or the end.
    fn read_all(&mut self, depth: usize) -> Option<Vec1<SearchKey<'static>>> {
        let mut read = Vec::new();
        while !self.is_cut && word(self.message, self.words, 0).is_some_and(|word| word != b")") {
            read.push(self.read(depth)?);
        }
        Vec1::try_from(read).ok()
    }

    fn read(&mut self, depth: usize) -> Option<SearchKey<'static>> {
        if depth > DEPTH || self.is_cut {
            self.is_cut = true;
            return Some(SearchKey::All);
        }
        let first = word(self.message, self.words, 0)?.to_ascii_uppercase();
        let more = match first.as_slice() {
            b"(" => {
                self.pass(1)?;
                let keys = self.read_all(depth + 1)?;
                if !self.is_cut {
                    (word(self.message, self.words, 0)? == b")").then_some(())?;
                    self.pass(1)?;
                }
                return Some(SearchKey::And(keys));
            }
            b"NOT" => {
                self.pass(1)?;
                return Some(SearchKey::Not(Box::new(self.read(depth + 1)?)));
            }
            b"OR" => {
                self.pass(1)?;
                let one = self.read(depth + 1)?;
                return Some(SearchKey::Or(Box::new(one), Box::new(self.read(depth + 1)?)));
            }
            b"BCC" | b"BEFORE" | b"BODY" | b"CC" | b"FROM" | b"KEYWORD" | b"LARGER" | b"OLDER" | b"ON"
            | b"SENTBEFORE" | b"SENTON" | b"SENTSINCE" | b"SINCE" | b"SMALLER" | b"SUBJECT" | b"TEXT" | b"TO"
            | b"UID" | b"UNKEYWORD" | b"YOUNGER" => 1,
            b"HEADER" => 2,
            // RFC 7162 section 3.1.5: the name of an entry and its kind may come before the number.
            b"MODSEQ" if word(self.message, self.words, 1)?.starts_with(b"\"") => 3,
            b"MODSEQ" => 1,
            _ => 0,
        };
        let bytes = self.words.first()?.start..self.words.get(more)?.end;
        self.pass(1 + more)?;
        let command = [b"x SEARCH ", &self.message[bytes], b"\r\n"].concat();
        match decode(&command)?.body {
            CommandBody::Search { charset: None, criteria, .. } if criteria.as_ref().len() == 1 => {
                criteria.into_inner().pop()
            }
            _ => None,
        }
    }

    fn pass(&mut self, count: usize) -> Option<()> {
        self.words = self.words.get(count..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Whatever the codec reads is read as it reads it.
    #[test]
    fn it_reads_as_the_codec_does() {
        for command in [
            "a SEARCH ALL",
            "a UID SEARCH CHARSET UTF-8 OR (FROM x SUBJECT {3+}\r\na)b) NOT 1:3,* UNSEEN",
            "a SEARCH HEADER \"X (\" \"y ) z\" UID 1:* (OR SEEN (NOT DELETED)) MODSEQ 7",
            "a SEARCH MODSEQ \"/flags/\\\\draft\" all 620162338",
            "a SORT (REVERSE DATE SUBJECT) UTF-8 OR KEYWORD a SINCE 1-Feb-1994",
            "a UID THREAD REFERENCES UTF-8 LARGER 5 NOT NOT SEEN",
        ] {
            let command = format!("{command}\r\n");
            assert_eq!(read(command.as_bytes()), Some(decode(command.as_bytes()).unwrap()), "{command}");
        }
        for command in [
            "a SEARCH",
            "a SEARCH (SEEN",
            "a SEARCH SEEN)",
            "a SEARCH OR SEEN",
            "a SEARCH XYZ",
            "a NOOP",
            "a SORT (DATE)",
            "",
        ] {
            assert_eq!(read(format!("{command}\r\n").as_bytes()), None, "{command}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in "(a |UID |SEARCH |SORT |THREAD |\\(|\\)|OR |NOT |HEADER |MODSEQ |SEEN \
    |\"|\\{[0-9]{1,20}\\}\r\n|\\\\|\u{e4}){0,20}") {
            read(message.as_bytes());
        }
    }
}
