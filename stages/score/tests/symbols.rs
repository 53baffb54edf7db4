//! The rules against texts: `tests/symbols/*.txt` at the top. Each case is a head (client, helo, from, to, listed,
//! results), the mail behind `--`, and behind `==` the symbols that must hold, no more and no fewer.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use proto::{
    Arrival, BodyRef, Client, Digest, Disposition, Envelope, GateFacts, Listing, MailId, Millis, Recipient, Verdict,
};
use runtime::Outcome;
use score::config::{Config, Points};
use score::facts::Facts;
use score::fields::Forged;
use score::{Asked, Authentication, Score, Word, decide};

const HOST: &str = "mx.example.org";
/// 2026-11-24 12:00 UTC.
const ARRIVED: Millis = Millis(1_795_521_600_000);

fn envelope(head: &[(&str, &str)]) -> Envelope {
    let first = |name: &str| head.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| *value);
    let listing = |value: &str| {
        let (zone, weight) = value.split_once(' ').unwrap();
        Listing { zone: zone.into(), code: "127.0.0.2".into(), weight: weight.parse().unwrap(), text: String::new() }
    };
    let all = |name: &'static str| head.iter().filter(move |(key, _)| *key == name).map(|(_, value)| *value);
    Envelope::new(Arrival {
        id: MailId::from_bytes([7; 16]),
        node: "mx1".parse().unwrap(),
        client: Client {
            address: first("client").parse().unwrap(),
            port: 1,
            helo: first("helo").into(),
            reverse_name: String::new(),
            tls: String::new(),
        },
        reverse_path: first("from").into(),
        recipients: all("to")
            .map(|to| Recipient { address: to.into(), orcpt: String::new(), notify: String::new() })
            .collect(),
        arrived: ARRIVED,
        verdict_deadline: ARRIVED,
        body: BodyRef { size: 0, digest: Digest([0; 32]), chunks: 0 },
        header_block: Vec::new(),
        gate: GateFacts { listings: all("listed").map(listing).collect(), unknown: Vec::new() },
        envid: String::new(),
        ret: String::new(),
    })
}

fn results(text: &str) -> Authentication {
    let mut results = Authentication::default();
    for (key, value) in text.split_whitespace().filter_map(|pair| pair.split_once('=')) {
        let word = match value {
            "pass" => Word::Pass,
            "fail" => Word::Fail,
            "softfail" => Word::SoftFail,
            "temperror" => Word::TempError,
            "permerror" => Word::PermError,
            _ => Word::None,
        };
        match (key, value) {
            ("spf", _) => results.spf = word,
            ("dkim", _) => results.dkim = word,
            ("dmarc", _) => results.dmarc = word,
            ("arc", _) => results.arc = word,
            ("iprev", _) => results.iprev = word,
            ("policy", "reject") => results.policy = Asked::Reject,
            ("policy", "quarantine") => results.policy = Asked::Quarantine,
            other => panic!("unknown result {other:?}"),
        }
    }
    results
}

fn found(case: &str) -> (String, BTreeSet<String>, BTreeSet<String>) {
    let (head, rest) = case.split_once("\n--\n").unwrap();
    let (mail, want) = rest.rsplit_once("==\n").unwrap();
    let (title, head) = head.trim_start().split_once('\n').unwrap();
    let head: Vec<_> = head.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
    // The texts are UTF-8; what is not has to be written in escapes.
    let mut raw = mail.replace('\n', "\r\n").into_bytes();
    if let Some(at) = raw.windows(4).position(|window| window == b"\\xe9") {
        raw.splice(at..at + 4, [0xe9]);
    }
    let mut facts = Facts::read(&envelope(&head), HOST, &raw);
    if let Some((_, text)) = head.iter().find(|(key, _)| *key == "results") {
        facts.authentication = results(text);
    }
    facts.forged_results = Forged::find(&raw, HOST).results;
    let symbols = decide::symbols(&Points::default(), &facts);
    let want = want.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty());
    (title.to_owned(), symbols.into_iter().map(|symbol| symbol.name).collect(), want.map(str::to_owned).collect())
}

