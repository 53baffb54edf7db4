//! Readers who wait: what happens to a mailbox reaches those who have it open.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tests::chain::{Chain, Clamd};
use tests::clients::Smtp;

struct Imap(BufReader<TcpStream>);

impl Imap {
    fn open(chain: &Chain) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", chain.imap)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(80))).unwrap();
        let mut imap = Self(BufReader::new(stream));
        imap.say("a LOGIN alice@example.org chainmail");
        imap.hear("a OK");
        imap.say("b SELECT INBOX");
        imap.hear("b OK");
        imap
    }

    fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    /// Reads up to a line that begins so, and gives it.
    #[track_caller]
    fn hear(&mut self, begin: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the connection ended before {begin:?}");
            if line.starts_with(begin) {
                return line;
            }
        }
    }
}

#[test]
fn a_delivered_mail_reaches_who_is_idle() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    let (mut idle, mut other) = (Imap::open(&chain), Imap::open(&chain));
    idle.say("c IDLE");
    idle.hear("+ ");
    let body = b"From: a@b.example\r\nSubject: live\r\n\r\nlive\r\n";
    Smtp::connect(&chain).send("a@b.example", &["alice@example.org"], body);
    idle.hear("* 1 EXISTS");
    other.say("d NOOP");
    other.hear("* 1 EXISTS");
    other.say("e STORE 1 +FLAGS (\\Flagged \\Deleted)");
    assert_eq!(idle.hear("* 1 FETCH"), "* 1 FETCH (FLAGS (\\Flagged \\Deleted \\Recent))\r\n");
    other.say("f EXPUNGE");
    idle.hear("* 1 EXPUNGE");
    idle.say("DONE");
    idle.hear("c OK");
}

/// Ten thousand are to fit into half a gigabyte: 50 KB each, of which this sees what the process has of its own.
#[test]
fn readers_who_wait_take_little_memory() {
    let count: u64 = 800;
    let clamd = Clamd::start();
    let many = serde_json::json!(100_000);
    let limits = [("/stages/store/per_address", many.clone()), ("/stages/store/per_account", many)];
    let chain = Chain::start_all_with(&clamd, &limits);
    let wait = |count: u64| -> Vec<Imap> {
        let mut waiting: Vec<Imap> = (0..count).map(|_| Imap::open(&chain)).collect();
        waiting.iter_mut().for_each(|imap| imap.say("c IDLE"));
        waiting.iter_mut().for_each(|imap| drop(imap.hear("+ ")));
        waiting
    };
    // What is made once is made by these.
    let _first = wait(50);
    let before = chain.memory("all");
    let _waiting = wait(count);
    let each = chain.memory("all").saturating_sub(before) / count;
    assert!(each < 50_000, "{each} bytes for each reader");
}
