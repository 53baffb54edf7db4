//! What the lists' answers mean for a connection. Pure.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use proto::{GateFacts, Listing};

use crate::config::List;

/// What one list answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It does not know the client.
    NotListed,
    /// These addresses, and its text if it gave one.
    Listed(Vec<Ipv4Addr>, String),
    /// Nothing in time, or an error.
    Nothing,
}

/// What becomes of the connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Advice {
    /// It goes on, with these facts.
    Pass(GateFacts),
    /// It is refused, for this listing.
    Refuse(Listing),
}

/// The name under which a list is asked about an address (RFC 5782 sections 2.1 and 2.4).
pub fn query_name(address: IpAddr, zone: &str) -> String {
    let mut name = String::new();
    match address {
        IpAddr::V4(ip) => {
            for octet in ip.octets().iter().rev() {
                // Writing to a String cannot fail.
                let _ = write!(name, "{octet}.");
            }
        }
        IpAddr::V6(ip) => {
            for octet in ip.octets().iter().rev() {
                let _ = write!(name, "{:x}.{:x}.", octet & 15, octet >> 4);
            }
        }
    }
    name + zone + "."
}

/// Adds up what the lists said.
pub fn decide(threshold: f64, heard: &[(&List, Heard)]) -> Advice {
    let mut facts = GateFacts::default();
    for (list, heard) in heard {
        match heard {
            Heard::NotListed => {}
            Heard::Nothing => facts.unknown.push(list.zone.clone()),
            Heard::Listed(answers, text) => match judge(list, answers) {
                Judged::Counts(code) => facts.listings.push(Listing {
                    zone: list.zone.clone(),
                    code: code.to_string(),
                    weight: list.weight,
                    text: text.clone(),
                }),
                Judged::OutOfOrder => facts.unknown.push(list.zone.clone()),
                Judged::DoesNotCount => {}
            },
        }
    }
    let weight: f64 = facts.listings.iter().map(|listing| listing.weight).sum();
    let heaviest = facts.listings.iter().max_by(|a, b| a.weight.total_cmp(&b.weight));
    match heaviest {
        Some(heaviest) if weight >= threshold => Advice::Refuse(heaviest.clone()),
        _ => Advice::Pass(facts),
    }
}

enum Judged {
    Counts(Ipv4Addr),
    DoesNotCount,
    OutOfOrder,
}

/// A listing is an answer in 127.0.0.0/8. One in 127.255.255.0/24 means that the list does not serve us; one outside
/// 127.0.0.0/8 that its domain was sold (RFC 5782 section 2.1): both say nothing about the client.
fn judge(list: &List, answers: &[Ipv4Addr]) -> Judged {
    let is_error = |ip: &Ipv4Addr| !ip.is_loopback() || ip.octets()[..3] == [127, 255, 255];
    if answers.iter().any(is_error) {
        return Judged::OutOfOrder;
    }
    let counts = |ip: &&Ipv4Addr| list.codes.is_empty() || list.codes.iter().any(|(from, to)| from <= *ip && *ip <= to);
    answers.iter().find(counts).map_or(Judged::DoesNotCount, |ip| Judged::Counts(*ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(zone: &str, weight: f64, codes: &[[u8; 4]]) -> List {
        let codes = codes.iter().map(|code| (Ipv4Addr::from(*code), Ipv4Addr::from(*code))).collect();
        List { zone: zone.into(), weight, codes }
    }

    fn listed(code: [u8; 4]) -> Heard {
        Heard::Listed(vec![code.into()], "text".into())
    }

    /// The zone that refuses, or the listings and the unknown ones that go on.
    #[track_caller]
    fn check(rows: &[(List, Heard)], want: Result<(usize, usize), &str>) {
        let rows: Vec<_> = rows.iter().map(|(list, heard)| (list, heard.clone())).collect();
        match (decide(1.0, &rows), want) {
            (Advice::Pass(facts), Ok(want)) => assert_eq!((facts.listings.len(), facts.unknown.len()), want),
            (Advice::Refuse(listing), Err(zone)) => assert_eq!(listing.zone, zone),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn not_listed() {
        check(&[(list("a", 1.0, &[]), Heard::NotListed)], Ok((0, 0)));
    }

    #[test]
    fn listed_by_one() {
        check(&[(list("a", 1.0, &[]), listed([127, 0, 0, 2]))], Err("a"));
    }

    #[test]
    fn one_weak_listing() {
        check(&[(list("a", 0.5, &[]), listed([127, 0, 0, 2]))], Ok((1, 0)));
    }

    #[test]
    fn two_weak_listings_add_up_and_the_heavier_is_named() {
        let rows = [(list("a", 0.4, &[]), listed([127, 0, 0, 2])), (list("b", 0.6, &[]), listed([127, 0, 0, 2]))];
        check(&rows, Err("b"));
    }

    #[test]
    fn a_white_list_takes_away() {
        let rows = [(list("a", 1.0, &[]), listed([127, 0, 0, 2])), (list("w", -1.0, &[]), listed([127, 0, 0, 2]))];
        check(&rows, Ok((2, 0)));
    }

    #[test]
    fn a_silent_list_is_unknown() {
        check(&[(list("a", 1.0, &[]), Heard::Nothing)], Ok((0, 1)));
    }

    #[test]
    fn an_error_of_the_list_is_no_listing() {
        for code in [[127, 255, 255, 254], [127, 255, 255, 1], [192, 0, 2, 1]] {
            check(&[(list("a", 1.0, &[]), listed(code))], Ok((0, 1)));
        }
    }

    #[test]
    fn only_the_codes_that_were_asked_for_count() {
        check(&[(list("a", 1.0, &[[127, 0, 0, 4]]), listed([127, 0, 0, 2]))], Ok((0, 0)));
        check(&[(list("a", 1.0, &[[127, 0, 0, 2]]), listed([127, 0, 0, 2]))], Err("a"));
    }

    #[test]
    fn names() {
        assert_eq!(query_name([192, 0, 2, 99].into(), "bl.example"), "99.2.0.192.bl.example.");
        let ip: std::net::Ipv6Addr = "2001:db8:1:2:3:4:567:89ab".parse().unwrap_or(std::net::Ipv6Addr::LOCALHOST);
        let want = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.";
        assert_eq!(query_name(ip.into(), "bl"), want);
    }
}
