//! Rules about who handed us the mail: the session, the lists, and what DNS says of it.

use std::net::{IpAddr, Ipv4Addr};

use super::{Rule, domain_of, rule, when};
use crate::authenticate::{Asked, Word};
use crate::facts::Facts;

pub(super) const RULES: &[Rule] = &[
    rule("HELO_BARE", 1.0, "The client names itself by a word without a dot.", |facts| {
        when(facts.sender.is_public && !facts.sender.helo.contains(['.', ':']))
    }),
    rule(
        "HELO_ADDRESS",
        1.5,
        "The client names itself by an address without brackets (RFC 5321 section 4.1.3).",
        |facts| when(facts.sender.helo.parse::<IpAddr>().is_ok()),
    ),
    rule("HELO_OURS", 4.0, "A client of the world calls itself by our own name.", |facts| {
        when(facts.sender.is_public && facts.sender.helo.eq_ignore_ascii_case(&facts.sender.host))
    }),
    rule("LISTED", 3.0, "A DNS list names the client, but does not weigh enough to refuse it.", |facts| {
        lists(facts, |weight| weight > 0.0)
    }),
    rule("LISTED_GOOD", -3.0, "A DNS list with a negative weight speaks for the client.", |facts| {
        lists(facts, |weight| weight < 0.0)
    }),
    rule("NULL_SENDER_MANY", 2.0, "A bounce for several people: bounces have one recipient.", |facts| {
        when(facts.sender.reverse_path.is_empty() && facts.sender.recipients > 1)
    }),
    rule("RECIPIENTS_MANY", 1.0, "More than 50 recipients at once.", |facts| when(facts.sender.recipients > 50)),
    rule("SENDER_DOMAIN_ODD", 1.5, "The reverse path's domain has no dot, or is an address.", |facts| {
        let domain = domain_of(&facts.sender.reverse_path);
        when(!facts.sender.reverse_path.is_empty() && (!domain.contains('.') || domain.parse::<Ipv4Addr>().is_ok()))
    }),
    rule("REVERSE_NAME_NONE", 1.5, "The client's address has no reverse name that leads back to it.", |facts| {
        when(matches!(facts.authentication.iprev, Word::Fail | Word::PermError))
    }),
    rule("SPF_PASS", -0.2, "SPF: the client may send for the reverse path.", |f| {
        when(f.authentication.spf == Word::Pass)
    }),
    rule("SPF_FAIL", 3.5, "SPF: the client must not send for the reverse path.", |f| {
        when(f.authentication.spf == Word::Fail)
    }),
    rule("SPF_SOFTFAIL", 1.5, "SPF: the client probably must not.", |f| when(f.authentication.spf == Word::SoftFail)),
    rule("SPF_BROKEN", 0.5, "SPF: the domain's record is broken.", |f| when(f.authentication.spf == Word::PermError)),
    rule("DKIM_PASS", -0.2, "DKIM: a signature is valid.", |f| when(f.authentication.dkim == Word::Pass)),
    rule("DKIM_FAIL", 0.7, "DKIM: there are signatures, none of them valid.", |f| {
        when(matches!(f.authentication.dkim, Word::Fail | Word::PermError | Word::Neutral))
    }),
    rule("DMARC_PASS", -0.5, "DMARC: the author's domain stands behind the mail.", |f| {
        when(f.authentication.dmarc == Word::Pass)
    }),
    rule("DMARC_FAIL", 1.0, "DMARC: the author's domain does not stand behind the mail, and asks for nothing.", |f| {
        failed(f, Asked::Nothing)
    }),
    rule("DMARC_QUARANTINE", 6.0, "DMARC failed, and the author's domain asks for Junk.", |f| {
        failed(f, Asked::Quarantine)
    }),
    rule("DMARC_REJECT", 8.0, "DMARC failed, and the author's domain asks for refusal.", |f| failed(f, Asked::Reject)),
    rule("DMARC_BROKEN", 0.5, "DMARC: the author's domain has a record that cannot be read.", |f| {
        when(f.authentication.dmarc == Word::PermError)
    }),
    rule("ARC_PASS", -0.1, "ARC: the chain of forwarders is whole.", |f| when(f.authentication.arc == Word::Pass)),
    rule("ARC_FAIL", 0.5, "ARC: the chain of forwarders is broken.", |f| {
        when(matches!(f.authentication.arc, Word::Fail | Word::PermError))
    }),
    rule("RESULTS_FORGED", 2.5, "The mail brings Authentication-Results in our name; they were cut out.", |facts| {
        when(facts.forged_results > 0)
    }),
];

fn failed(facts: &Facts, asked: Asked) -> Option<String> {
    when(facts.authentication.dmarc == Word::Fail && facts.authentication.policy == asked)
}

fn lists(facts: &Facts, counts: fn(f64) -> bool) -> Option<String> {
    let zones: Vec<&str> =
        facts.sender.listings.iter().filter(|listing| counts(listing.weight)).map(|l| l.zone.as_str()).collect();
    (!zones.is_empty()).then(|| zones.join(" "))
}
