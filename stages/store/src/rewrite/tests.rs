//! Packs that are rewritten: nothing is lost, whatever breaks off, and the file goes at last.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use runtime::config::{ByteSize, Section, Sheet};

use super::*;
use crate::Config;
use crate::shard::{Change, Delivery, Kept, StoreError};

const BODIES: u8 = 30;

fn open(folder: &Path) -> Node {
    let section = Section::root(serde_json::json!({"shards": 1}), Rc::new(RefCell::new(Sheet::default())));
    // Ten bodies fill a pack.
    let config = Config { folder: folder.to_owned(), pack: ByteSize(100_000), ..Config::read(section, folder) };
    let begun = Instant::now();
    loop {
        match Node::open(&config, "s1") {
            Err(error) if error.to_string().contains("in use") && begun.elapsed() < Duration::from_secs(10) => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

fn body(number: u8) -> Bytes {
    let mut body = vec![0; 10_000];
    blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut body);
    body.into()
}

async fn deliver(node: &Node, mail: u8, text: u8) {
    let body = body(text);
    let delivery = Delivery::sample(mail, body);
    assert_eq!(node.deliver(delivery).await, Ok(Kept::New));
}

/// Three packs and a little; of the first, only the bodies 0 and 1 are needed still. The UID of body n is n + 1.
async fn site() -> (tempfile::TempDir, Node) {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    for number in 0..BODIES {
        deliver(&node, number, number).await;
    }
    expunge(&node, (3..=10).collect()).await;
    (folder, node)
}

async fn inbox(node: &Node) -> i64 {
    let mailboxes = node.shard(1).reader.mailboxes(1).await.unwrap();
    mailboxes.into_iter().find(|mailbox| mailbox.name == "INBOX").unwrap().id
}

async fn expunge(node: &Node, uids: Vec<i64>) {
    let mailbox = inbox(node).await;
    node.change(1, Change::Expunge { account: 1, mailbox, uids, only_deleted: false }).await.unwrap();
}

#[track_caller]
fn check_text(uid: i64, text: Option<Bytes>) {
    assert!(text.is_some_and(|text| text == body(u8::try_from(uid - 1).unwrap())), "body of UID {uid}");
}

/// Everything that was not expunged is there.
async fn all_there(node: &Node) {
    let mailbox = inbox(node).await;
    for uid in (1..=2).chain(11..=i64::from(BODIES)) {
        check_text(uid, node.shard(1).reader.text(mailbox, uid).await.unwrap());
    }
}

fn pack(folder: &tempfile::TempDir, number: i64) -> PathBuf {
    crate::pack::path(&folder.path().join("shard-000/packs"), number)
}

async fn rewritten(node: &Node, number: i64) -> Rewritten {
    rewrite(node.shard(1), number, 30, &Tasks::default()).await.unwrap()
}

fn retired(folder: &tempfile::TempDir) -> i64 {
    let database = rusqlite::Connection::open(folder.path().join("shard-000/shard.db")).unwrap();
    database.query_row("SELECT count(*) FROM retired", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn the_space_of_expunged_mail_comes_back() {
    let (folder, node) = site().await;
    let shard = node.shard(1);
    assert_eq!(shard.reader.sealed(0).await.unwrap(), Some(1));
    assert!(matches!(rewritten(&node, 2).await, Rewritten::Lively));
    assert!(matches!(rewritten(&node, 1).await, Rewritten::Freed(bytes) if bytes > 80_000));
    assert!(!pack(&folder, 1).exists() && pack(&folder, 2).exists());
    assert_eq!((retired(&folder), shard.reader.sealed(0).await.unwrap()), (0, Some(2)));
    all_there(&node).await;
    drop(node);
    let node = open(folder.path());
    all_there(&node).await;
    // A text whose record is gone is stored anew when it comes again.
    deliver(&node, 100, 5).await;
    check_text(6, node.shard(1).reader.text(inbox(&node).await, i64::from(BODIES) + 1).await.unwrap());
}

#[tokio::test]
async fn a_rewrite_that_breaks_off_loses_nothing() {
    let (folder, node) = site().await;
    // Killed when some rows have moved, and some of the dead are gone.
    let mut records = node.shard(1).reader.records(1, 0).await.unwrap().unwrap();
    assert_eq!(records.len(), 2);
    records.pop();
    assert_eq!(node.shard(1).sweep(Sweep::Carry(records)).await, Ok(1));
    assert_eq!(node.shard(1).sweep(Sweep::Clear(1)).await, Ok(1));
    drop(node);
    // Killed between the sync of the pack and the commit of the rows.
    let last = fs::read_dir(folder.path().join("shard-000/packs")).unwrap().count();
    let path = pack(&folder, i64::try_from(last).unwrap());
    let length = fs::metadata(&path).unwrap().len();
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"CmB1 of no row", length).unwrap();
    let node = open(folder.path());
    all_there(&node).await;
    assert!(pack(&folder, 1).exists());
    assert!(matches!(rewritten(&node, 1).await, Rewritten::Freed(_)));
    all_there(&node).await;
    // Killed when the pack is retired, before its file is gone; and before the row is gone as well.
    expunge(&node, (11..=20).collect()).await;
    while node.shard(1).sweep(Sweep::Clear(2)).await.unwrap() > 0 {}
    assert!(pack(&folder, 2).exists());
    drop(node);
    drop(open(folder.path()));
    assert!(!pack(&folder, 2).exists());
    assert_eq!(retired(&folder), 0);
    let database = rusqlite::Connection::open(folder.path().join("shard-000/shard.db")).unwrap();
    database.execute("INSERT INTO retired (pack) VALUES (2)", []).unwrap();
    drop(database);
    let node = open(folder.path());
    assert_eq!(retired(&folder), 0);
    check_text(2, node.shard(1).reader.text(inbox(&node).await, 2).await.unwrap());
}

/// The last pack of all is retired, and its file is there: as when the one behind it did not outlive a crash.
#[tokio::test]
async fn a_retired_pack_is_not_written_to() {
    let (folder, node) = site().await;
    drop(node);
    fs::write(pack(&folder, 17), b"of nobody").unwrap();
    let database = rusqlite::Connection::open(folder.path().join("shard-000/shard.db")).unwrap();
    database.execute("INSERT INTO retired (pack) VALUES (17)", []).unwrap();
    drop(database);
    let node = open(folder.path());
    assert!(!pack(&folder, 17).exists());
    deliver(&node, 100, 100).await;
    let uid = i64::from(BODIES) + 1;
    assert_eq!(node.shard(1).reader.text(inbox(&node).await, uid).await.unwrap(), Some(body(100)));
}

#[tokio::test]
async fn the_pack_that_is_written_to_is_not_cleared() {
    let (folder, node) = site().await;
    let last = fs::read_dir(folder.path().join("shard-000/packs")).unwrap().count();
    for number in [last, last + 1] {
        let cleared = node.shard(1).sweep(Sweep::Clear(i64::try_from(number).unwrap())).await;
        assert_eq!(cleared, Err(StoreError::Failed(format!("pack {number} is not sealed"))));
    }
}

/// An older database was put back: its rows do not know the later packs, and those must not go.
#[tokio::test]
async fn a_pack_that_the_rows_do_not_know_stays() {
    let (folder, node) = site().await;
    drop(node);
    fs::write(pack(&folder, 17), b"of a newer database").unwrap();
    fs::write(pack(&folder, 18), b"and the one after it").unwrap();
    let node = open(folder.path());
    deliver(&node, 100, 100).await;
    let mut packs = Vec::new();
    while let Some(found) = node.shard(1).reader.sealed(packs.last().copied().unwrap_or(0)).await.unwrap() {
        packs.push(found);
    }
    assert!(!packs.contains(&17) && !packs.contains(&18), "{packs:?}");
    assert!(pack(&folder, 17).exists());
}

#[tokio::test]
async fn a_body_that_comes_alive_again_is_carried() {
    let (folder, node) = site().await;
    assert!(carry(node.shard(1), 1, &Tasks::default()).await.unwrap().is_none());
    deliver(&node, 100, 5).await;
    assert_eq!(node.shard(1).sweep(Sweep::Clear(1)).await, Ok(1), "only the one that is needed again is left");
    assert!(matches!(rewritten(&node, 1).await, Rewritten::Freed(_)));
    assert!(!pack(&folder, 1).exists());
    all_there(&node).await;
    check_text(6, node.shard(1).reader.text(inbox(&node).await, i64::from(BODIES) + 1).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_notice_nothing() {
    let (folder, node) = site().await;
    let mailbox = inbox(&node).await;
    let is_done = AtomicBool::new(false);
    let reader = node.shard(1).reader.clone();
    let reads = async {
        let mut rounds = 0;
        while !is_done.load(Ordering::Acquire) {
            for uid in 1..=2 {
                check_text(uid, reader.text(mailbox, uid).await.unwrap());
            }
            rounds += 1;
        }
        rounds
    };
    // The two bodies move from pack to pack, each of which goes behind them.
    let rewrites = async {
        let mut moved = 0;
        let mut next = BODIES;
        while moved < 8 {
            let from = moved_to(&node).await;
            // What fills the pack behind them goes again at once.
            for _ in 0..12 {
                next += 1;
                deliver(&node, next, next).await;
                expunge(&node, vec![i64::from(next)]).await;
            }
            match rewrite(node.shard(1), from, 90, &Tasks::default()).await.unwrap() {
                Rewritten::Freed(_) => {
                    assert!(!pack(&folder, from).exists());
                    moved += 1;
                }
                other => assert!(matches!(other, Rewritten::Lively), "{other:?}"),
            }
        }
        is_done.store(true, Ordering::Release);
    };
    let (rounds, ()) = tokio::join!(reads, rewrites);
    assert!(rounds > 8, "{rounds}");
}

/// Where the body of UID 1 lies.
async fn moved_to(node: &Node) -> i64 {
    let digest = *blake3::hash(&body(0)).as_bytes();
    let path = node.shard(1).packs.parent().unwrap().join("shard.db");
    let database = rusqlite::Connection::open(path).unwrap();
    database.query_row("SELECT pack FROM bodies WHERE digest = ?", [digest], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_damaged_record_keeps_its_pack() {
    let (folder, node) = site().await;
    let records = node.shard(1).reader.records(1, 0).await.unwrap().unwrap();
    let offset = u64::try_from(records[1].place.offset).unwrap();
    let file = fs::File::options().write(true).open(pack(&folder, 1)).unwrap();
    file.write_all_at(b"damage", offset + 1000).unwrap();
    let Rewritten::Damaged(error) = rewritten(&node, 1).await else { panic!("it was not noticed") };
    let said = format!("{error:#}");
    assert!(said.contains("000001.pack") && said.contains(&format!("offset {offset}")), "{said}");
    assert!(pack(&folder, 1).exists());
    assert_eq!(node.shard(1).sweep(Sweep::Clear(1)).await, Ok(2), "both are named still");
    assert!(pack(&folder, 1).exists());
    check_text(1, node.shard(1).reader.text(inbox(&node).await, 1).await.unwrap());
    assert!(node.shard(1).reader.text(inbox(&node).await, 2).await.is_err());
}

#[tokio::test]
async fn mail_that_is_lost_with_its_pack_is_told() {
    let (folder, node) = site().await;
    fs::remove_file(pack(&folder, 1)).unwrap();
    assert!(matches!(rewritten(&node, 1).await, Rewritten::Gone(bytes) if bytes > 20_000));
    expunge(&node, vec![1, 2]).await;
    assert!(matches!(rewritten(&node, 1).await, Rewritten::Freed(0)), "nobody needs it any more");
    assert_eq!((retired(&folder), node.shard(1).reader.sealed(0).await.unwrap()), (0, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn packs_are_looked_at_until_the_shutdown() {
    let (folder, node) = site().await;
    let tasks = Tasks::default();
    tasks.spawn("packs", run(node.clone(), 30, tasks.clone()));
    // The clock jumps from look to look; the writer and the disk take the time that they take.
    let begun = Instant::now();
    while pack(&folder, 1).exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the pack stays");
        tokio::time::sleep(LOOK).await;
    }
    tasks.stop();
    while !tasks.finished(LOOK).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "it goes on");
    }
    all_there(&node).await;
    assert!(pack(&folder, 2).exists());
}

/// A long life: texts come, come again, are expunged, packs are rewritten at any moment, and the node is started anew.
#[tokio::test]
async fn a_long_life_leaves_a_sound_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = open(folder.path());
    let mut dice = blake3::Hasher::new().update(b"a long life").finalize_xof();
    let mut throw = || {
        let mut thrown = [0; 3];
        dice.fill(&mut thrown);
        thrown
    };
    // The text of each message that is there, by its UID; and how many packs went.
    let (mut there, mut next, mut freed) = (std::collections::BTreeMap::new(), 0, 0);
    for _ in 0..600 {
        let [what, which, text] = throw();
        match what % 16 {
            0..=8 if next < 250 => {
                next += 1;
                deliver(&node, next, text % 40).await;
                there.insert(i64::from(next), text % 40);
            }
            0..=12 => {
                let gone: Vec<i64> = there.keys().copied().filter(|uid| uid % 5 == i64::from(which % 5)).collect();
                there.retain(|uid, _| !gone.contains(uid));
                if next > 0 {
                    expunge(&node, gone).await;
                }
            }
            13..=14 => {
                let found = node.shard(1).reader.sealed(i64::from(which % 4)).await.unwrap();
                if let Some(found) = found
                    && let Rewritten::Freed(_) = rewrite(node.shard(1), found, 90, &Tasks::default()).await.unwrap()
                {
                    freed += 1;
                }
            }
            _ => {
                drop(node);
                node = open(folder.path());
            }
        }
    }
    let mailbox = inbox(&node).await;
    for (uid, text) in &there {
        check_text(i64::from(*text) + 1, node.shard(1).reader.text(mailbox, *uid).await.unwrap());
    }
    let mut damages = Vec::new();
    let verified = crate::verify::verify(folder.path(), |line| damages.push(line.to_owned())).unwrap();
    assert!(damages.is_empty(), "{damages:#?}");
    assert_eq!(verified.messages, there.len() as u64);
    assert!(freed > 5, "only {freed} packs went");
}
