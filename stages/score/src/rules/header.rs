//! Rules about the header.

use super::{Rule, domain_of, registered, rule, when};
use crate::facts::Facts;

/// One day, in seconds.
const DAY: i64 = 86_400;

/// Fields that may stand there once only (RFC 5322 section 3.6).
const ONCE: [&str; 7] = ["from", "sender", "reply-to", "to", "message-id", "subject", "date"];

pub(super) const RULES: &[Rule] = &[
    rule("FROM_NONE", 2.0, "No From field with an address (RFC 5322 section 3.6).", |facts| {
        when(!facts.header.from.iter().any(|(_, address)| address.contains('@')))
    }),
    rule("FROM_TWICE", 3.5, "Several From fields: what a reader sees is not what was authenticated.", |facts| {
        when(times(facts, "from") > 1)
    }),
    rule("FROM_MANY", 3.5, "Authors at several domains, of which one at most was authenticated.", |facts| {
        let authors = facts.header.from.iter().map(|(_, address)| registered(domain_of(address)));
        let mut domains: Vec<_> = authors.filter(|domain| !domain.is_empty()).collect();
        domains.sort_unstable();
        domains.dedup();
        (domains.len() > 1).then(|| domains.join(" "))
    }),
    rule(
        "HEADER_STRAYS",
        1.5,
        "Lines in the header that are no fields: some readers end the header there, some do not.",
        |facts| when(facts.header.strays > 0),
    ),
    rule("FROM_NAME_ADDRESS", 2.5, "The author's display name is an address at another domain.", |facts| {
        facts.header.from.iter().find_map(|(name, address)| name_lies(name, address))
    }),
    rule("FIELDS_TWICE", 1.5, "A field that must stand there once stands there twice.", |facts| {
        ONCE.iter().skip(1).find(|&&name| times(facts, name) > 1).map(|&name| name.to_owned())
    }),
    rule("DATE_NONE", 1.2, "No Date field, or none that can be read.", |facts| when(facts.header.date.is_none())),
    rule("DATE_FUTURE", 2.0, "Written more than a day from now.", |facts| {
        when(facts.header.date.is_some_and(|date| date > facts.sender.arrived + DAY))
    }),
    rule("DATE_PAST", 0.5, "Written more than a week ago.", |facts| {
        when(facts.header.date.is_some_and(|date| date < facts.sender.arrived - 7 * DAY))
    }),
    rule("MESSAGE_ID_NONE", 1.0, "No Message-ID.", |facts| when(times(facts, "message-id") == 0)),
    rule("MESSAGE_ID_ODD", 0.8, "A Message-ID without a domain.", |facts| {
        when(times(facts, "message-id") > 0 && !facts.header.message_id.contains('@'))
    }),
    rule("TO_NONE", 1.0, "Neither To nor Cc.", |facts| when(times(facts, "to") == 0 && times(facts, "cc") == 0)),
    rule("SUBJECT_NONE", 0.7, "No subject.", |facts| when(facts.header.subject.trim().is_empty())),
    rule("SUBJECT_CAPITALS", 1.2, "A subject in capitals.", |facts| {
        let letters = |test: fn(char) -> bool| facts.header.subject.chars().filter(|&c| test(c)).count();
        when(letters(char::is_uppercase) >= 10 && letters(char::is_lowercase) == 0)
    }),
    rule("SUBJECT_REPLY_FAKED", 0.8, "It says Re: but answers nothing.", |facts| {
        let answers = times(facts, "in-reply-to") + times(facts, "references") > 0;
        let start = facts.header.subject.get(..3).unwrap_or_default();
        when(start.eq_ignore_ascii_case("re:") && !answers)
    }),
    rule("HEADER_8BIT", 1.0, "Bytes above 127 in the header that are not UTF-8.", |facts| when(facts.header.is_8bit)),
    rule(
        "REPLY_ELSEWHERE",
        1.0,
        "Answers go to another domain than the author's, and it is no mailing list.",
        |facts| {
            let author = facts.header.from.first().map(|(_, address)| registered(domain_of(address)))?;
            let elsewhere = |address: &&String| registered(domain_of(address)) != author;
            let is_list = times(facts, "list-id") + times(facts, "list-post") > 0;
            facts.header.reply_to.iter().find(elsewhere).filter(|_| !is_list).cloned()
        },
    ),
    rule("LIST_FIELDS", -0.3, "A mailing list that says how to leave it (RFC 2369, RFC 2919).", |facts| {
        when(times(facts, "list-id") > 0 && times(facts, "list-unsubscribe") > 0)
    }),
];

fn times(facts: &Facts, name: &str) -> usize {
    facts.header.names.iter().filter(|field| *field == name).count()
}

fn name_lies(name: &str, address: &str) -> Option<String> {
    let (_, behind) = name.rsplit_once('@')?;
    let domain = behind.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-').next()?;
    let lies = domain.contains('.') && registered(domain) != registered(domain_of(address));
    lies.then(|| domain.to_owned())
}
