//! What others expect of SPF, DKIM and ARC: their vectors through our own evaluation, which asks a name server that
//! knows nothing but the vectors' records. They run where the corpora are there.
//!
//! The evaluation is a library's, and it is more lenient than the vectors: many a broken record has another result than
//! the one that is wanted. What matters is whether something passes that must not, or does not that must. The vectors
//! of which this is true stand here by name; a new version that judges otherwise, for better or worse, makes the test
//! fail.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use proto::{Arrival, BodyRef, Client, Digest, Envelope, GateFacts, MailId, Millis, Recipient};
use runtime::Outcome;
use runtime::config::Section;
use score::Score;
use score::config::Config;
use serde_json::{Value, json};
use tests::corpora;

/// Names, and under each its records: a kind and what it holds. `TIMEOUT` has no answer.
type Zone = BTreeMap<String, Vec<(String, Value)>>;

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// One octet for each character, as the vectors write them, in pieces as long as a TXT record takes.
fn txt(value: &Value) -> RData {
    let strings = value.as_array().map_or_else(|| vec![text(value)], |list| list.iter().map(text).collect());
    let octets = |string: &String| string.chars().map(|c| u8::try_from(c as u32).unwrap()).collect::<Vec<_>>();
    let strings: Vec<Vec<u8>> = strings.iter().map(octets).collect();
    RData::TXT(TXT::from_bytes(strings.iter().flat_map(|string| string.chunks(255)).collect()))
}

fn data(kind: &str, value: &Value) -> RData {
    let name = |value: &Value| Name::from_ascii(text(value)).unwrap();
    match kind {
        "A" => RData::A(A(text(value).parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA(text(value).parse().unwrap())),
        "MX" => RData::MX(MX::new(u16::try_from(value[0].as_u64().unwrap()).unwrap(), name(&value[1]))),
        "PTR" => RData::PTR(PTR(name(value))),
        "CNAME" => RData::CNAME(CNAME(name(value))),
        "TXT" | "SPF" => txt(value),
        other => panic!("a record of kind {other}"),
    }
}

/// The answer to a question, or none where the vectors have a server that says nothing.
fn answer(zone: &Zone, question: &[u8]) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).unwrap();
    let query = asked.queries[0].clone();
    let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
    let mut name = query.name().clone();
    reply.queries.push(query.clone());
    for _ in 0..8 {
        let Some(records) = zone.get(name.to_ascii().trim_end_matches('.').to_ascii_lowercase().as_str()) else {
            reply.metadata.response_code = ResponseCode::NXDomain;
            break;
        };
        // The SPF records of the vectors are there as TXT too, where there is no word of TXT.
        let has_txt = records.iter().any(|(kind, _)| kind == "TXT");
        let wanted = match query.query_type {
            RecordType::TXT if !has_txt => "SPF".to_owned(),
            other => other.to_string(),
        };
        let found = records.iter().filter(|(kind, value)| *kind == wanted && value != "NONE" && value != &json!([]));
        let found: Vec<_> = found.map(|(kind, value)| data(kind, value)).collect();
        let alias = records.iter().find(|(kind, _)| kind == "CNAME").map(|(kind, value)| data(kind, value));
        if found.is_empty() && records.iter().any(|(kind, _)| kind == "TIMEOUT") {
            return None;
        }
        reply.answers.extend(found.into_iter().map(|data| Record::from_rdata(name.clone(), 60, data)));
        let (Some(RData::CNAME(target)), true) = (alias, reply.answers.iter().all(is_alias)) else { break };
        reply.answers.push(Record::from_rdata(name, 60, RData::CNAME(target.clone())));
        name = target.0;
    }
    Some(reply.to_vec().unwrap())
}

fn is_alias(record: &Record) -> bool {
    matches!(record.data, RData::CNAME(_))
}

/// Our evaluation, with a name server of its own that knows this zone.
fn score(zone: Zone) -> Score {
    score_slowly(zone, Duration::ZERO, "4s")
}

