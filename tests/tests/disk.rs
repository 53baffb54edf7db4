//! The disk of the journal or of the broker is full, the directory is locked, or gone: senders are told to come again,
//! what was answered with 250 is delivered, and all is well again when the cause ends.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use serde_json::json;
use tests::chain::{Chain, Clamd, wait_for};
use tests::clients::Smtp;
use tests::load::Load;

fn send(chain: &Chain, number: usize) -> String {
    let body = format!("Subject: mail {number}\r\n\r\n{}\r\n", "text ".repeat(4000));
    Smtp::connect(chain).send("s@elsewhere.example", &["alice@example.org"], body.as_bytes())
}

/// A sector at a time, until nothing fits any more.
fn fill(filler: &Path) -> fs::File {
    let mut full = fs::File::create(filler).unwrap();
    while std::io::Write::write_all(&mut full, &[0; 4096]).is_ok() {}
    full
}

/// `min_free` is given: 0 leaves the disk to fill up to its last byte, so that the journal's write itself fails.
fn fills_up(min_free: &str) {
    let clamd = Clamd::start();
    let settings = [
        ("/stages/accept/journal/min_free", json!(min_free)),
        ("/stages/accept/journal/segment", json!("256KiB")),
        ("/stages/accept/verdict_wait", json!("300ms")),
    ];
    let chain = Chain::start_all_on_small_disk(&clamd, "8m", &settings);
    let filler = chain.path_within("all", "var/journal/filler");
    assert!(send(&chain, 0).starts_with("250 "));
    let mut kept = 1;
    let full = fill(&filler);
    let mut refused = 0;
    for number in 1..20 {
        let reply = send(&chain, number);
        match reply.get(..9) {
            Some(code) if code.starts_with("250 ") => kept += 1,
            Some("452 4.3.1" | "451 4.3.0") => refused += 1,
            _ => panic!("{reply}"),
        }
    }
    assert!(refused > 10, "only {refused} refused");
    drop(full);
    fs::remove_file(&filler).unwrap();
    wait_for("accepting again", || {
        let again = send(&chain, 1000 + kept).starts_with("250 ");
        kept += usize::from(again);
        again
    });
    chain.settles();
    assert_eq!(chain.read("alice@example.org").len(), kept);
    let kept = kept as u64;
    chain.books(&[("accepted", kept), ("stored", kept)]);
}

#[test]
fn the_journal_leaves_room_on_its_disk() {
    fills_up("2MiB");
}

#[test]
fn the_journals_disk_is_full_to_the_last_byte() {
    fills_up("0");
}

/// The streams of a broker whose disk was full take nothing until it is started again. That is done as soon as there is
/// room; until then mail is kept in the journal.
#[test]
fn the_brokers_disk_is_full() {
    let clamd = Clamd::start();
    let settings = [("/broker/publish_timeout", json!("1s")), ("/stages/accept/verdict_wait", json!("300ms"))];
    let chain = Chain::start_all_with_small_disk(&clamd, "var/nats", "64m", &settings);
    let load = Load::start(&chain, 8);
    wait_for("mail to flow", || load.so_far() > 50);
    let filler = chain.path_within("all", "var/nats/filler");
    let full = fill(&filler);
    wait_for("/ready to say so", || chain.ready().contains("KiB left: make room; mail waits in the journal"));
    let before = load.so_far();
    wait_for("mail to be kept meanwhile", || load.so_far() > before + 20);
    drop(full);
    fs::remove_file(&filler).unwrap();
    wait_for("the chain to be well again", || chain.ready().starts_with("HTTP/1.1 200"));
    load.proves(&chain);
}

/// Somebody writes to the directory's database and does not end: readers go on, writers are told.
#[test]
fn the_directory_is_locked() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    let load = Load::start(&chain, 8);
    let lock = "import sqlite3, sys\nc = sqlite3.connect('var/directory.db', isolation_level=None)\n\
                c.execute('begin immediate')\nprint('locked', flush=True)\nsys.stdin.read()\n";
    let mut locker = std::process::Command::new("python3")
        .args(["-c", lock])
        .current_dir(chain.folder())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(locker.stdout.take().unwrap()), &mut said).unwrap();
    assert_eq!(said, "locked\n");
    let before = load.so_far();
    wait_for("mail to flow while the directory is locked", || load.so_far() > before + 50);
    drop(locker.stdin.take());
    locker.wait().unwrap();
    chain.command(&["account", "list"]);
    load.proves(&chain);
}

