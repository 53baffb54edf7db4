//! SEARCH (RFC 3501 section 6.4.4): whether a message meets the criteria.

use imap_types::search::SearchKey;
use imap_types::sequence::{SeqOrUid, Sequence, SequenceSet};

use super::mime::{field, parse};
use super::question::{MessageRow, flags};

/// Criteria within criteria are followed so deep.
const DEPTH: usize = 50;
/// Milliseconds in a day.
const DAY: i64 = 86_400_000;

/// A message as the criteria see it.
pub(super) struct Candidate<'a> {
    pub(super) row: &'a MessageRow,
    /// Its sequence number.
    pub(super) number: u32,
    /// Its text, if the criteria need it.
    pub(super) text: Option<&'a [u8]>,
    /// The highest sequence number and the highest UID: what `*` stands for.
    pub(super) last: (u32, u32),
}

/// Whether the criteria ask for what only the text tells.
pub(super) fn needs_text(key: &SearchKey<'_>) -> bool {
    match key {
        SearchKey::And(keys) => keys.as_ref().iter().any(needs_text),
        SearchKey::Or(one, other) => needs_text(one) || needs_text(other),
        SearchKey::Not(key) => needs_text(key),
        SearchKey::Bcc(_)
        | SearchKey::Body(_)
        | SearchKey::Cc(_)
        | SearchKey::From(_)
        | SearchKey::Header(..)
        | SearchKey::Subject(_)
        | SearchKey::Text(_)
        | SearchKey::To(_) => true,
        _ => false,
    }
}

/// Whether the criteria hold; none when one of them is not supported.
pub(super) fn meets(key: &SearchKey<'_>, candidate: &Candidate<'_>) -> Option<bool> {
    holds(key, candidate, DEPTH)
}

fn holds(key: &SearchKey<'_>, candidate: &Candidate<'_>, depth: usize) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    let row = candidate.row;
    let flag = |bit: i64| row.flags & bit != 0;
    let keyword = |word: &str| row.keywords.split(' ').any(|found| found.eq_ignore_ascii_case(word));
    Some(match key {
        SearchKey::All | SearchKey::Old => true,
        SearchKey::And(keys) => {
            for key in keys.as_ref() {
                if !holds(key, candidate, depth)? {
                    return Some(false);
                }
            }
            true
        }
        SearchKey::Or(one, other) => holds(one, candidate, depth)? || holds(other, candidate, depth)?,
        SearchKey::Not(key) => !holds(key, candidate, depth)?,
        SearchKey::SequenceSet(set) => contains(set, candidate.number, candidate.last.0),
        SearchKey::Uid(set) => contains(set, row.uid, candidate.last.1),
        SearchKey::Answered => flag(flags::ANSWERED),
        SearchKey::Unanswered => !flag(flags::ANSWERED),
        SearchKey::Deleted => flag(flags::DELETED),
        SearchKey::Undeleted => !flag(flags::DELETED),
        SearchKey::Draft => flag(flags::DRAFT),
        SearchKey::Undraft => !flag(flags::DRAFT),
        SearchKey::Flagged => flag(flags::FLAGGED),
        SearchKey::Unflagged => !flag(flags::FLAGGED),
        SearchKey::Seen => flag(flags::SEEN),
        SearchKey::Unseen => !flag(flags::SEEN),
        // No session is told of \Recent: none is.
        SearchKey::New | SearchKey::Recent => false,
        SearchKey::Keyword(word) => keyword(word.as_ref()),
        SearchKey::Unkeyword(word) => !keyword(word.as_ref()),
        SearchKey::Larger(size) => row.size > u64::from(*size),
        SearchKey::Smaller(size) => row.size < u64::from(*size),
        SearchKey::Before(date) => day(row.received) < days(date.as_ref()),
        SearchKey::On(date) => day(row.received) == days(date.as_ref()),
        SearchKey::Since(date) => day(row.received) >= days(date.as_ref()),
        other => return in_text(other, candidate.text?),
    })
}

fn in_text(key: &SearchKey<'_>, text: &[u8]) -> Option<bool> {
    let root = parse(text);
    let header = &text[root.header.clone()];
    let in_field = |name: &str, wanted: &[u8]| field(header, name).is_some_and(|value| has(&value, wanted));
    Some(match key {
        SearchKey::Bcc(wanted) => in_field("bcc", wanted.as_ref()),
        SearchKey::Cc(wanted) => in_field("cc", wanted.as_ref()),
        SearchKey::From(wanted) => in_field("from", wanted.as_ref()),
        SearchKey::To(wanted) => in_field("to", wanted.as_ref()),
        SearchKey::Subject(wanted) => in_field("subject", wanted.as_ref()),
        SearchKey::Header(name, wanted) => in_field(&String::from_utf8_lossy(name.as_ref()), wanted.as_ref()),
        SearchKey::Body(wanted) => has(&text[root.body.clone()], wanted.as_ref()),
        SearchKey::Text(wanted) => has(text, wanted.as_ref()),
        _ => return None,
    })
}

/// Whether a text holds another, whatever the case of ASCII letters.
fn has(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
}

fn day(millis: i64) -> i64 {
    millis.div_euclid(DAY)
}

fn days(date: &chrono::NaiveDate) -> i64 {
    i64::from(chrono::Datelike::num_days_from_ce(date)) - 719_163
}

/// Whether a number lies in a set, where `*` is the last; nothing is expanded.
pub(super) fn contains(set: &SequenceSet, number: u32, last: u32) -> bool {
    let value = |end: &SeqOrUid| match end {
        SeqOrUid::Value(value) => value.get(),
        SeqOrUid::Asterisk => last,
    };
    set.0.as_ref().iter().any(|sequence| match sequence {
        Sequence::Single(single) => value(single) == number,
        Sequence::Range(one, other) => {
            let (one, other) = (value(one), value(other));
            (one.min(other)..=one.max(other)).contains(&number)
        }
    })
}