/// The same, by a name server that takes so long for each answer, and within this deadline.
fn score_slowly(zone: Zone, delay: Duration, deadline: &str) -> Score {
    let zone = Arc::new(zone);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings = json!({"resolver": socket.local_addr().unwrap().to_string(), "deadline": deadline});
    thread::spawn(move || {
        let mut question = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let (socket, zone, question) =
                (socket.try_clone().unwrap(), Arc::clone(&zone), question[..length].to_vec());
            thread::spawn(move || {
                thread::sleep(delay);
                if let Some(answer) = answer(&zone, &question) {
                    let _: Result<usize, _> = socket.send_to(&answer, from);
                }
            });
        }
    });
    let config = Config::read(Section::root(settings, std::rc::Rc::default()));
    Score::new(config, "mx.example.org".into()).unwrap()
}

/// The header lines that a mail gets.
async fn headers(score: &Score, client: IpAddr, helo: &str, from: &str, mail: &str) -> String {
    let envelope = Envelope::new(Arrival {
        id: MailId::from_bytes([7; 16]),
        node: "mx1".parse().unwrap(),
        client: Client {
            address: client,
            port: SocketAddr::from(([127, 0, 0, 1], 1)).port(),
            helo: helo.into(),
            reverse_name: String::new(),
            tls: String::new(),
        },
        reverse_path: from.into(),
        recipients: vec![Recipient { address: "b@c".into(), orcpt: String::new(), notify: String::new() }],
        arrived: Millis(1_795_521_600_000),
        verdict_deadline: Millis(1_795_521_600_000),
        body: BodyRef { size: 0, digest: Digest([0; 32]), chunks: 0 },
        header_block: Vec::new(),
        gate: GateFacts::default(),
        envid: String::new(),
        ret: String::new(),
    });
    match score.score(&envelope, &Bytes::from(corpora::with_crlf(mail.as_bytes()))).await {
        Outcome::Pass(verdict) | Outcome::Reject(verdict) => String::from_utf8(verdict.headers).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The results of a method in the header lines.
fn results<'a>(headers: &'a str, method: &str) -> Vec<&'a str> {
    let field = headers.split("\r\nX-").next().unwrap_or_default();
    let words = field.split([';', '\n']).filter_map(|part| part.trim().strip_prefix(method)?.strip_prefix('='));
    words.map(|rest| rest.split([' ', '\r', ';']).next().unwrap_or_default()).collect()
}

fn vectors(archive: &str) -> Option<BTreeMap<String, String>> {
    let files = corpora::unpack(&corpora::folder("conformance")?.join(archive));
    let name = |path: String| path.rsplit('/').next().unwrap_or_default().to_owned();
    Some(files.into_iter().map(|(path, bytes)| (name(path), String::from_utf8_lossy(&bytes).into_owned())).collect())
}

/// What was judged otherwise than the vectors say.
#[derive(Default)]
struct Count {
    all: usize,
    otherwise: usize,
    passed: Vec<String>,
    missed: Vec<String>,
}

impl Count {
    fn add(&mut self, name: &str, wanted: &[String], got: &str) {
        self.all += 1;
        if wanted.iter().any(|wanted| wanted == got) {
            return;
        }
        println!("{name}: {got} instead of {}", wanted.join(" or "));
        self.otherwise += 1;
        if got == "pass" {
            self.passed.push(name.to_owned());
        } else if wanted.iter().any(|wanted| wanted == "pass") {
            self.missed.push(name.to_owned());
        }
    }

    #[track_caller]
    fn is(mut self, all: usize, passed: &[&str], missed: &[&str]) {
        println!("{} vectors, {} with another result", self.all, self.otherwise);
        self.passed.sort();
        self.missed.sort();
        assert_eq!(self.all, all);
        assert_eq!(self.passed, passed, "passed, and must not");
        assert_eq!(self.missed, missed, "did not pass, and must");
    }
}

