//! SEARCH (RFC 3501 section 6.4.4): criteria are read once; then each message is asked whether it meets them.
//!
//! What the row of a message tells is looked at first, and what is dearer only if that leaves it open: so a criterion
//! has three answers, the third of which is "not known yet".

use chrono::{Datelike as _, NaiveDate};
use imap_types::core::{AString, Charset};
use imap_types::search::SearchKey;

use super::needle::Needle;
use super::question::{MessageRow, flags};
use super::set::Set;

/// Criteria within criteria are followed so deep.
pub(super) const DEPTH: usize = 50;
/// Bytes of a message's keywords that are gone through in the time that another criterion takes.
const KEYWORD_BYTES: usize = 16;
/// Milliseconds in a day.
const DAY: i64 = 86_400_000;

/// Why a search is not made: what stands behind NO.
pub(super) type Refusal = &'static str;

/// What a message has to meet.
#[derive(Debug, PartialEq, Eq)]
pub struct Criteria(Rule);

#[derive(Debug, PartialEq, Eq)]
enum Rule {
    Always,
    All(Vec<Self>),
    Either(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Number(Set),
    Uid(Set),
    Flag(i64),
    Keyword(String),
    Larger(u64),
    Smaller(u64),
    Modseq(u64),
    /// Days since 1970: from, and up to but not including.
    Received(i64, i64),
    Told(Wanted),
}

/// What the row of a message does not tell.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It was received so many seconds ago, or longer (RFC 5032). The session has no clock.
    Older(u32),
    /// The same, or not so long.
    Younger(u32),
    /// The day in the `Date` field, in days since 1970: from, and up to but not including.
    Sent(i64, i64),
    /// A field of this name, in lower case, that holds this text.
    Field(String, Needle),
    /// A field of this name with addresses, one of which, or the whole of which, holds this text.
    Addresses(&'static str, Needle),
    /// This text in the body.
    Body(Needle),
    /// This text in the body, or in a field, its name included.
    Text(Needle),
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
        self.read_within(key, DEPTH).map(Criteria)
    }

    fn read_within(&mut self, key: &SearchKey<'_>, depth: usize) -> Result<Rule, Refusal> {
        let depth = depth.checked_sub(1).ok_or("[LIMIT] the criteria are nested too deep")?;
        let not = |criteria| Rule::Not(Box::new(criteria));
        Ok(match key {
            SearchKey::And(keys) => {
                Rule::All(keys.as_ref().iter().map(|key| self.read_within(key, depth)).collect::<Result<_, _>>()?)
            }
            SearchKey::Or(one, other) => {
                let one = self.read_within(one, depth)?;
                Rule::Either(Box::new(one), Box::new(self.read_within(other, depth)?))
            }
            SearchKey::Not(key) => not(self.read_within(key, depth)?),
            SearchKey::SequenceSet(set) => Rule::Number(Set::new(set, self.last.0)),
            SearchKey::Uid(set) => Rule::Uid(Set::new(set, self.last.1)),
            SearchKey::All => Rule::Always,
            SearchKey::Recent => Rule::Flag(flags::RECENT),
            SearchKey::Old => not(Rule::Flag(flags::RECENT)),
            SearchKey::New => Rule::All(vec![Rule::Flag(flags::RECENT), not(Rule::Flag(flags::SEEN))]),
            SearchKey::Answered => Rule::Flag(flags::ANSWERED),
            SearchKey::Unanswered => not(Rule::Flag(flags::ANSWERED)),
            SearchKey::Deleted => Rule::Flag(flags::DELETED),
            SearchKey::Undeleted => not(Rule::Flag(flags::DELETED)),
            SearchKey::Draft => Rule::Flag(flags::DRAFT),
            SearchKey::Undraft => not(Rule::Flag(flags::DRAFT)),
            SearchKey::Flagged => Rule::Flag(flags::FLAGGED),
            SearchKey::Unflagged => not(Rule::Flag(flags::FLAGGED)),
            SearchKey::Seen => Rule::Flag(flags::SEEN),
            SearchKey::Unseen => not(Rule::Flag(flags::SEEN)),
            SearchKey::Keyword(word) => Rule::Keyword(word.as_ref().to_owned()),
            SearchKey::Unkeyword(word) => not(Rule::Keyword(word.as_ref().to_owned())),
            SearchKey::Larger(size) => Rule::Larger(u64::from(*size)),
            SearchKey::Smaller(size) => Rule::Smaller(u64::from(*size)),
            SearchKey::Older(seconds) => Rule::Told(Wanted::Older(seconds.get())),
            SearchKey::Younger(seconds) => Rule::Told(Wanted::Younger(seconds.get())),
            // RFC 7162 section 3.1.5: there is one number for all the flags of a message.
            SearchKey::ModSequence { modseq, .. } => Rule::Modseq(*modseq),
            other => return read_date(other).map_or_else(|| self.read_text(other).map(Rule::Told), Ok),
        })
    }

