//! Storage as its users see it: delivered once, read back whole, there after reopening.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use runtime::config::{Section, Sheet};

use super::*;
use crate::shard::{Admission, FlagChange, FlagMode, Outlined, SEEN, Why};

fn config(folder: &Path) -> Config {
    let sheet = std::rc::Rc::new(std::cell::RefCell::new(Sheet::default()));
    let value = serde_json::json!({"shards": 2, "folder": folder.display().to_string()});
    let config = Config::read(Section::root(value, sheet.clone()), folder);
    assert!(sheet.borrow().problems.is_empty());
    config
}

fn open(folder: &Path) -> Node {
    try_open(&config(folder), "s1").unwrap()
}

/// The writers of a node that was dropped end a moment later.
fn try_open(config: &Config, node: &str) -> anyhow::Result<Node> {
    let begun = Instant::now();
    loop {
        match Node::open(config, node) {
            Err(error) if error.to_string().contains("in use") && begun.elapsed() < Duration::from_secs(10) => {
                std::thread::yield_now();
            }
            opened => return opened,
        }
    }
}

fn delivery(mail: u8, target: &str, account: i64, body: &str) -> Delivery {
    Delivery {
        mail: [mail; 16],
        target: target.into(),
        account,
        folder: "INBOX".into(),
        prefix: Bytes::from(format!("Delivered-To: {target}\r\n")),
        body: Bytes::from(body.to_owned()),
        digest: *blake3::hash(body.as_bytes()).as_bytes(),
        outline: Outlined::of(body.as_bytes()),
        received: 1_800_000_000_000,
        admission: Admission::IfRoom { bytes: 0, messages: 0 },
        held: String::new(),
        held_for: String::new(),
    }
}

async fn texts(node: &Node, account: i64) -> Vec<String> {
    let reader = &node.shard(account).reader;
    let mailboxes = reader.mailboxes(account).await.unwrap();
    let Some(inbox) = mailboxes.iter().find(|mailbox| mailbox.name == "INBOX") else { return Vec::new() };
    let mut texts = Vec::new();
    for message in reader.messages(inbox.id).await.unwrap() {
        let text = reader.text(inbox.id, message.uid).await.unwrap().unwrap();
        assert_eq!(usize::try_from(message.size).unwrap(), text.len());
        texts.push(format!("{} {}", message.uid, String::from_utf8(text.to_vec()).unwrap()));
    }
    texts
}

#[tokio::test]
async fn a_mail_is_delivered_once_and_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    for (mail, want) in [(1, Kept::New), (1, Kept::Already), (2, Kept::New)] {
        assert_eq!(node.deliver(delivery(mail, "a@x", 3, "body\r\n")).await, Ok(want));
    }
    assert_eq!(node.deliver(delivery(1, "b@x", 4, "body\r\n")).await, Ok(Kept::New));
    drop(node);
    let node = open(folder.path());
    assert_eq!(node.deliver(delivery(2, "a@x", 3, "body\r\n")).await, Ok(Kept::Already));
    let want = ["1 Delivered-To: a@x\r\nbody\r\n", "2 Delivered-To: a@x\r\nbody\r\n"];
    assert_eq!(texts(&node, 3).await, want);
    assert_eq!(texts(&node, 4).await, ["1 Delivered-To: b@x\r\nbody\r\n"]);
    assert!(texts(&node, 5).await.is_empty());
}

#[tokio::test]
async fn one_body_is_kept_once_for_each_shard() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let body: String = (0..100_000_u32).map(|n| char::from(b'a' + u8::try_from(n % 23).unwrap())).collect();
    let deliveries = (0..40).map(|n| node.deliver(delivery(n, "a@x", 2, &body)));
    assert!(futures::future::join_all(deliveries).await.iter().all(|kept| *kept == Ok(Kept::New)));
    let pack = fs::metadata(folder.path().join("shard-000/packs/000001.pack")).unwrap().len();
    assert!(pack < 110_000, "{pack} bytes for forty times the same 100,000");
    assert_eq!(texts(&node, 2).await.len(), 40);
}