#[tokio::test]
async fn spf() {
    let Some(files) = vectors("spf-openspf.tar.zst") else { return };
    let documents: Vec<Value> = serde_saphyr::from_multiple(&files["rfc7208-tests.yml"]).unwrap();
    let mut count = Count::default();
    for document in &documents {
        let record = |record: &Value| match record.as_object() {
            Some(record) => record.iter().map(|(kind, value)| (kind.clone(), value.clone())).next().unwrap(),
            None => (text(record), Value::Null),
        };
        let records = |(name, list): (&String, &Value)| {
            (name.to_ascii_lowercase(), list.as_array().unwrap().iter().map(record).collect())
        };
        let score = score(document["zonedata"].as_object().unwrap().iter().map(records).collect());
        for (name, test) in document["tests"].as_object().unwrap() {
            let client = text(&test["host"]).parse().unwrap();
            let headers = headers(&score, client, &text(&test["helo"]), &text(&test["mailfrom"]), "").await;
            let got = results(&headers, "spf").join(" ");
            let wanted = &test["result"];
            let wanted = wanted.as_array().map_or_else(|| vec![text(wanted)], |list| list.iter().map(text).collect());
            count.add(name, &wanted, &got);
        }
    }
    let passed = [
        "a-cidr6-0-ip4mapped",
        "a-dual-cidr-ip4-err",
        "badip4",
        "cidr4-032",
        "cidr4-33",
        "cidr6-0-ip4",
        "cidr6-ip4",
        "control-char-policy",
        "exists-ip6only",
        "mx-cidr6-0-ip4mapped",
    ];
    let missed = [
        "a-colon-domain",
        "a-colon-domain-ip4mapped",
        "macro-mania-in-domain",
        "modifier-charset-good",
        "mx-colon-domain",
        "mx-colon-domain-ip4mapped",
        "p-macro-multiple",
        "ptr-match-implicit",
        "ptr-match-ip6",
    ];
    count.is(203, &passed, &missed);
}

#[tokio::test]
async fn dkim() {
    let Some(files) = vectors("dkim-chasquid.tar.zst") else { return };
    let mut valid = BTreeMap::new();
    // A file may hold nothing but the name of the one that is meant.
    let read = |name: &str| files.get(name).map(|text| files.get(text.trim()).unwrap_or(text).clone());
    for name in files.keys().filter_map(|name| name.strip_suffix(".msg")) {
        let read = |kind: &str| read(&format!("{name}.{kind}"));
        let (Some(mail), Some(dns), Some(wanted)) = (read("msg"), read("dns"), read("result")) else { continue };
        let mut zone = Zone::new();
        for (key, value) in dns.replace("\\\n", "").lines().filter_map(|line| line.split_once(':')) {
            let record = match value.trim() {
                "TEMPERROR" => ("TIMEOUT".to_owned(), Value::Null),
                "PERMERROR" => continue,
                value => ("TXT".to_owned(), value.into()),
            };
            zone.entry(key.into()).or_default().push(record);
        }
        let headers = headers(&score(zone), [192, 0, 2, 1].into(), "mx.example", "a@b.example", &mail).await;
        let got = results(&headers, "dkim").iter().filter(|word| **word == "pass").count();
        let wanted: Value = serde_json::from_str(&wanted).unwrap();
        if wanted["Valid"] != got {
            valid.insert(name, got);
        }
    }
    let otherwise = BTreeMap::from([
        // 5 are wanted of 7; we look at 8.
        ("02-too_many_headers", 7),
        // 2 are wanted: a selector with two keys, of which the library takes the first.
        ("07-algo_mismatch", 1),
        // 3 are wanted: one has a body length limit, which proves too little.
        ("09-limited_body", 2),
    ]);
    assert_eq!(valid, otherwise);
}

