//! SEARCH (RFC 3501 section 6.4.4): criteria are read once; then each message is asked whether it meets them.

use chrono::{Datelike as _, NaiveDate};
use imap_types::core::{AString, Charset};
use imap_types::search::SearchKey;
use memchr::memmem::Finder;

use super::question::{MessageRow, flags};
use super::readable::Readable;
use super::set::Set;

/// Criteria within criteria are followed so deep.
const DEPTH: usize = 50;
/// Milliseconds in a day.
const DAY: i64 = 86_400_000;

/// Why a search is not made: what stands behind NO.
pub(super) type Refusal = &'static str;

/// What a message has to meet.
#[derive(Debug)]
pub(super) enum Criteria {
    Always,
    Never,
    All(Vec<Self>),
    Either(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Number(Set),
    Uid(Set),
    Flag(i64),
    Keyword(String),
    Larger(u64),
    Smaller(u64),
    /// Days since 1970: from, and up to but not including.
    Received(i64, i64),
    /// The same for the `Date` field.
    Sent(i64, i64),
    /// A field of this name that holds this text.
    Field(String, Needle),
    Body(Needle),
    Text(Needle),
}

/// A text that is looked for, in lower case.
#[derive(Debug)]
pub(super) struct Needle(Finder<'static>);

impl Needle {
    fn is_in(&self, text: &str) -> bool {
        self.0.find(text.as_bytes()).is_some()
    }
}

/// A message as the criteria see it.
pub(super) struct Candidate<'a> {
    pub(super) row: &'a MessageRow,
    /// Its sequence number.
    pub(super) number: u32,
    /// Its text, if the criteria need it.
    pub(super) text: Option<Readable<'a>>,
}

/// Whether the texts of the criteria can be read: all of them are taken as UTF-8, which US-ASCII is part of.
pub(super) fn knows(charset: &Charset<'_>) -> bool {
    let name = charset.as_ref();
    ["utf-8", "us-ascii"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Reads criteria.
pub(super) struct Reading {
    /// The highest sequence number and the highest UID: what `*` stands for.
    pub(super) last: (u32, u32),
    /// So many criteria may still ask for texts.
    pub(super) texts: usize,
}

impl Reading {
    /// What a client asks for, or why it is not looked for.
    pub(super) fn read(&mut self, key: &SearchKey<'_>) -> Result<Criteria, Refusal> {
        self.read_within(key, DEPTH)
    }

    fn read_within(&mut self, key: &SearchKey<'_>, depth: usize) -> Result<Criteria, Refusal> {
        let depth = depth.checked_sub(1).ok_or("[LIMIT] the criteria are nested too deep")?;
        let not = |criteria| Criteria::Not(Box::new(criteria));
        Ok(match key {
            SearchKey::And(keys) => {
                Criteria::All(keys.as_ref().iter().map(|key| self.read_within(key, depth)).collect::<Result<_, _>>()?)
            }
            SearchKey::Or(one, other) => {
                let one = self.read_within(one, depth)?;
                Criteria::Either(Box::new(one), Box::new(self.read_within(other, depth)?))
            }
            SearchKey::Not(key) => not(self.read_within(key, depth)?),
            SearchKey::SequenceSet(set) => Criteria::Number(Set::new(set, self.last.0)),
            SearchKey::Uid(set) => Criteria::Uid(Set::new(set, self.last.1)),
            SearchKey::All | SearchKey::Old => Criteria::Always,
            // No session is told of \Recent: none is.
            SearchKey::New | SearchKey::Recent => Criteria::Never,
            SearchKey::Answered => Criteria::Flag(flags::ANSWERED),
            SearchKey::Unanswered => not(Criteria::Flag(flags::ANSWERED)),
            SearchKey::Deleted => Criteria::Flag(flags::DELETED),
            SearchKey::Undeleted => not(Criteria::Flag(flags::DELETED)),
            SearchKey::Draft => Criteria::Flag(flags::DRAFT),
            SearchKey::Undraft => not(Criteria::Flag(flags::DRAFT)),
            SearchKey::Flagged => Criteria::Flag(flags::FLAGGED),
            SearchKey::Unflagged => not(Criteria::Flag(flags::FLAGGED)),
            SearchKey::Seen => Criteria::Flag(flags::SEEN),
            SearchKey::Unseen => not(Criteria::Flag(flags::SEEN)),
            SearchKey::Keyword(word) => Criteria::Keyword(word.as_ref().to_owned()),
            SearchKey::Unkeyword(word) => not(Criteria::Keyword(word.as_ref().to_owned())),
            SearchKey::Larger(size) => Criteria::Larger(u64::from(*size)),
            SearchKey::Smaller(size) => Criteria::Smaller(u64::from(*size)),
            other => return self.read_date(other).map_or_else(|| self.read_text(other), Ok),
        })
    }

    fn read_date(&self, key: &SearchKey<'_>) -> Option<Criteria> {
        Some(match key {
            SearchKey::Before(date) => Criteria::Received(i64::MIN, days(date.as_ref())),
            SearchKey::On(date) => Criteria::Received(days(date.as_ref()), days(date.as_ref()) + 1),
            SearchKey::Since(date) => Criteria::Received(days(date.as_ref()), i64::MAX),
            SearchKey::SentBefore(date) => Criteria::Sent(i64::MIN, days(date.as_ref())),
            SearchKey::SentOn(date) => Criteria::Sent(days(date.as_ref()), days(date.as_ref()) + 1),
            SearchKey::SentSince(date) => Criteria::Sent(days(date.as_ref()), i64::MAX),
            _ => return None,
        })
    }

    fn read_text(&mut self, key: &SearchKey<'_>) -> Result<Criteria, Refusal> {
        self.texts = self.texts.checked_sub(1).ok_or("[LIMIT] too many criteria that ask for texts")?;
        let field = |name: &str, wanted| Criteria::Field(name.to_owned(), needle(wanted));
        Ok(match key {
            SearchKey::Bcc(wanted) => field("bcc", wanted),
            SearchKey::Cc(wanted) => field("cc", wanted),
            SearchKey::From(wanted) => field("from", wanted),
            SearchKey::To(wanted) => field("to", wanted),
            SearchKey::Subject(wanted) => field("subject", wanted),
            SearchKey::Header(name, wanted) => {
                field(&String::from_utf8_lossy(name.as_ref()).to_ascii_lowercase(), wanted)
            }
            SearchKey::Body(wanted) => Criteria::Body(needle(wanted)),
            SearchKey::Text(wanted) => Criteria::Text(needle(wanted)),
            _ => return Err("[CANNOT] a criterion is not supported"),
        })
    }
}

fn needle(wanted: &AString<'_>) -> Needle {
    let lower = String::from_utf8_lossy(wanted.as_ref()).to_lowercase();
    Needle(Finder::new(lower.as_bytes()).into_owned())
}

impl Criteria {
    /// Whether only the text of a message tells.
    pub(super) fn needs_text(&self) -> bool {
        match self {
            Self::All(all) => all.iter().any(Self::needs_text),
            Self::Either(one, other) => one.needs_text() || other.needs_text(),
            Self::Not(criteria) => criteria.needs_text(),
            Self::Sent(..) | Self::Field(..) | Self::Body(_) | Self::Text(_) => true,
            _ => false,
        }
    }

    /// Whether a message meets them.
    pub(super) fn hold(&self, candidate: &Candidate<'_>) -> bool {
        let row = candidate.row;
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::All(all) => all.iter().all(|criteria| criteria.hold(candidate)),
            Self::Either(one, other) => one.hold(candidate) || other.hold(candidate),
            Self::Not(criteria) => !criteria.hold(candidate),
            Self::Number(set) => set.contains(candidate.number),
            Self::Uid(set) => set.contains(row.uid),
            Self::Flag(bit) => row.flags & bit != 0,
            Self::Keyword(word) => row.keywords.split(' ').any(|found| found.eq_ignore_ascii_case(word)),
            Self::Larger(size) => row.size > *size,
            Self::Smaller(size) => row.size < *size,
            Self::Received(from, to) => (*from..*to).contains(&row.received.div_euclid(DAY)),
            _ => candidate.text.as_ref().is_some_and(|text| self.hold_in(text)),
        }
    }

    fn hold_in(&self, text: &Readable<'_>) -> bool {
        match self {
            Self::Sent(from, to) => text.date().and_then(day).is_some_and(|day| (*from..*to).contains(&day)),
            Self::Field(name, wanted) => {
                text.header().iter().any(|(found, value)| found == name && wanted.is_in(value))
            }
            Self::Body(wanted) => wanted.is_in(text.body()),
            Self::Text(wanted) => {
                let in_field = |(name, value): &(String, String)| wanted.is_in(&format!("{name}: {value}"));
                text.header().iter().any(in_field) || wanted.is_in(text.body())
            }
            _ => false,
        }
    }
}

fn days(date: &NaiveDate) -> i64 {
    i64::from(date.num_days_from_ce()) - 719_163
}

/// The day that was written, whatever the time zone: RFC 3501 disregards it.
fn day(date: mail_parser::DateTime) -> Option<i64> {
    NaiveDate::from_ymd_opt(date.year.into(), date.month.into(), date.day.into()).map(|date| days(&date))
}

#[cfg(test)]
mod tests;