/// The record of the first mail is spoilt before the second comes, whose text would be lost with it.
#[tokio::test]
async fn a_damaged_body_is_stored_anew_when_its_text_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    for spoil in [0, 1] {
        let node = open(folder.path());
        let body = format!("Subject: {spoil}\r\n\r\n");
        node.deliver(delivery(10 + spoil, "a@x", 2, &body)).await.unwrap();
        drop(node);
        // As after the pack's next sync.
        let database = rusqlite::Connection::open(folder.path().join("shard-000/shard.db")).unwrap();
        assert_eq!(database.execute("DELETE FROM redo", []), Ok(1));
        let path = folder.path().join("shard-000/packs/000001.pack");
        if spoil == 0 {
            let mut pack = fs::read(&path).unwrap();
            *pack.last_mut().unwrap() ^= 1;
            fs::write(&path, pack).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let node = open(folder.path());
        node.deliver(delivery(20 + spoil, "b@x", 2, &body)).await.unwrap();
        let reader = &node.shard(2).reader;
        let inbox = reader.mailboxes(2).await.unwrap().remove(1).id;
        let uids = reader.messages(inbox).await.unwrap().into_iter().map(|message| message.uid);
        for uid in uids.skip(2 * usize::from(spoil)) {
            assert!(reader.text(inbox, uid).await.unwrap().unwrap().ends_with(body.as_bytes()), "{uid}");
        }
    }
}

#[tokio::test]
async fn a_full_account_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let limited =
        |mail| Delivery { admission: Admission::IfRoom { bytes: 0, messages: 2 }, ..delivery(mail, "a@x", 3, "body") };
    for (mail, want) in
        [(1, Ok(Kept::New)), (2, Ok(Kept::New)), (3, Err(StoreError::TurnedAway(Why::Full))), (1, Ok(Kept::Already))]
    {
        assert_eq!(node.deliver(limited(mail)).await, want);
    }
    let narrow = Delivery { admission: Admission::IfRoom { bytes: 60, messages: 0 }, ..delivery(9, "a@x", 3, "body") };
    assert_eq!(node.deliver(narrow).await, Err(StoreError::TurnedAway(Why::Full)));
}

#[tokio::test]
async fn numbers_never_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    for mail in 1..=3 {
        node.deliver(delivery(mail, "a@x", 3, "body")).await.unwrap();
    }
    let inbox = async |node: &Node| node.shard(3).reader.mailboxes(3).await.unwrap().remove(1);
    let before = inbox(&node).await;
    let seen = FlagChange { how: FlagMode::Add, flags: SEEN, keywords: vec!["Work".into()] };
    let change = Change::Flags { mailbox: before.id, uids: vec![1, 3, 9], change: seen, unchanged_since: None };
    assert_eq!(node.change(3, change.clone()).await, Ok(2));
    assert_eq!(node.change(3, change).await, Ok(0), "nothing changes twice");
    let flagged = inbox(&node).await;
    assert_eq!((flagged.messages, flagged.unseen), (3, 1));
    let expunge = |only_deleted| Change::Expunge { account: 3, mailbox: before.id, uids: vec![2, 3, 9], only_deleted };
    assert_eq!(node.change(3, expunge(true)).await.unwrap(), 0, "another session has undeleted them");
    let expunge = expunge(false);
    assert_eq!(node.change(3, expunge).await, Ok(2));
    drop(node);
    let node = open(folder.path());
    let after = inbox(&node).await;
    assert_eq!((after.messages, after.unseen, after.uidnext, after.uidvalidity), (1, 0, 4, before.uidvalidity));
    assert!(after.modseq > flagged.modseq && flagged.modseq > before.modseq);
    node.deliver(delivery(4, "a@x", 3, "body")).await.unwrap();
    let uids: Vec<i64> = node.shard(3).reader.messages(after.id).await.unwrap().iter().map(|m| m.uid).collect();
    assert_eq!(uids, [1, 4]);
}

/// RFC 7162 section 3.1.3, and what is remembered of the expunged.
#[tokio::test]
async fn what_has_changed_is_left_alone_and_what_went_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    for mail in 1..=3 {
        node.deliver(delivery(mail, "a@x", 3, "body")).await.unwrap();
    }
    let (mailbox, before) = node.view(3, "INBOX").await.unwrap().unwrap();
    let flag = async |uids: &[i64], unchanged_since| {
        let change = FlagChange { how: FlagMode::Add, flags: SEEN << 1, keywords: Vec::new() };
        node.change(3, Change::Flags { mailbox, uids: uids.to_vec(), change, unchanged_since }).await
    };
    let since = Some(i64::try_from(before.modseq).unwrap());
    assert_eq!(flag(&[2], since).await, Ok(1));
    assert_eq!(flag(&[1, 2, 3, 9], since).await, Err(StoreError::Modified(vec![2])));
    let view = node.view_again(3, mailbox).await.unwrap().unwrap();
    assert!(view.messages.iter().all(|row| row.flags == SEEN << 1), "the others were changed");
    node.change(3, Change::Expunge { account: 3, mailbox, uids: vec![1, 3], only_deleted: false }).await.unwrap();
    let gone = async |modseq| crate::views::gone(node.shard(3), mailbox, modseq).await.unwrap();
    assert_eq!(gone(view.modseq).await, Some(vec![1, 3]));
    assert_eq!(gone(view.modseq + 1).await, Some(vec![]));
    let database = rusqlite::Connection::open(node.shard(3).packs.with_file_name("shard.db")).unwrap();
    database.execute("UPDATE mailboxes SET modseq = modseq + 200000", []).unwrap();
    assert_eq!(gone(view.modseq).await, None, "that was too long ago");
    node.change(3, Change::Expunge { account: 3, mailbox, uids: vec![2], only_deleted: false }).await.unwrap();
    let left: u32 = database.query_row("SELECT count(*) FROM tombstones", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
}