    fn read_text(&mut self, key: &SearchKey<'_>) -> Result<Wanted, Refusal> {
        self.texts = self.texts.checked_sub(1).ok_or("[LIMIT] too many criteria that ask for texts")?;
        let field = |name: &str, wanted| Wanted::Field(name.to_owned(), needle(wanted));
        Ok(match key {
            SearchKey::Bcc(wanted) => Wanted::Addresses("bcc", needle(wanted)),
            SearchKey::Cc(wanted) => Wanted::Addresses("cc", needle(wanted)),
            SearchKey::From(wanted) => Wanted::Addresses("from", needle(wanted)),
            SearchKey::To(wanted) => Wanted::Addresses("to", needle(wanted)),
            SearchKey::Subject(wanted) => field("subject", wanted),
            SearchKey::Header(name, wanted) => {
                field(&String::from_utf8_lossy(name.as_ref()).to_ascii_lowercase(), wanted)
            }
            SearchKey::Body(wanted) => Wanted::Body(needle(wanted)),
            SearchKey::Text(wanted) => Wanted::Text(needle(wanted)),
            _ => return Err("[CANNOT] a criterion is not supported"),
        })
    }
}

fn read_date(key: &SearchKey<'_>) -> Option<Rule> {
    let sent = |from, to| Rule::Told(Wanted::Sent(from, to));
    Some(match key {
        SearchKey::Before(date) => Rule::Received(i64::MIN, days(date.as_ref())),
        SearchKey::On(date) => Rule::Received(days(date.as_ref()), days(date.as_ref()) + 1),
        SearchKey::Since(date) => Rule::Received(days(date.as_ref()), i64::MAX),
        SearchKey::SentBefore(date) => sent(i64::MIN, days(date.as_ref())),
        SearchKey::SentOn(date) => sent(days(date.as_ref()), days(date.as_ref()) + 1),
        SearchKey::SentSince(date) => sent(days(date.as_ref()), i64::MAX),
        _ => return None,
    })
}

fn needle(wanted: &AString<'_>) -> Needle {
    Needle::new(&String::from_utf8_lossy(wanted.as_ref()))
}

impl Criteria {
    /// Whether they want anything of this kind that the rows do not tell.
    pub fn any(&self, is_meant: impl Fn(&Wanted) -> bool) -> bool {
        self.0.any(&|rule| matches!(rule, Rule::Told(wanted) if is_meant(wanted)))
    }

    /// What it takes to judge a message by them.
    pub(super) fn weight(&self) -> Weight {
        let mut weight = Weight { all: 0, keywords: 0 };
        self.0.weigh(&mut weight);
        weight
    }

    /// Whether they ask for changes: then the answer has the highest MODSEQ of what is found.
    pub(super) fn asks_modseq(&self) -> bool {
        self.0.any(&|rule| matches!(rule, Rule::Modseq(_)))
    }

    /// Whether the message with this sequence number meets them; none if `told`, which says none for what it does not
    /// know, leaves that open.
    pub fn judge(&self, number: u32, row: &MessageRow, mut told: impl FnMut(&Wanted) -> Option<bool>) -> Option<bool> {
        self.0.judge(number, row, &mut told)
    }
}

