//! What was promised is on the disk before it is promised: seen in the system calls of the whole chain.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::json;
use tests::chain::{Chain, Clamd, wait_for};
use tests::clients::{Smtp, eicar};
use tests::trace::{Files, Trace};

/// One thing after another, so that whatever is not synced belongs to what is said.
#[test]
fn everything_is_synced_before_it_is_promised() {
    let clamd = Clamd::start();
    let chain = Chain::start_all_with(&clamd, &[("/stages/accept/verdict_wait", json!("1min"))]);
    let trace = Trace::of(chain.process("all"), chain.folder());
    let send = |body: &[u8]| Smtp::connect(&chain).send("s@elsewhere.example", &["alice@example.org"], body);
    assert!(send(&eicar()).starts_with("550 5.7.1 "));
    chain.settles();
    assert!(send(b"Subject: mail\r\n\r\ntext\r\n").starts_with("250 2.0.0 "));
    chain.settles();
    wait_for("the mail", || chain.read("alice@example.org").len() == 1);
    append(&chain);
    let calls = trace.ends();
    // A reply is said by itself, a word to the broker perhaps behind others, and again when it was not confirmed in
    // time.
    for (said, is_reply, kind) in [
        ("\"550 5.7.1 ", true, ".marks"),
        ("\"250 2.0.0 Ok: kept", true, ".mail"),
        ("PUB mail.ended.", false, "/shard.db-wal"),
        ("\"b OK [APPENDUID ", true, "/shard.db-wal"),
    ] {
        let seen = calls.files_at(said);
        assert!(seen.len() == 1 || !is_reply && !seen.is_empty(), "{said:?} was said {} times", seen.len());
        for Files { unsynced, synced } in &seen {
            assert!(
                synced.iter().any(|path| path.ends_with(kind)),
                "{said:?} was said, and no {kind} seen to be synced"
            );
            let unsynced: Vec<_> = unsynced.iter().filter(|path| path.ends_with(kind)).collect();
            assert!(unsynced.is_empty(), "{said:?} was said, and {unsynced:?} not synced");
        }
    }
}

fn append(chain: &Chain) {
    let mut imap = BufReader::new(TcpStream::connect(("127.0.0.1", chain.imap)).unwrap());
    let mut say = |line: &str, answer: &str| {
        imap.get_mut().write_all(line.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert!(imap.read_line(&mut line).unwrap() > 0, "no answer");
            if line.starts_with(answer) {
                return;
            }
        }
    };
    say("a LOGIN alice@example.org chainmail\r\n", "a OK");
    say("b APPEND INBOX {15+}\r\nSubject: x\r\n\r\ny\r\n", "b OK");
}
