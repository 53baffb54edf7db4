//! What readers bring in, copy and move, as others see it.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::shard::{Change, FlagChange, FlagMode, Manage, Settings, Shard};

const NONE: Limits = Limits { bytes: 0, messages: 0 };

async fn open(folder: &tempfile::TempDir) -> Shard {
    let (delivered_for, folder) = (Duration::from_secs(86_400), folder.path().to_owned());
    let lock = Arc::new(File::create(folder.join("lock")).unwrap());
    // The writer of a shard that was dropped ends a moment later.
    lock.lock().unwrap();
    let shard = Shard::open(Settings { folder, number: 0, batch: 9, pack: 1 << 20, delivered_for }, lock).unwrap();
    shard.change(Change::Mailboxes { account: 1 }).await.unwrap();
    let manage = Manage::Create { name: "Other".into(), special_use: String::new() };
    let made = shard.change(Change::Manage { account: 1, manage }).await;
    assert!(matches!(made, Ok(_) | Err(StoreError::Refused(Refusal::Exists))));
    shard
}

fn message(text: &str) -> Appended {
    Appended {
        flags: SEEN,
        keywords: "work".into(),
        received: 1_700_000_000_000,
        body: Bytes::from(text.to_owned()),
        digest: *blake3::hash(text.as_bytes()).as_bytes(),
        outline: Outlined::of(text.as_bytes()),
    }
}

async fn append_all(
    shard: &Shard,
    name: &str,
    texts: &[&str],
    limits: Limits,
) -> std::result::Result<Placed, StoreError> {
    let messages = texts.iter().map(|text| message(text)).collect();
    shard.place(Placing::Append(Appending { account: 1, name: name.into(), messages, limits })).await
}

async fn append(shard: &Shard, name: &str, text: &str, limits: Limits) -> std::result::Result<Placed, StoreError> {
    append_all(shard, name, &[text], limits).await
}

async fn copy(
    shard: &Shard,
    uids: &[i64],
    to: &str,
    how: CopyMode,
    limits: Limits,
) -> std::result::Result<Placed, StoreError> {
    let mailbox = mailbox(shard, "INBOX").await.id;
    shard.place(Placing::Copy(Copying { account: 1, mailbox, uids: uids.to_vec(), to: to.into(), how, limits })).await
}

async fn mailbox(shard: &Shard, name: &str) -> crate::shard::Mailbox {
    shard.reader.mailboxes(1).await.unwrap().into_iter().find(|mailbox| mailbox.name == name).unwrap()
}

/// UIDs, flags and texts.
async fn texts(shard: &Shard, name: &str) -> Vec<String> {
    let id = mailbox(shard, name).await.id;
    let mut texts = Vec::new();
    for message in shard.reader.messages(id).await.unwrap() {
        let text = shard.reader.text(id, message.uid).await.unwrap().unwrap();
        texts.push(format!(
            "{} {} {} {}",
            message.uid,
            message.flags,
            message.keywords,
            str::from_utf8(&text).unwrap()
        ));
    }
    texts
}

async fn usage(shard: &Shard) -> [i64; 2] {
    shard.reader.room(1, "INBOX".into()).await.unwrap().1
}

#[tokio::test]
async fn what_is_appended_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder).await;
    let placed = append(&shard, "INBOX", "one", NONE).await.unwrap();
    let inbox = mailbox(&shard, "INBOX").await;
    assert_eq!(placed, Placed { uidvalidity: inbox.uidvalidity, from: vec![], to: vec![1] });
    assert_eq!((inbox.messages, inbox.unseen, inbox.bytes, inbox.uidnext), (1, 0, 3, 2));
    assert_eq!(append(&shard, "Nowhere", "x", NONE).await, Err(Refusal::NoSuch.into()));
    let full = Limits { bytes: 5, messages: 0 };
    assert_eq!(append(&shard, "INBOX", "two", full).await, Err(Refusal::Full.into()));
    let full = Limits { bytes: 0, messages: 1 };
    assert_eq!(append(&shard, "INBOX", "two", full).await, Err(Refusal::Full.into()));
    drop(shard);
    let shard = open(&folder).await;
    assert_eq!(texts(&shard, "INBOX").await, ["1 1 work one"]);
    assert_eq!(usage(&shard).await, [3, 1]);
}