#[tokio::test]
async fn arc() {
    let Some(files) = vectors("arc-valimail.tar.zst") else { return };
    // Two vectors have the same name.
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    let text_of_all = &files["arc-draft-validation-tests.yml"];
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text_of_all, options).unwrap();
    let mut count = Count::default();
    for document in &documents {
        let records = document["txt-records"].as_object().cloned().unwrap_or_default();
        let zone = records.into_iter().map(|(name, value)| (name, vec![("TXT".to_owned(), value)])).collect();
        let score = score(zone);
        for (name, test) in document["tests"].as_object().unwrap() {
            let mail = text(&test["message"]);
            let headers = headers(&score, [192, 0, 2, 1].into(), "mx.example", "a@b.example", &mail).await;
            let got = results(&headers, "arc").first().map_or("none", |word| *word).to_owned();
            count.add(name, &[text(&test["cv"]).to_ascii_lowercase()], &got);
        }
    }
    let passed = [
        "ams_fields_a_na",
        "ams_fields_a_sha1",
        "ams_fields_h_includes_as",
        "as_fields_a_na",
        "as_fields_a_sha1",
        "as_format_inv_tag_key",
        "as_format_tags_dup",
        "as_format_tags_key_case",
        "as_format_tags_sc",
    ];
    count.is(171, &passed, &["ams_fields_c_na", "ams_fields_h_empty"]);
}

/// Who chooses a name server that says nothing loses what it could have proven; what its mail pretends is still looked
/// into.
#[tokio::test]
async fn a_silent_name_server_hides_nothing() {
    let silent = || vec![("TIMEOUT".to_owned(), Value::Null)];
    let txt = |text: &str| vec![("TXT".to_owned(), text.into())];
    let zone = Zone::from([
        ("evil.example".to_owned(), silent()),
        ("s._domainkey.evil.example".to_owned(), silent()),
        ("victim.example".to_owned(), txt("v=spf1 -all")),
        ("_dmarc.victim.example".to_owned(), txt("v=DMARC1; p=reject")),
    ]);
    let score = score(zone);
    let signature = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=evil.example; s=s; h=from; \
                     bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n";
    let mail = format!("{signature}From: a@victim.example\r\n\r\n");
    let headers = headers(&score, [192, 0, 2, 1].into(), "mx.evil.example", "a@evil.example", &mail).await;
    for (method, word) in [("spf", "temperror"), ("dkim", "temperror"), ("dmarc", "fail")] {
        assert_eq!(results(&headers, method), [word], "{headers}");
    }
    assert!(headers.contains("DMARC_REJECT"), "{headers}");
}

/// DMARC depends on all others, and may have to ask many times in a row.
#[tokio::test]
async fn a_slow_name_server_has_time_for_dmarc() {
    let policy = || vec![("TXT".to_owned(), "v=DMARC1; p=reject".into())];
    let names = ["_dmarc.a.b.victim.example", "_dmarc.b.victim.example", "_dmarc.victim.example", "_dmarc.example"];
    let mut zone: Zone = names.into_iter().map(|name| (name.to_owned(), policy())).collect();
    // Of the twelve seconds SPF has nine, and DMARC needs one.
    zone.insert("evil.test".to_owned(), vec![("TIMEOUT".to_owned(), Value::Null)]);
    let score = score_slowly(zone, Duration::from_millis(250), "12s");
    let mail = "From: a@a.b.victim.example\r\n\r\n";
    let headers = headers(&score, [192, 0, 2, 1].into(), "mx.evil.test", "a@evil.test", mail).await;
    assert_eq!(results(&headers, "dmarc"), ["fail"], "{headers}");
}

/// A header of two megabytes must not become one of ours of that size.
#[tokio::test]
async fn what_a_sender_writes_is_told_in_few_words() {
    let score = score(Zone::new());
    let signatures = "DKIM-Signature:a=x\r\n".repeat(13_000);
    let mail = format!("{signatures}From: a@b.example\r\n\r\n");
    let told = headers(&score, [192, 0, 2, 1].into(), "mx.example", "a@b.example", &mail).await;
    assert_eq!(results(&told, "dkim"), ["neutral"; 8], "{}", told.len());
    let mail = format!("From: a@{}example\r\n\r\n", "b.".repeat(500_000));
    let told = headers(&score, [192, 0, 2, 1].into(), "mx.example", "a@b.example", &mail).await;
    assert!(told.len() < 32 * 1024, "{}", told.len());
    assert_eq!(results(&told, "spf"), ["none"], "{}", told.len());
}
