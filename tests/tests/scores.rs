//! The rules against real mail: hardly a good mail goes into Junk, none is refused.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proto::{Arrival, BodyRef, Client, Digest, Envelope, GateFacts, MailId, Millis, Recipient};
use score::config::Points;
use score::decide;
use score::facts::Facts;
use tests::corpora;

fn envelope(arrived: Millis) -> Envelope {
    Envelope::new(Arrival {
        id: MailId::from_bytes([7; 16]),
        node: "mx1".parse().unwrap(),
        client: Client {
            address: [192, 0, 2, 1].into(),
            port: 1,
            helo: "mx.sender.example".into(),
            reverse_name: String::new(),
            tls: String::new(),
        },
        reverse_path: "a@sender.example".into(),
        recipients: vec![Recipient { address: "b@c".into(), orcpt: String::new(), notify: String::new() }],
        arrived,
        verdict_deadline: arrived,
        body: BodyRef { size: 0, digest: Digest([0; 32]), chunks: 0 },
        header_block: Vec::new(),
        gate: GateFacts::default(),
        envid: String::new(),
        ret: String::new(),
    })
}

/// Mails, and how many of them are suspect, junk and refused by content alone; and how often each symbol held.
#[derive(Default)]
struct Count {
    mails: usize,
    junk: usize,
    refused: usize,
    suspect: usize,
    symbols: BTreeMap<String, usize>,
}

fn count(name: &str) -> Option<Count> {
    let (set, kind) = name.split_once('/').unwrap();
    let archive = corpora::folder("spam")?.join(set).join(format!("{kind}.tar.zst"));
    let mut counts = Count::default();
    for (_, mail) in corpora::unpack(&archive) {
        let mail = corpora::with_crlf(&mail);
        let mut facts = Facts::read(&envelope(Millis(0)), "mx.example.org", &mail);
        // The mails are old: each arrives when it says that it was written.
        facts.sender.arrived = facts.header.date.unwrap_or_default();
        let symbols = decide::symbols(&Points::default(), &facts);
        let score: f64 = symbols.iter().map(|symbol| symbol.points).sum();
        counts.mails += 1;
        counts.junk += usize::from(score >= 6.0);
        counts.suspect += usize::from(score >= 2.5);
        counts.refused += usize::from(score >= 15.0);
        for symbol in symbols {
            *counts.symbols.entry(symbol.name).or_default() += 1;
        }
    }
    println!(
        "{name}: {} mails, {} suspect, {} junk, {} refused",
        counts.mails, counts.suspect, counts.junk, counts.refused
    );
    let mut most: Vec<_> = counts.symbols.iter().collect();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    println!("  {:?}", &most[..most.len().min(14)]);
    Some(counts)
}

#[test]
fn good_mail_stays_out_of_junk() {
    for name in ["spamassassin/ham", "trec07p-half/ham", "list-usrp/ham", "list-lman/ham", "newsletters/ham"] {
        let Some(counts) = count(name) else { return };
        assert!(counts.junk * 200 <= counts.mails, "{name}: {} of {} into Junk", counts.junk, counts.mails);
        assert_eq!(counts.refused, 0, "{name}");
    }
}

/// Without DNS, lists and learning the rules see little of spam; but what they see must be spam more often than not.
#[test]
fn what_is_suspect_is_spam_rather_than_not() {
    for set in ["spamassassin", "trec07p-half"] {
        let (Some(good), Some(spam)) = (count(&format!("{set}/ham")), count(&format!("{set}/spam"))) else { return };
        let rate = |counts: &Count| counts.suspect as f64 / counts.mails as f64;
        assert!(rate(&spam) > 3.0 * rate(&good), "{set}: {} of spam, {} of good mail", rate(&spam), rate(&good));
    }
}
