//! Mailboxes as their readers see them, and what is left in the tables.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::shard::{Admission, Change, Delivery, Settings, Shard};

fn open(folder: &tempfile::TempDir) -> Shard {
    let (delivered_for, folder) = (Duration::from_secs(86_400), folder.path().to_owned());
    let lock = Arc::new(File::create(folder.join("lock")).unwrap());
    // The writer of a shard that was dropped ends a moment later.
    lock.lock().unwrap();
    Shard::open(Settings { folder, number: 0, batch: 9, pack: 1 << 20, delivered_for }, lock).unwrap()
}

async fn manage(shard: &Shard, manage: Manage) -> Result<(), Refusal> {
    match shard.change(Change::Manage { account: 1, manage }).await {
        Ok(_) => Ok(()),
        Err(StoreError::Refused(why)) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

async fn create(shard: &Shard, name: &str) -> Result<(), Refusal> {
    manage(shard, Manage::Create { name: name.into(), special_use: String::new() }).await
}

async fn rename(shard: &Shard, from: &str, to: &str) -> Result<(), Refusal> {
    manage(shard, Manage::Rename { from: from.into(), to: to.into() }).await
}

async fn delete(shard: &Shard, name: &str) -> Result<(), Refusal> {
    manage(shard, Manage::Delete(name.into())).await
}

async fn deliver(shard: &Shard, mail: u8, folder: &str) {
    let delivery = Delivery {
        mail: [mail; 16],
        target: "a@x".into(),
        account: 1,
        folder: folder.into(),
        prefix: Bytes::new(),
        body: Bytes::from_static(b"body"),
        digest: *blake3::hash(b"body").as_bytes(),
        outline: crate::shard::Outlined::of(b"body"),
        received: 1_800_000_000_000,
        admission: Admission::IfRoom { bytes: 0, messages: 0 },
        held: String::new(),
        held_for: String::new(),
    };
    shard.deliver(delivery).await.unwrap();
}

/// Name, messages and UIDVALIDITY of each mailbox that an account does not have at first.
async fn names(shard: &Shard) -> Vec<String> {
    let mailboxes = shard.reader.mailboxes(1).await.unwrap();
    let is_first = |name: &str| FIRST.iter().any(|(first, _)| *first == name);
    let row = |mailbox: &crate::shard::Mailbox| format!("{} {}", mailbox.name, mailbox.messages);
    mailboxes.iter().filter(|mailbox| !is_first(&mailbox.name) || mailbox.messages > 0).map(row).collect()
}

async fn uidvalidity(shard: &Shard, name: &str) -> i64 {
    let mailboxes = shard.reader.mailboxes(1).await.unwrap();
    mailboxes.iter().find(|mailbox| mailbox.name == name).unwrap().uidvalidity
}

#[tokio::test]
async fn mailboxes_are_made_with_what_is_above_them() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder);
    shard.change(Change::Mailboxes { account: 1 }).await.unwrap();
    create(&shard, "a/b/c").await.unwrap();
    assert_eq!(create(&shard, "a/b").await, Err(Refusal::Exists));
    assert_eq!(create(&shard, "INBOX").await, Err(Refusal::Exists));
    assert_eq!(names(&shard).await, ["a 0", "a/b 0", "a/b/c 0"]);
    delete(&shard, "a").await.unwrap();
    assert_eq!(delete(&shard, "a").await, Err(Refusal::HasInferiors));
    assert_eq!(delete(&shard, "x").await, Err(Refusal::NoSuch));
    assert_eq!(delete(&shard, "INBOX").await, Err(Refusal::Cannot));
    assert_eq!(names(&shard).await, ["a/b 0", "a/b/c 0"]);
    delete(&shard, "Junk").await.unwrap();
    shard.change(Change::Mailboxes { account: 1 }).await.unwrap();
    assert_eq!(shard.reader.mailboxes(1).await.unwrap().len(), 6, "a login does not make again what was deleted");
}

/// A client was told that it cannot be done at all, and not that it is the use that is taken.
#[tokio::test]
async fn a_special_use_is_given_once() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder);
    deliver(&shard, 1, "INBOX").await;
    for (name, special_use, want) in [
        ("Old", "\\Archive", Ok(())),
        ("Older", "\\Archive", Err(Refusal::UseTaken)),
        ("Rubbish", "\\Junk", Err(Refusal::UseTaken)),
    ] {
        let made = manage(&shard, Manage::Create { name: name.into(), special_use: special_use.into() }).await;
        assert_eq!(made.map(drop), want, "{name}");
    }
}

#[tokio::test]
async fn a_rename_carries_along_what_is_below() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder);
    deliver(&shard, 1, "a/b").await;
    create(&shard, "a/b/c").await.unwrap();
    create(&shard, "ab").await.unwrap();
    rename(&shard, "a", "x/y").await.unwrap();
    assert_eq!(names(&shard).await, ["ab 0", "x 0", "x/y 0", "x/y/b 1", "x/y/b/c 0"]);
    for (from, to, why) in [
        ("ab", "x", Refusal::Exists),
        ("nothing", "n", Refusal::NoSuch),
        ("x", "x/y/z", Refusal::Cannot),
        ("x/y/b", &"l".repeat(511), Refusal::TooMany),
    ] {
        assert_eq!(rename(&shard, from, to).await, Err(why), "{from} {to}");
    }
    rename(&shard, "Junk", "Spam").await.unwrap();
    deliver(&shard, 2, "Junk").await;
    assert!(names(&shard).await.contains(&"Spam 1".into()), "Junk mail goes where its use is");
}

