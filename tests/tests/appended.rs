//! Many messages in one APPEND while the store is killed (RFC 3502): all of them are kept, or none.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;
use tests::chain::{Chain, Clamd, wait_for};
use tests::imaptest::Session;
use tests::people::{Person, subject};

/// Clients that append at once.
const CLIENTS: usize = 6;
/// Messages of each command.
const MESSAGES: usize = 20;
/// How often the store is killed.
const KILLS: usize = 4;

fn login(port: u16) -> std::io::Result<Session> {
    let mut session = Session::connect(port)?;
    let login = format!("LOGIN {} {}", Person::ADDRESS, Person::PASSWORD);
    session.must(login.as_bytes()).map_err(std::io::Error::other)?;
    Ok(session)
}

/// An APPEND of messages that say to which command they belong, each of another size: some need several packets.
fn command(name: &str) -> Vec<u8> {
    let mut command = b"APPEND INBOX".to_vec();
    for at in 0..MESSAGES {
        let text = format!("Subject: {name} {at}\r\n\r\n{}\r\n", "text ".repeat(at * 97));
        command.extend(format!(" (\\Seen) {{{}+}}\r\n{text}", text.len()).into_bytes());
    }
    command
}

/// Appends until the end, and notes for each command whether it was answered with OK. Whatever breaks off is tried no
/// more: the next one is another.
fn append(port: u16, client: usize, is_over: &AtomicBool, done: &AtomicUsize, all: &Mutex<BTreeMap<String, bool>>) {
    let mut session = None;
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        if session.is_none() {
            wait_for("the store", || {
                session = login(port).ok();
                session.is_some()
            });
        }
        let name = format!("{client}-{number}");
        all.lock().unwrap().insert(name.clone(), false);
        match session.as_mut().unwrap().command(&command(&name)) {
            Ok(replies) => {
                let said = String::from_utf8(replies.last().unwrap().clone()).unwrap();
                assert!(said.starts_with("OK [APPENDUID "), "{said}");
                all.lock().unwrap().insert(name, true);
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => session = None,
        }
    }
}

/// How many messages of each command are there.
fn found(port: u16) -> BTreeMap<String, Vec<usize>> {
    let mut session = login(port).unwrap();
    session.must(b"EXAMINE INBOX").unwrap();
    let replies = session.must(b"UID FETCH 1:* BODY.PEEK[HEADER.FIELDS (SUBJECT)]").unwrap();
    let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for reply in replies.iter().map(|reply| String::from_utf8_lossy(reply)).filter(|reply| reply.contains("FETCH (")) {
        let subject = subject(&reply);
        let (name, at) = subject.split_once(' ').unwrap();
        found.entry(name.to_owned()).or_default().push(at.parse().unwrap());
    }
    found
}

#[test]
fn messages_of_one_append_are_kept_all_or_none_when_the_store_is_killed() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_all_with(&clamd, &[("/stages/store/shards", json!(1))]);
    let (is_over, done, all) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let port = chain.imap;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (is_over, done, all) = (&is_over, &done, &all);
            scope.spawn(move || append(port, client, is_over, done, all));
        }
        for _ in 0..KILLS {
            let before = done.load(Ordering::Relaxed);
            wait_for("some commands", || done.load(Ordering::Relaxed) >= before + 2 * CLIENTS);
            chain.kill("all");
            chain.start("all");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    wait_for("the chain", || chain.ready().starts_with("HTTP/1.1 200"));
    let (found, all) = (found(port), all.into_inner().unwrap());
    let broken = all.iter().filter(|(_, is_done)| !**is_done);
    for (name, is_done) in &all {
        match found.get(name) {
            Some(messages) => {
                assert_eq!(*messages, (0..MESSAGES).collect::<Vec<_>>(), "{name}: some of them, or twice")
            }
            None => assert!(!is_done, "{name} was answered with OK and is not there"),
        }
    }
    assert!(broken.count() >= KILLS, "nothing was under way when the store was killed");
    assert!(found.keys().all(|name| all.contains_key(name)));
}
