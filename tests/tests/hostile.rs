//! Senders that misbehave, by mistake or on purpose: each gets a clear reply or none, nothing grows, nothing is
//! smuggled, and the next client is served.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use serde_json::json;
use tests::chain::{Chain, Clamd, wait_for};
use tests::clients::Smtp;

/// What a process may grow by under one such sender, in bytes.
const GROWTH: u64 = 64 << 20;

fn opened(chain: &Chain) -> Smtp {
    let mut smtp = Smtp::connect(chain);
    assert!(smtp.command("MAIL FROM:<s@elsewhere.example>").starts_with("250"));
    assert!(smtp.command("RCPT TO:<alice@example.org>").starts_with("250"));
    assert!(smtp.command("DATA").starts_with("354"));
    smtp
}

/// A plain mail goes through: the chain is well.
fn is_served(chain: &Chain) {
    let reply =
        Smtp::connect(chain).send("s@elsewhere.example", &["bob@example.org"], b"Subject: fine\r\n\r\nfine\r\n");
    assert!(reply.starts_with("250 "), "{reply}");
}

#[test]
fn nothing_is_smuggled() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    let second =
        "MAIL FROM:<evil@elsewhere.example>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nhi";
    for end in ["\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r.\r\n", "\r\n.\r", "\r\r\n.\r\r\n", "\n\n.\r\n"] {
        let mut smtp = opened(&chain);
        let reply = smtp.say(format!("Subject: outer\r\n\r\nx{end}{second}\r\n.\r\n").as_bytes()).unwrap();
        assert!(reply.starts_with("550 5.6.11 Message refused: every line must end"), "{end:?}: {reply}");
        let reply = smtp.command("NOOP");
        assert!(reply.starts_with("250"), "{end:?}: it answered more than one message: {reply}");
    }
    is_served(&chain);
    chain.settles();
    assert!(chain.read("alice@example.org").is_empty());
    chain.books(&[("accepted", 1), ("stored", 1)]);
}

#[test]
fn what_never_ends_is_bounded() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    is_served(&chain);
    let before = chain.memory("all");
    let long = vec![b'x'; 1 << 20];
    let mut smtp = Smtp::connect(&chain);
    for _ in 0..40 {
        if smtp.stream().write_all(&long).is_err() {
            break;
        }
    }
    let reply = smtp.say(b"\r\n").unwrap_or_default();
    assert!(reply.is_empty() || reply.starts_with("500 5.5") || reply.starts_with("421 "), "a command: {reply}");
    let mut smtp = opened(&chain);
    for _ in 0..60 {
        smtp.stream().write_all(&long).unwrap();
    }
    let reply = smtp.say(b"\r\n.\r\n").unwrap();
    assert!(reply.starts_with('5'), "a line: {reply}");
    let mut smtp = opened(&chain);
    let fields = "X-Field: value value value value value value value value value value\r\n".repeat(10_000);
    for _ in 0..60 {
        smtp.stream().write_all(fields.as_bytes()).unwrap();
    }
    let reply = smtp.say(b"\r\n.\r\n").unwrap();
    assert!(reply.starts_with('5'), "a header: {reply}");
    let grown = chain.memory("all").saturating_sub(before);
    assert!(grown < GROWTH, "grown by {grown} bytes");
    is_served(&chain);
    chain.settles();
}

#[test]
fn ten_thousand_recipients() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    let mut smtp = Smtp::connect(&chain);
    assert!(smtp.command("MAIL FROM:<s@elsewhere.example>").starts_with("250"));
    let mut taken = 0;
    for number in 0..10_000 {
        let Ok(reply) = smtp.say(format!("RCPT TO:<alice+{number}@example.org>\r\n").as_bytes()) else { break };
        match reply.get(..3) {
            Some("250") => taken += 1,
            Some("452" | "421") => {}
            _ => panic!("{reply}"),
        }
    }
    assert!((100..10_000).contains(&taken), "RFC 5321 section 4.5.3.1.8 asks for 100 and more: {taken}");
    is_served(&chain);
}