fn cases() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/symbols");
    let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    files
        .flat_map(|text| {
            text.split("\n%%\n").map(|case| format!("{}\n", case.trim_end_matches('\n'))).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_text_has_its_symbols() {
    let all = cases();
    assert!(all.len() >= 15);
    let wrong: Vec<_> = all.iter().map(|case| found(case)).filter(|(_, got, want)| got != want).collect();
    assert!(wrong.is_empty(), "title, got, want: {wrong:#?}");
}

/// What no short text can show has a row of its own in the second list.
#[test]
fn every_rule_has_a_text() {
    let shown: BTreeSet<String> = cases().iter().flat_map(|case| found(case).2).collect();
    let elsewhere = ["RECIPIENTS_MANY", "PARTS_MANY", "NESTED_DEEP", "ENCODING_BROKEN", "TEXT_SCATTERED"];
    let missing: Vec<_> = score::rules::all()
        .map(|rule| rule.name)
        .filter(|name| !shown.contains(*name) && !elsewhere.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn rules_about_masses() {
    let scattered = score::facts::Content {
        parts: 201,
        depth: 6,
        broken: 1,
        page: Some(score::html::read(&"a\u{200b}".repeat(40))),
        ..Default::default()
    };
    let mut facts = Facts { content: Some(scattered), ..Default::default() };
    facts.sender.recipients = 51;
    let names: Vec<_> = decide::symbols(&Points::default(), &facts).into_iter().map(|symbol| symbol.name).collect();
    for name in ["RECIPIENTS_MANY", "PARTS_MANY", "NESTED_DEEP", "ENCODING_BROKEN", "PAGE_ONLY", "TEXT_SCATTERED"] {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
}

fn config(yaml: serde_json::Value) -> Config {
    let sheet = std::rc::Rc::default();
    let config = Config::read(runtime::config::Section::root(yaml, std::rc::Rc::clone(&sheet)));
    assert!(sheet.borrow().problems.is_empty());
    config
}

fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Pass(verdict) | Outcome::Reject(verdict) => verdict,
        other => panic!("{other:?}"),
    }
}

/// Whatever a mail is made of, it costs no stack, and no more memory than a mail of its size.
#[test]
fn no_mail_is_too_deep_or_too_wide() {
    let head = [("client", "192.0.2.1"), ("helo", "mx.sender.example"), ("from", "a@sender.example"), ("to", "b@c")];
    let digest = "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n";
    for (piece, times) in [
        ("Content-Type: message/rfc822\r\n\r\n", 300_000),
        (digest, 200_000),
        ("Con tent-Type: mes sage/rfc822\r\n\r\n", 300_000),
        ("--b\r\nContent-Type: a/b\r\n\r\n\r\n", 300_000),
        ("a:\r\n", 50_000),
    ] {
        for first in ["", digest, "Content-Type: multipart/mixed; boundary=b\r\n\r\n"] {
            let mail = first.to_owned() + &piece.repeat(times);
            let facts = Facts::read(&envelope(&head), HOST, mail.as_bytes());
            assert!(facts.content.is_none_or(|content| content.parts <= 1_001), "{piece}");
        }
    }
}

/// A name server that takes every question and says nothing costs the deadline, and no mail.
#[tokio::test]
async fn silent_dns_costs_time_only() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = config(serde_json::json!({"resolver": silent.local_addr().unwrap().to_string(), "deadline": "50ms"}));
    assert_eq!(config.deadline, Duration::from_millis(50));
    let score = Score::new(config, HOST.to_owned()).unwrap();
    let head = [("client", "192.0.2.1"), ("helo", "mx.sender.example"), ("from", "a@sender.example"), ("to", "b@c")];
    let forged = "Authentication-Results: mx.example.org; dkim=pass\r\n";
    let mail = format!(
        "{forged}From: a@sender.example\r\nTo: b@c\r\nSubject: x\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n\
         Message-ID: <1@a>\r\n\r\nHi\r\n"
    );
    let verdict = verdict(score.score(&envelope(&head), &Bytes::from(mail)).await);
    assert_eq!(verdict.disposition, Disposition::Pass);
    let headers = String::from_utf8(verdict.headers).unwrap();
    assert!(headers.starts_with("Authentication-Results: mx.example.org;\r\n\tspf=temperror"), "{headers}");
    assert_eq!(verdict.cuts, [proto::Cut { offset: 0, length: forged.len() as u64 }]);
    let names: Vec<_> = verdict.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    assert_eq!(names, ["RESULTS_FORGED"]);
}

/// Answers each question with a code (RFC 1035 section 4.1.1), or not at all, by its name.
async fn serve(dns: &tokio::net::UdpSocket, say: impl Fn(&[u8]) -> Option<u8>) {
    let mut question = [0; 1500];
    loop {
        let (length, from) = dns.recv_from(&mut question).await.unwrap();
        let end = 12 + question[12..length].iter().position(|&byte| byte == 0).unwrap() + 5;
        if let Some(code) = say(&question[12..end - 4]) {
            let mut answer = question[..end].to_vec();
            (answer[2], answer[3]) = (0x80 | (question[2] & 0x79), 0x80 | code);
            answer[6..12].fill(0);
            dns.send_to(&answer, from).await.unwrap();
        }
    }
}

/// The first line of results for a mail of a domain that nobody has asked for.
async fn first_result(score: &Score, number: usize) -> String {
    let (helo, from) = (format!("mx{number}.example"), format!("a@d{number}.example"));
    let head = [("client", "192.0.2.1"), ("helo", &helo), ("from", &from), ("to", "b@c")];
    let mail = format!("From: {from}\r\n\r\nHi\r\n");
    let verdict = verdict(score.score(&envelope(&head), &Bytes::from(mail)).await);
    let headers = String::from_utf8(verdict.headers).unwrap();
    headers.lines().nth(1).unwrap_or_default().trim().split(' ').next().unwrap_or_default().to_owned()
}

/// Each mail waited for all its answers in vain, some four seconds, as long as the name server was away.
#[tokio::test]
async fn a_silent_name_server_is_left_alone_and_found_again() {
    let dns = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let settings = serde_json::json!({
        "resolver": dns.local_addr().unwrap().to_string(), "deadline": "400ms", "silent_after": 2, "silent_for": "2s",
    });
    let score = Score::new(config(settings), HOST.to_owned()).unwrap();
    let (is_there, asked) = (std::cell::Cell::new(false), std::cell::Cell::new(0));
    let served = serve(&dns, |_| {
        asked.set(asked.get() + 1);
        is_there.get().then_some(3)
    });
    let mails = async {
        for number in 0..2 {
            assert_eq!(first_result(&score, number).await, "spf=temperror");
        }
        let (before, began) = (asked.get(), std::time::Instant::now());
        for number in 2..20 {
            assert_eq!(first_result(&score, number).await, "spf=temperror");
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(asked.get(), before, "nothing is asked any more");
        is_there.set(true);
        let mut number = 20;
        while first_result(&score, number).await == "spf=temperror" {
            assert!(began.elapsed() < Duration::from_secs(60), "it is never found again");
            tokio::task::yield_now().await;
            number += 1;
        }
    };
    tokio::select! {
        () = served => {}
        () = mails => {}
    }
}

/// A sender chooses whose servers are asked, and must not choose that nobody's are.
#[tokio::test]
async fn silent_senders_silence_nobody_else() {
    let dns = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let settings = serde_json::json!({
        "resolver": dns.local_addr().unwrap().to_string(), "deadline": "200ms", "silent_after": 1,
    });
    let score = Score::new(config(settings), HOST.to_owned()).unwrap();
    let served = serve(&dns, |name| {
        let is_silent = (0..5).any(|number| name.windows(3).any(|at| at == [2, b'd', b'0' + number]));
        (!is_silent).then_some(if name == [0] { 2 } else { 3 })
    });
    let mails = async {
        for number in 0..5 {
            assert_eq!(first_result(&score, number).await, "spf=temperror");
        }
        assert_eq!(first_result(&score, 5).await, "spf=none");
    };
    tokio::select! {
        () = served => {}
        () = mails => {}
    }
}

/// Whatever bytes come, scoring says something.
#[tokio::test]
async fn odd_mail_is_scored_never_an_error() {
    let config = config(serde_json::json!({"resolver": "127.0.0.1:9", "deadline": "20ms"}));
    let score = Score::new(config, HOST.to_owned()).unwrap();
    let head = [("client", "127.0.0.1"), ("helo", "x"), ("from", ""), ("to", "b@c")];
    let deep = "Content-Type: message/rfc822\r\n\r\n".repeat(500);
    for mail in [
        "",
        "\r\n",
        ":\r\n",
        "\0\u{1}",
        "From: \u{202e}<",
        &deep,
        "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n--",
    ] {
        let verdict = verdict(score.score(&envelope(&head), &Bytes::from(mail.to_owned())).await);
        assert!(verdict.headers.ends_with(b"\r\n"));
    }
}

/// Each signature costs a look-up: the sender does not choose how many there are.
#[tokio::test]
async fn a_thousand_signatures_cost_a_few_questions() {
    let dns = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = dns.local_addr().unwrap();
    let asked = std::cell::Cell::new(0);
    let served = serve(&dns, |_| {
        asked.set(asked.get() + 1);
        Some(3)
    });
    let config = config(serde_json::json!({"resolver": address.to_string(), "deadline": "5s"}));
    let score = Score::new(config, HOST.to_owned()).unwrap();
    let head = [("client", "192.0.2.1"), ("helo", "mx.sender.example"), ("from", "a@sender.example"), ("to", "b@c")];
    let signature = |number: usize| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=d{number}.example; s=s; h=from; \
             bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
        )
    };
    let signatures: String = (0..1000).map(signature).collect();
    let mail = format!("{signatures}From: a@sender.example\r\n\r\n");
    let (envelope, mail) = (envelope(&head), Bytes::from(mail));
    tokio::select! {
        () = served => {}
        _ = score.score(&envelope, &mail) => {}
    }
    assert!((1..60).contains(&asked.get()), "{} questions", asked.get());
}
