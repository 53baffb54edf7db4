//! The promise: a mail answered with 250 is delivered exactly once, and nothing reaches a mailbox unscanned, whatever
//! is killed, wiped or taken away. Every test ends with the books.
//!
//! Real parts only: the `chainmail` binary, nats-server, clamd. The seed of every test is printed, and can be given
//! again in CHAINMAIL_SEED.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tests::chain::{Chain, Clamd, PARTS, wait_for};
use tests::clients::{Smtp, eicar};
use tests::load::Load;

/// Kills in each test. Over all tests of this file there are more than fifty.
const ROUNDS: u32 = 10;

fn random() -> StdRng {
    let seed = std::env::var("CHAINMAIL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("CHAINMAIL_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn a_while(random: &mut StdRng) -> Duration {
    Duration::from_millis(random.random_range(200..1200))
}

#[test]
fn a_mail_comes_through_byte_for_byte() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    let body = b"Subject: odd\r\n\r\n.dot\r\n..two\r\n\x00\xff\x80 raw\r\n\r\nno more\r\n";
    let reply = Smtp::connect(&chain).send("s@elsewhere.example", &["alice@example.org"], body);
    assert!(reply.starts_with("250 2.0.0 Ok: kept as "), "{reply}");
    chain.settles();
    let mails = chain.read("alice@example.org");
    assert_eq!(mails.len(), 1);
    let at = mails[0].windows(body.len()).position(|part| part == body).expect("the body is there unaltered");
    assert_eq!(at + body.len(), mails[0].len(), "and nothing follows it");
    let prefix = String::from_utf8(mails[0][..at].to_vec()).unwrap();
    for wanted in
        ["Return-Path: <s@elsewhere.example>\r\n", "Delivered-To: alice@example.org\r\n", "X-Chainmail-Scan: clean\r\n"]
    {
        assert!(prefix.contains(wanted), "{prefix}");
    }
    chain.books(&[("accepted", 1), ("stored", 1)]);
}

#[test]
fn a_virus_is_refused_in_the_session() {
    let clamd = Clamd::start();
    let chain = Chain::start_all_with(&clamd, &[("/stages/accept/verdict_wait", json!("1min"))]);
    let reply = Smtp::connect(&chain).send("s@elsewhere.example", &["alice@example.org"], &eicar());
    assert!(reply.starts_with("550 5.7.1 Message refused: virus found: Eicar"), "{reply}");
    chain.settles();
    assert!(chain.read("alice@example.org").is_empty());
    chain.books(&[("accepted", 1), ("rejected", 1), ("stored", 0)]);
}

#[test]
fn a_virus_that_was_accepted_is_held_and_can_be_released() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    clamd.pause();
    let reply = Smtp::connect(&chain).send("s@elsewhere.example", &["alice@example.org"], &eicar());
    assert!(reply.starts_with("250 "), "the verdict did not come in time: {reply}");
    clamd.resume();
    chain.settles();
    assert!(chain.read("alice@example.org").is_empty());
    assert_eq!(chain.read("quarantine@example.org").len(), 1);
    chain.books(&[("accepted", 1), ("held", 1)]);
    let listed = chain.command(&["held", "list"]);
    assert!(listed.contains("for alice@example.org") && listed.contains("virus found: Eicar"), "{listed}");
    let number = listed.split(' ').next().unwrap().to_owned();
    assert_eq!(chain.command(&["held", "release", &number]), "done\n");
    assert_eq!(chain.read("alice@example.org").len(), 1);
    assert!(chain.read("quarantine@example.org").is_empty());
}

#[test]
fn who_does_not_exist_is_refused() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    for (recipient, want) in [
        ("nobody@example.org", "550 5.1.1"),
        ("alice@elsewhere.example", "550 5.7.1"),
        ("quarantine@example.org", "550 5.1.1"),
    ] {
        let mut smtp = Smtp::connect(&chain);
        smtp.command("MAIL FROM:<s@elsewhere.example>");
        let reply = smtp.command(&format!("RCPT TO:<{recipient}>"));
        assert!(reply.starts_with(want), "{recipient}: {reply}");
    }
    chain.command(&["account", "suspend", "bob@example.org"]);
    let mut smtp = Smtp::connect(&chain);
    smtp.command("MAIL FROM:<s@elsewhere.example>");
    assert!(smtp.command("RCPT TO:<bob@example.org>").starts_with("550 5.2.1"));
    chain.books(&[("accepted", 0)]);
}