#[tokio::test]
async fn several_are_appended_all_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder).await;
    let three = ["one", "two", "one"];
    for full in [Limits { bytes: 8, messages: 0 }, Limits { bytes: 0, messages: 2 }] {
        assert_eq!(append_all(&shard, "INBOX", &three, full).await, Err(Refusal::Full.into()));
    }
    assert_eq!(append_all(&shard, "Nowhere", &three, NONE).await, Err(Refusal::NoSuch.into()));
    assert!(texts(&shard, "INBOX").await.is_empty());
    append(&shard, "INBOX", "zero", NONE).await.unwrap();
    let enough = Limits { bytes: 13, messages: 4 };
    assert_eq!(append_all(&shard, "INBOX", &three, enough).await.unwrap().to, [2, 3, 4]);
    assert_eq!(texts(&shard, "INBOX").await, ["1 1 work zero", "2 1 work one", "3 1 work two", "4 1 work one"]);
    let inbox = mailbox(&shard, "INBOX").await;
    assert_eq!((inbox.messages, inbox.bytes, inbox.uidnext), (4, 13, 5));
    assert_eq!(usage(&shard).await, [13, 4]);
}

#[tokio::test]
async fn copies_share_the_body_and_have_the_flags_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder).await;
    for text in ["one", "two", "three"] {
        append(&shard, "INBOX", text, NONE).await.unwrap();
    }
    let id = mailbox(&shard, "INBOX").await.id;
    let change = FlagChange { how: FlagMode::Set, flags: DELETED, keywords: vec!["new".into()] };
    shard.change(Change::Flags { mailbox: id, uids: vec![3], change, unchanged_since: None }).await.unwrap();
    let placed = copy(&shard, &[3, 1, 9], "Other", CopyMode::Copy, NONE).await.unwrap();
    assert_eq!((placed.from, placed.to), (vec![1, 3], vec![1, 2]));
    assert_eq!(texts(&shard, "Other").await, ["1 1 work one", "2 8 new three"]);
    let other = mailbox(&shard, "Other").await;
    assert_eq!((other.messages, other.unseen, other.deleted, other.bytes, other.uidnext), (2, 1, 1, 8, 3));
    assert_eq!(usage(&shard).await, [19, 5]);
    let full = Limits { bytes: 24, messages: 0 };
    assert_eq!(copy(&shard, &[1, 2], "Other", CopyMode::Copy, full).await, Err(Refusal::Full.into()));
    assert_eq!(texts(&shard, "Other").await.len(), 2, "all or none");
    assert_eq!(copy(&shard, &[1], "Nowhere", CopyMode::Copy, NONE).await, Err(Refusal::NoSuch.into()));
    copy(&shard, &[1], "INBOX", CopyMode::Copy, NONE).await.unwrap();
    assert_eq!(texts(&shard, "INBOX").await.len(), 4);
}

#[tokio::test]
async fn what_is_moved_is_in_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let shard = open(&folder).await;
    for text in ["one", "two"] {
        append(&shard, "INBOX", text, NONE).await.unwrap();
    }
    let before = mailbox(&shard, "INBOX").await;
    // A full account may move.
    let full = Limits { bytes: 1, messages: 1 };
    let placed = copy(&shard, &[1], "Other", CopyMode::Move, full).await.unwrap();
    assert_eq!((placed.from, placed.to), (vec![1], vec![1]));
    assert_eq!(texts(&shard, "INBOX").await, ["2 1 work two"]);
    assert_eq!(texts(&shard, "Other").await, ["1 1 work one"]);
    assert_eq!(usage(&shard).await, [6, 2]);
    let after = mailbox(&shard, "INBOX").await;
    assert_eq!((after.messages, after.bytes, after.uidnext), (1, 3, 3));
    assert!(after.modseq > before.modseq);
    let placed = copy(&shard, &[2], "INBOX", CopyMode::Move, NONE).await.unwrap();
    assert_eq!((placed.from, placed.to), (vec![2], vec![3]), "into the same mailbox it gets a new UID");
    assert_eq!(texts(&shard, "INBOX").await, ["3 1 work two"]);
    let database = rusqlite::Connection::open(folder.path().join("shard.db")).unwrap();
    let refs = database.query_row("SELECT group_concat(refs) FROM bodies", [], |row| row.get::<_, String>(0));
    assert_eq!(refs.unwrap(), "1,1");
}