#[test]
fn commands_where_they_do_not_belong() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    let mut smtp = Smtp::connect(&chain);
    for (command, want) in [
        ("DATA", "503 5.5.1"),
        ("RCPT TO:<alice@example.org>", "503 5.5.1"),
        ("MAIL FROM:<a@b.example", "501 5.1.7"),
        ("MAIL TO:<a@b.example>", "501 5.5.4"),
        ("AUTH PLAIN AGFsaWNlAGNoYWlubWFpbA==", "50"),
        ("ETRN example.org", "50"),
        ("GET / HTTP/1.1", "554"),
    ] {
        let reply = smtp.command(command);
        assert!(reply.starts_with(want), "{command}: {reply}");
    }
    // Whatever stands behind STARTTLS in the same packet was not said over TLS, and is not answered.
    let mut smtp = Smtp::connect(&chain);
    let reply = smtp.say(b"STARTTLS\r\nMAIL FROM:<evil@elsewhere.example>\r\n").unwrap();
    assert!(reply.starts_with("220 ") || reply.starts_with('5'), "{reply}");
    smtp.stream().set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let next = smtp.reply().unwrap_or_default();
    assert!(!next.starts_with("250"), "it was taken: {next}");
    is_served(&chain);
}

#[test]
fn garbage() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..30 {
        let mut bytes = vec![0; 20_000];
        random.fill_bytes(&mut bytes);
        let mut stream = TcpStream::connect(("127.0.0.1", chain.smtp)).unwrap();
        let _ = stream.write_all(&bytes);
        let mut smtp = opened(&chain);
        bytes.retain(|&byte| byte != b'\r' && byte != b'\n');
        smtp.stream().write_all(&bytes[..900]).unwrap();
        let reply = smtp.say(b"\r\n.\r\n").unwrap();
        assert!(reply.starts_with("250 ") || reply.starts_with('5'), "{reply}");
    }
    is_served(&chain);
    chain.settles();
    assert!(!chain.log("all").contains("panicked at stages/"), "our own code panicked");
    chain.books(&[("accepted", 31), ("buried", 0)]);
}

#[test]
fn who_says_nothing_is_told_so() {
    let clamd = Clamd::start();
    let chain = Chain::start_all_with(&clamd, &[("/stages/accept/idle", json!("4s"))]);
    let mut smtp = Smtp::connect(&chain);
    let reply = smtp.reply().unwrap();
    assert!(reply.starts_with("421 4.4.2"), "{reply}");
    let mut smtp = opened(&chain);
    smtp.stream().write_all(b"Subject: slow").unwrap();
    let reply = smtp.reply().unwrap();
    assert!(reply.starts_with("421 4.4.2"), "{reply}");
    is_served(&chain);
    chain.settles();
    chain.books(&[("accepted", 1)]);
}

/// Whether the gate and accept share a process or a connection: who sends and sends hears why it is over.
#[test]
fn the_last_word_reaches_who_does_not_listen() {
    let clamd = Clamd::start();
    for chain in [Chain::start_all(&clamd), Chain::start_parts(&clamd)] {
        wait_for("accept", || Smtp::try_connect(chain.smtp).is_ok());
        let stream = TcpStream::connect(("127.0.0.1", chain.smtp)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut says, mut hears, mut heard) = (stream.try_clone().unwrap(), stream, Vec::new());
        let sender = std::thread::spawn(move || while says.write_all(&b"NONSENSE\r\n".repeat(500)).is_ok() {});
        // What comes behind the last word is of no interest.
        let _ = hears.read_to_end(&mut heard);
        let heard = String::from_utf8_lossy(&heard);
        let last = heard.lines().last().unwrap();
        assert!(last.starts_with("421 4.7.0 "), "{last}");
        let _ = hears.shutdown(Shutdown::Both);
        sender.join().unwrap();
        is_served(&chain);
    }
}

#[test]
fn a_connection_that_breaks_off_anywhere() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    let dialogue = "EHLO client.example\r\nMAIL FROM:<s@elsewhere.example>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n\
                    Subject: cut\r\n\r\ntext\r\n.\r\nQUIT\r\n";
    for length in 0..=dialogue.len() {
        let mut stream = TcpStream::connect(("127.0.0.1", chain.smtp)).unwrap();
        let _ = stream.write_all(&dialogue.as_bytes()[..length]);
        if length % 2 == 0 {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
    is_served(&chain);
    chain.settles();
    assert!(!chain.log("all").contains("panicked at stages/"), "our own code panicked");
    // Only dialogues with the whole end of the message may have brought it, and all of them brought the same mail: one
    // whose sender never heard the reply is the same as the next.
    let got = chain.read("alice@example.org").len();
    assert!((1..=8).contains(&got), "{got}");
}