/// Whoever waits for a mailbox hears of each change in it, after its commit, and of no other's.
#[tokio::test]
async fn who_waits_for_a_mailbox_hears_of_its_changes() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    node.deliver(delivery(1, "a@x", 3, "body")).await.unwrap();
    let (mailbox, before) = node.view(3, "INBOX").await.unwrap().unwrap();
    let mut watch = node.shard(3).notices.watch(mailbox);
    assert!(watch.has_changed().unwrap(), "what came before is not known");
    watch.mark_unchanged();
    node.deliver(delivery(1, "a@x", 3, "body")).await.unwrap();
    node.deliver(delivery(2, "b@x", 5, "body")).await.unwrap();
    assert!(!watch.has_changed().unwrap(), "it came before, or for somebody else");
    node.deliver(delivery(3, "a@x", 3, "body")).await.unwrap();
    watch.changed().await.unwrap();
    assert_eq!(node.view_again(3, mailbox).await.unwrap().unwrap().uidnext, before.uidnext + 1);
    for seen in [true, false] {
        let change = FlagChange { how: FlagMode::Set, flags: SEEN, keywords: Vec::new() };
        node.change(3, Change::Flags { mailbox, uids: vec![1], change, unchanged_since: None }).await.unwrap();
        assert_eq!(watch.has_changed().unwrap(), seen, "a flag that is set already is no change");
        watch.mark_unchanged();
    }
    let expunge = Change::Expunge { account: 3, mailbox, uids: vec![1], only_deleted: false };
    node.change(3, expunge).await.unwrap();
    assert!(watch.has_changed().unwrap());
}

#[tokio::test]
async fn a_folder_of_another_node_or_form_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let error = Node::open(&config(folder.path()), "s1").err().unwrap().to_string();
    assert!(error.contains("in use by another process"));
    drop(node);
    let error = |config: &Config, node: &str| try_open(config, node).err().unwrap().to_string();
    assert!(error(&config(folder.path()), "s2").contains("belongs to the store node s1"));
    let more = Config { shards: 3, ..config(folder.path()) };
    assert!(error(&more, "s1").contains("has 2 shards"));
}

/// The last handle is gone, and what waits is still being written.
#[tokio::test]
async fn the_folder_is_locked_until_its_writers_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let busy = node.shard(3).busy();
    drop(node);
    let error = Node::open(&config(folder.path()), "s1").err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(busy);
    drop(open(folder.path()));
}

#[tokio::test]
async fn a_shard_whose_writer_has_ended_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (node, tasks) = (open(folder.path()), Tasks::default());
    tasks.spawn_vital("shards", node.clone().watch(tasks.clone()));
    assert_eq!(node.deliver(delivery(1, "a@x", 3, "body")).await, Ok(Kept::New));
    assert!(!tasks.is_stopping());
    node.shard(3).break_down().await;
    tasks.stopping().await;
    assert!(matches!(node.deliver(delivery(2, "a@x", 3, "body")).await, Err(StoreError::Failed(_))));
    let error = node.watch(Tasks::default()).await.unwrap_err().to_string();
    assert_eq!(error, "the writer of shard 1 has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_a_mailbox_holds_for_its_messages() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    node.deliver(delivery(0, "a@x", 3, "body")).await.unwrap();
    let delivering = node.clone();
    let deliveries = async move {
        for mail in 1..=200 {
            delivering.deliver(delivery(mail, "a@x", 3, "body")).await.unwrap();
        }
    };
    let views = async {
        loop {
            let (_, inbox) = node.view(3, "INBOX").await.unwrap().unwrap();
            let last = inbox.messages.last().unwrap();
            assert_eq!((inbox.messages.len(), inbox.uidnext), (last.uid.try_into().unwrap(), last.uid + 1));
            assert_eq!(inbox.modseq, last.modseq);
            if last.uid > 200 {
                return;
            }
        }
    };
    tokio::join!(deliveries, views);
}