#[test]
fn the_whole_chain_is_killed() {
    let mut random = random();
    let clamd = Clamd::start();
    let mut chain = Chain::start_all(&clamd);
    let load = Load::start(&chain, 12);
    for _ in 0..ROUNDS {
        std::thread::sleep(a_while(&mut random));
        chain.kill("all");
        chain.start("all");
    }
    load.proves(&chain);
}

#[test]
fn each_stage_is_killed() {
    let mut random = random();
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts(&clamd);
    let load = Load::start(&chain, 12);
    for round in 0..3 * ROUNDS {
        std::thread::sleep(a_while(&mut random));
        let part = PARTS[usize::try_from(round).unwrap() % PARTS.len()];
        chain.kill(part);
        chain.start(part);
    }
    load.proves(&chain);
}

#[test]
fn the_broker_is_killed() {
    let mut random = random();
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts(&clamd);
    let load = Load::start(&chain, 12);
    for _ in 0..ROUNDS {
        std::thread::sleep(a_while(&mut random));
        chain.kill("nats");
        chain.start("nats");
    }
    load.proves(&chain);
}

#[test]
fn the_broker_loses_its_disk() {
    let mut random = random();
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts(&clamd);
    let load = Load::start(&chain, 12);
    for _ in 0..5 {
        std::thread::sleep(a_while(&mut random));
        chain.kill("nats");
        chain.wipe_broker();
        chain.start("nats");
    }
    load.proves(&chain);
}