/// The directory's files hold nothing that can be read: who is known is served, about the others nobody says a final
/// word, and when the files are back all is as it was.
#[test]
fn the_directory_is_gone() {
    let clamd = Clamd::start();
    let chain = Chain::start_all_with(&clamd, &[("/directory", json!({"fresh_for": "0s", "absent_for": "0s"}))]);
    let rcpt = |to: &str| {
        let mut smtp = Smtp::connect(&chain);
        assert!(smtp.command("MAIL FROM:<s@elsewhere.example>").starts_with("250 "));
        smtp.command(&format!("RCPT TO:<{to}@example.org>"))
    };
    let deliver = |number: usize| {
        let reply = send(&chain, number);
        assert!(reply.starts_with("250 "), "{reply}");
        wait_for("the mail", || chain.read("alice@example.org").len() == number + 1);
    };
    deliver(0);
    assert!(rcpt("nobody").starts_with("550 5.1.1"));
    // In place: connections hold on to the files that they have opened.
    let files = ["directory.db", "directory.db-wal"].map(|name| chain.folder().join("var").join(name));
    let kept = files.clone().map(|file| fs::read(file).unwrap_or_default());
    for (file, kept) in files.iter().zip(&kept) {
        fs::write(file, b"garbage ".repeat(kept.len() / 8)).unwrap();
    }
    wait_for("the directory to be missed", || rcpt("nobody").starts_with("451 4.3.0"));
    for number in 1..4 {
        deliver(number);
    }
    for (file, kept) in files.iter().zip(&kept) {
        fs::write(file, kept).unwrap();
    }
    wait_for("the directory to be back", || rcpt("nobody").starts_with("550 5.1.1"));
    wait_for("all its connections to be back", || rcpt("bob").starts_with("250 "));
    deliver(4);
    chain.settles();
    chain.books(&[("accepted", 5), ("stored", 5)]);
}

/// The directory's files were moved away, and an empty one is in their place: it refuses nobody, and a command makes
/// none.
#[test]
fn the_directory_is_empty() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_all_with(&clamd, &[("/directory", json!({"fresh_for": "0s", "absent_for": "0s"}))]);
    let rcpt = |chain: &Chain, to: &str| {
        let mut smtp = Smtp::connect(chain);
        assert!(smtp.command("MAIL FROM:<s@elsewhere.example>").starts_with("250 "));
        smtp.command(&format!("RCPT TO:<{to}@example.org>"))
    };
    let deliver = |chain: &Chain, number: usize| {
        let reply = send(chain, number);
        assert!(reply.starts_with("250 "), "{reply}");
        wait_for("the mail", || chain.read("alice@example.org").len() == number + 1);
    };
    deliver(&chain, 0);
    let var = chain.folder().join("var");
    let files = ["directory.db", "directory.db-wal", "directory.db-shm"].map(|name| var.join(name));
    let aside = |file: &Path| file.with_file_name(format!("old-{}", file.file_name().unwrap().display()));
    for file in files.iter().filter(|file| file.exists()) {
        fs::rename(file, aside(file)).unwrap();
    }
    assert_eq!(chain.attempt(&["account", "list"], ""), None);
    assert!(!files[0].exists());
    fs::write(&files[0], "").unwrap();
    assert_eq!(chain.command(&["account", "list"]), "");
    wait_for("the directory to be missed", || rcpt(&chain, "nobody").starts_with("451 4.3.0"));
    for number in 1..4 {
        deliver(&chain, number);
    }
    // Not even a new start makes the accounts of a first run again.
    chain.kill("all");
    chain.start("all");
    assert!(rcpt(&chain, "alice").starts_with("451 4.3.0"));
    assert_eq!(chain.command(&["account", "list"]), "");
    chain.kill("all");
    for file in &files {
        let _ = fs::remove_file(file);
    }
    for file in files.iter().filter(|file| aside(file).exists()) {
        fs::rename(aside(file), file).unwrap();
    }
    chain.start("all");
    deliver(&chain, 4);
    chain.settles();
    chain.books(&[("accepted", 5), ("stored", 5)]);
}