/// How many criteria there are, and how many of them ask for keywords: these go through all that a message has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    all: usize,
    keywords: usize,
}

impl Weight {
    /// The steps of judging these messages.
    pub(super) fn steps<'a>(self, rows: impl Iterator<Item = &'a MessageRow>) -> usize {
        let (count, bytes) = rows.fold((0_usize, 0), |(count, bytes), row| (count + 1, bytes + row.keywords.len()));
        self.all.saturating_mul(count).saturating_add(self.keywords.saturating_mul(bytes / KEYWORD_BYTES))
    }
}

impl Rule {
    fn weigh(&self, weight: &mut Weight) {
        weight.all += 1;
        match self {
            Self::All(all) => all.iter().for_each(|rule| rule.weigh(weight)),
            Self::Either(one, other) => [one, other].into_iter().for_each(|rule| rule.weigh(weight)),
            Self::Not(rule) => rule.weigh(weight),
            Self::Keyword(_) => weight.keywords += 1,
            _ => {}
        }
    }

    fn any(&self, is_meant: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::All(all) => all.iter().any(|rule| rule.any(is_meant)),
            Self::Either(one, other) => one.any(is_meant) || other.any(is_meant),
            Self::Not(rule) => rule.any(is_meant),
            rule => is_meant(rule),
        }
    }

    fn judge(&self, number: u32, row: &MessageRow, told: &mut dyn FnMut(&Wanted) -> Option<bool>) -> Option<bool> {
        Some(match self {
            Self::Always => true,
            Self::All(all) => return all_of(all.iter(), |rule| rule.judge(number, row, told)),
            // One of them is met when not all of them are missed.
            Self::Either(one, other) => {
                let missed = |rule: &Self| rule.judge(number, row, told).map(|is_met| !is_met);
                return all_of([&**one, &**other].into_iter(), missed).map(|missed| !missed);
            }
            Self::Not(rule) => return rule.judge(number, row, told).map(|is_met| !is_met),
            Self::Number(set) => set.contains(number),
            Self::Uid(set) => set.contains(row.uid),
            Self::Flag(bit) => row.flags & bit != 0,
            Self::Keyword(word) => row.keywords.split(' ').any(|found| found.eq_ignore_ascii_case(word)),
            Self::Larger(size) => row.size > *size,
            Self::Smaller(size) => row.size < *size,
            Self::Modseq(modseq) => row.modseq >= *modseq,
            Self::Received(from, to) => (*from..*to).contains(&row.received.div_euclid(DAY)),
            Self::Told(wanted) => return told(wanted),
        })
    }
}

/// Whether all are met: not if one is not, whatever is still open.
fn all_of<T>(mut all: impl Iterator<Item = T>, mut judge: impl FnMut(T) -> Option<bool>) -> Option<bool> {
    let mut answer = Some(true);
    all.try_for_each(|one| match judge(one) {
        Some(false) => {
            answer = Some(false);
            None
        }
        None => {
            answer = None;
            Some(())
        }
        Some(true) => Some(()),
    });
    answer
}

impl Wanted {
    /// Whether a message that was received then is old or young enough, both in milliseconds since 1970; none if this
    /// is not about that.
    pub fn in_time(&self, received: i64, now: i64) -> Option<bool> {
        let before = |seconds: u32| now.saturating_sub(i64::from(seconds) * 1000);
        match self {
            Self::Older(seconds) => Some(received <= before(*seconds)),
            Self::Younger(seconds) => Some(received >= before(*seconds)),
            _ => None,
        }
    }
}

fn days(date: &NaiveDate) -> i64 {
    i64::from(date.num_days_from_ce()) - 719_163
}

/// The day that was written, whatever the time zone: RFC 3501 disregards it.
pub(super) fn day(date: &mail_parser::DateTime) -> Option<i64> {
    NaiveDate::from_ymd_opt(date.year.into(), date.month.into(), date.day.into()).map(|date| days(&date))
}

#[cfg(test)]
mod tests;