/// Whoever starts while the broker cannot do what it is asked waits for it, as those do that run already: a stage that
/// was started again in the middle of a fault ended with an error, and the mail for it waited for somebody to see that.
#[test]
fn a_program_starts_while_the_broker_is_in_disorder() {
    let clamd = Clamd::start();
    let mut chain = Chain::prepare(&clamd, &[("/broker/embedded", json!(false))]);
    chain.start("nats");
    chain.publish("$JS.API.STREAM.CREATE.OTHER", r#"{"name": "OTHER", "subjects": ["mail.scan"]}"#);
    chain.start_again("all");
    wait_for("the disorder to be told", || chain.log("all").contains("the streams are not in order yet"));
    chain.delete_stream("OTHER");
    wait_for("/ready", || chain.ready().starts_with("HTTP/1.1 200"));
    Load::start(&chain, 4).proves(&chain);
}

/// Whoever waits for the broker at the start ends when it is asked to: it was deaf for two minutes.
#[test]
fn a_program_that_waits_for_the_broker_is_asked_to_end() {
    let clamd = Clamd::start();
    let mut chain = Chain::prepare(&clamd, &[("/broker/embedded", json!(false))]);
    chain.start_again("all");
    wait_for("it to wait", || chain.ready().starts_with("HTTP/1.1 503"));
    let began = Instant::now();
    chain.stop("all");
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

#[test]
fn a_stream_that_could_lose_mail_is_refused_at_once() {
    let clamd = Clamd::start();
    let mut chain = Chain::prepare(&clamd, &[("/broker/embedded", json!(false))]);
    chain.start("nats");
    let stream = r#"{"name": "SCORE", "subjects": ["mail.score"], "retention": "workqueue", "storage": "memory"}"#;
    chain.publish("$JS.API.STREAM.CREATE.SCORE", stream);
    chain.start_again("all");
    let refusal = "chainmail: stream SCORE: it keeps its messages in memory; delete it or set storage to file";
    wait_for("the refusal", || chain.log("all").contains(refusal));
    assert!(!chain.log("all").contains("the streams are not in order yet"), "{}", chain.log("all"));
}

/// What was in it comes again at once, not when the journal would have sent it round anyway.
#[test]
fn a_stream_is_deleted() {
    let clamd = Clamd::start();
    let settings = [("/stages/scan/work", json!({"workers": 1})), ("/stages/accept/verdict_wait", json!("300ms"))];
    let mut chain = Chain::start_parts_with(&clamd, &settings);
    let load = Load::start(&chain, 12);
    for stream in ["SCAN", "BODIES", "STORE", "ENDED"] {
        let before = load.so_far();
        wait_for("mail to flow", || load.so_far() > before + 20);
        // More than the stage has in hand waits in the stream.
        clamd.pause();
        let before = load.so_far();
        wait_for("mail to wait", || load.so_far() > before + 20);
        chain.delete_stream(stream);
        clamd.resume();
    }
    chain.kill("score");
    chain.delete_stream("SCORE");
    chain.start("score");
    load.proves(&chain);
}

/// Its files are deleted while it runs, and it is left alone.
#[test]
fn the_brokers_files_are_deleted_under_it() {
    let mut random = random();
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    let load = Load::start(&chain, 12);
    for _ in 0..3 {
        std::thread::sleep(a_while(&mut random));
        chain.wipe_broker();
    }
    load.proves(&chain);
}

#[test]
fn the_scanner_is_taken_away() {
    let mut random = random();
    let mut clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    let load = Load::start(&chain, 12);
    for _ in 0..3 {
        std::thread::sleep(a_while(&mut random));
        clamd.kill();
        std::thread::sleep(a_while(&mut random));
        clamd.restart();
    }
    load.proves(&chain);
}

/// A rejected mail waits for its accept node to decide, and others are scanned meanwhile. A worker that waited itself
/// would be held up for ten seconds; a busy machine may be slow once, but not each time.
#[test]
fn accept_decides_nothing_for_a_while() {
    let is_held_up = (0..3).all(|_| scanned_while_accept_is_stopped() > Duration::from_secs(8));
    assert!(!is_held_up, "it waited each time");
}

/// How long a clean mail waits behind three that are rejected.
fn scanned_while_accept_is_stopped() -> Duration {
    let clamd = Clamd::start();
    let settings = [("/stages/scan/work", json!({"workers": 2})), ("/stages/accept/verdict_wait", json!("100ms"))];
    let chain = Chain::start_parts_with(&clamd, &settings);
    clamd.pause();
    let clean = b"Subject: clean\r\n\r\nclean\r\n".to_vec();
    for (number, body) in [eicar(), eicar(), eicar(), clean].iter().enumerate() {
        let sender = format!("s{number}@elsewhere.example");
        wait_for("a 250", || {
            Smtp::try_connect(chain.smtp)
                .and_then(|mut smtp| smtp.try_send(&sender, &["alice@example.org"], body))
                .is_ok_and(|reply| reply.starts_with("250 "))
        });
    }
    chain.signal("accept", Signal::SIGSTOP);
    let began = Instant::now();
    clamd.resume();
    wait_for("the clean mail", || chain.read("alice@example.org").len() == 1);
    let waited = began.elapsed();
    chain.signal("accept", Signal::SIGCONT);
    chain.settles();
    chain.books(&[("accepted", 4), ("held", 3), ("stored", 1)]);
    waited
}

#[test]
fn a_stage_is_away_for_a_while() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts(&clamd);
    let load = Load::start(&chain, 12);
    for part in ["store", "deliver", "scan"] {
        chain.kill(part);
        let before = load.so_far();
        wait_for("mail to be kept meanwhile", || load.so_far() > before + 24);
        chain.start(part);
    }
    load.proves(&chain);
}

/// Scoring asks name servers that say nothing, and does so for one mail at a time: a process does ten mails a second,
/// which is little for any machine, and each further one adds as many. A machine that is busy with other things for a
/// while does not show it: then it is measured again.
#[test]
fn a_pool_is_doubled_and_halved_under_load() {
    let clamd = Clamd::start();
    // Whoever is silent so often is left alone, and the pool with it.
    let settings = [
        ("/stages/score/work", json!({"workers": 1})),
        ("/stages/score/deadline", json!("100ms")),
        ("/stages/score/silent_after", json!(1000)),
        ("/stages/score/silent_for", json!("100ms")),
    ];
    let mut chain = Chain::start_parts_with(&clamd, &settings);
    let load = Load::start(&chain, 24);
    let rate = || {
        // What was begun under another number of processes is over by then.
        let behind = load.so_far() + 30;
        wait_for("mail to flow", || load.so_far() >= behind);
        let (begun, before) = (Instant::now(), load.so_far());
        wait_for("mail to flow", || load.so_far() >= before + 40);
        (load.so_far() - before) as f64 / begun.elapsed().as_secs_f64()
    };
    let mut shows = || {
        let one = rate();
        chain.start_again("score");
        let two = rate();
        chain.stop("score");
        let one_again = rate();
        println!("{one:.1}/s, doubled {two:.1}/s, halved {one_again:.1}/s");
        two > one * 1.4 && one_again < two / 1.4
    };
    assert!((0..5).any(|_| shows()), "five times it made no difference");
    load.proves(&chain);
}

#[test]
fn two_processes_share_a_stage() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts(&clamd);
    chain.start_again("scan");
    chain.start_again("deliver");
    let load = Load::start(&chain, 12);
    wait_for("mail to flow", || load.so_far() > 20);
    chain.kill("scan");
    let before = load.so_far();
    wait_for("mail to flow on", || load.so_far() > before + 20);
    load.proves(&chain);
}