#[tokio::test]
async fn a_renamed_inbox_is_empty_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder);
    deliver(&shard, 1, "INBOX").await;
    create(&shard, "INBOX/below").await.unwrap();
    let before = uidvalidity(&shard, "INBOX").await;
    rename(&shard, "INBOX", "old").await.unwrap();
    assert_eq!(names(&shard).await, ["INBOX/below 0", "old 1"]);
    assert!(uidvalidity(&shard, "INBOX").await > before);
    deliver(&shard, 2, "INBOX").await;
    assert_eq!(names(&shard).await, ["INBOX 1", "INBOX/below 0", "old 1"]);
}

/// Within one second, by every way to a name that was there before.
#[tokio::test]
async fn no_name_has_a_uidvalidity_twice() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder);
    let mut seen = Vec::new();
    for round in 0..20 {
        create(&shard, "a").await.unwrap();
        seen.push(uidvalidity(&shard, "a").await);
        if round % 2 == 0 {
            delete(&shard, "a").await.unwrap();
            create(&shard, "b").await.unwrap();
            rename(&shard, "b", "a").await.unwrap();
            seen.push(uidvalidity(&shard, "a").await);
        }
        delete(&shard, "a").await.unwrap();
    }
    assert!(seen.is_sorted_by(|one, other| one < other), "{seen:?}");
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_mailboxes() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder);
    let made = (0..MOST / 25).map(|at| create_owned(&shard, format!("{at}{}", "/x".repeat(24))));
    assert!(futures::future::join_all(made).await.into_iter().all(|made| made.is_ok()));
    assert_eq!(create(&shard, "one more").await, Err(Refusal::TooMany));
    delete(&shard, "7").await.unwrap();
    create(&shard, "one more").await.unwrap();
}

async fn create_owned(shard: &Shard, name: String) -> Result<(), Refusal> {
    create(shard, &name).await
}

/// How many rows of messages, tombstones and deleted mailboxes there are, and how often the one body is needed.
fn left(folder: &tempfile::TempDir) -> [i64; 4] {
    let database = Connection::open(folder.path().join("shard.db")).unwrap();
    ["count(*) FROM messages", "count(*) FROM tombstones", "count(*) FROM doomed", "sum(refs) FROM bodies"]
        .map(|what| database.query_row(&format!("SELECT {what}"), [], |row| row.get(0)).unwrap())
}

async fn usage(folder: &tempfile::TempDir) -> (i64, i64) {
    let database = Connection::open(folder.path().join("shard.db")).unwrap();
    let usage = "SELECT bytes, messages FROM accounts WHERE account = 1";
    database.query_row(usage, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

#[tokio::test]
async fn what_was_deleted_goes_in_portions_and_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder);
    deliver(&shard, 1, "INBOX").await;
    create(&shard, "big").await.unwrap();
    {
        let database = Connection::open(folder.path().join("shard.db")).unwrap();
        let many = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 1201)
             INSERT \
                    INTO messages SELECT (SELECT id FROM mailboxes WHERE name = 'big'), i, modseq, body, size, \
                    received, flags,
                 keywords, prefix, mail, held, held_for FROM messages, \
                    n;
             UPDATE mailboxes SET messages = 1200, bytes = 4800 WHERE name = \
                    'big';
             UPDATE bodies SET refs = 1201;
             UPDATE accounts SET messages = \
                    1201, bytes = 4804;";
        database.execute_batch(many).unwrap();
    }
    // The writer is kept busy, so that nothing goes before the crash.
    let id = shard.reader.mailboxes(1).await.unwrap().into_iter().find(|found| found.name == "big").unwrap().id;
    delete(&shard, "big").await.unwrap();
    assert_eq!(usage(&folder).await, (4, 1), "the account's room is back with the answer");
    let flags = crate::shard::FlagChange { how: crate::shard::FlagMode::Add, flags: 1, keywords: Vec::new() };
    let change = Change::Flags { mailbox: id, uids: vec![2], change: flags, unchanged_since: None };
    assert_eq!(shard.change(change).await, Ok(0), "a session that still has it selected");
    drop(shard);
    let shard = open(&folder);
    create(&shard, "big").await.unwrap();
    let begun = Instant::now();
    while left(&folder) != [1, 0, 0, 1] && begun.elapsed() < Duration::from_secs(10) {
        tokio::task::yield_now().await;
    }
    assert_eq!(left(&folder), [1, 0, 0, 1]);
    assert_eq!(names(&shard).await, ["INBOX 1", "big 0"]);
    let again = shard.reader.mailboxes(1).await.unwrap().into_iter().find(|found| found.name == "big").unwrap().id;
    assert!(again > id, "no mailbox gets the number of another");
}
