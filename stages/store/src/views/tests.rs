//! What is kept beside a model: whatever changes between two looks, the view is the mailbox.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use runtime::config::{Section, Sheet};

use crate::shard::{Admission, Change, Delivery, FlagChange, FlagMode, Outlined};
use crate::{Config, Node};

fn open(folder: &std::path::Path) -> Node {
    let sheet = std::rc::Rc::new(std::cell::RefCell::new(Sheet::default()));
    let value = serde_json::json!({"shards": 1, "folder": folder.display().to_string()});
    Node::open(&Config::read(Section::root(value, sheet), folder), "s1").unwrap()
}

fn delivery(mail: u32) -> Delivery {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&mail.to_be_bytes());
    Delivery {
        mail: id,
        target: "a@x".into(),
        account: 1,
        folder: "INBOX".into(),
        prefix: Bytes::new(),
        body: Bytes::from_static(b"body"),
        digest: *blake3::hash(b"body").as_bytes(),
        outline: Outlined::of(b"body"),
        received: 1_800_000_000_000,
        admission: Admission::IfRoom { bytes: 0, messages: 0 },
        held: String::new(),
        held_for: String::new(),
    }
}

#[derive(Debug, Clone)]
enum Act {
    Deliver(u32),
    Flags(Vec<i64>, FlagMode, i64, bool),
    Expunge(Vec<i64>, bool),
    Look,
    /// What is kept goes.
    Forget,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let uids = || proptest::collection::vec(1i64..400, 0..40);
    let how = prop_oneof![Just(FlagMode::Set), Just(FlagMode::Add), Just(FlagMode::Remove)];
    let act = prop_oneof![
        (1u32..90).prop_map(Act::Deliver),
        (uids(), how, 0i64..32, any::<bool>()).prop_map(|(uids, how, flags, word)| Act::Flags(uids, how, flags, word)),
        (uids(), any::<bool>()).prop_map(|(uids, only_deleted)| Act::Expunge(uids, only_deleted)),
        Just(Act::Look),
        Just(Act::Forget),
    ];
    proptest::collection::vec(act, 1..20)
}

/// UID to flags and keywords.
type Model = BTreeMap<i64, (i64, bool)>;

async fn act(node: &Node, mailbox: i64, act: Act, mails: &mut u32, model: &mut Model) {
    match act {
        Act::Deliver(count) => {
            let range = *mails..*mails + count;
            *mails += count;
            futures::future::join_all(range.clone().map(|mail| node.deliver(delivery(mail)))).await;
            model.extend(range.map(|mail| (i64::from(mail) + 1, (0, false))));
        }
        Act::Flags(uids, how, flags, word) => {
            for uid in &uids {
                let Some((has, has_word)) = model.get_mut(uid) else { continue };
                (*has, *has_word) = match how {
                    FlagMode::Set => (flags, word),
                    FlagMode::Add => (*has | flags, *has_word | word),
                    FlagMode::Remove => (*has & !flags, *has_word & !word),
                };
            }
            let keywords = if word { vec!["Work".to_owned()] } else { Vec::new() };
            let change = FlagChange { how, flags, keywords };
            node.change(1, Change::Flags { mailbox, uids, change, unchanged_since: None }).await.unwrap();
        }
        Act::Expunge(uids, only_deleted) => {
            model.retain(|uid, (flags, _)| !uids.contains(uid) || (only_deleted && *flags & 8 == 0));
            node.change(1, Change::Expunge { account: 1, mailbox, uids, only_deleted }).await.unwrap();
        }
        Act::Forget => {
            node.views.0.kept.clear();
            node.views.0.looked_at.lock().unwrap().clear();
        }
        Act::Look => {}
    }
}

/// However many have a mailbox open that is too large to be kept, it is in memory once.
#[tokio::test]
async fn a_view_that_somebody_has_is_shared_though_it_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    node.deliver(delivery(0)).await.unwrap();
    let flags = async || {
        let (_, view) = node.view(1, "INBOX").await.unwrap().unwrap();
        (view.messages.get(0).unwrap().flags, view)
    };
    let (_, somebodys) = flags().await;
    node.views.0.kept.clear();
    // Who reads it anew sees what nobody was told of.
    let database = rusqlite::Connection::open(node.shard(1).packs.with_file_name("shard.db")).unwrap();
    database.execute("UPDATE messages SET flags = 2", []).unwrap();
    assert_eq!(flags().await.0, 0);
    drop(somebodys);
    node.views.0.kept.clear();
    assert_eq!(flags().await.0, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_view_that_is_kept_is_the_mailbox(acts in acts()) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (node, mut mails, mut model) = (open(folder.path()), 0, Model::new());
            node.change(1, Change::Mailboxes { account: 1 }).await.unwrap();
            let (mailbox, mut before) = node.view(1, "INBOX").await.unwrap().unwrap();
            for step in acts {
                let looks = matches!(step, Act::Look);
                act(&node, mailbox, step, &mut mails, &mut model).await;
                if !looks {
                    continue;
                }
                let (_, view) = node.view(1, "INBOX").await.unwrap().unwrap();
                let seen: Model =
                    view.messages.iter().map(|row| (row.uid.into(), (row.flags, &*row.keywords == "Work"))).collect();
                assert_eq!(seen, model);
                for row in view.messages.iter() {
                    let old = before.messages.find(row.uid).map(|(_, old)| old);
                    assert_eq!(row.modseq > before.modseq, old != Some(row), "MODSEQ tells what has changed");
                }
                before = view;
            }
            let whole = node.shard(1).reader.messages(mailbox).await.unwrap();
            let whole: Vec<_> = whole.into_iter().map(super::row).collect();
            let (_, view) = node.view(1, "INBOX").await.unwrap().unwrap();
            assert_eq!(view.messages.iter().cloned().collect::<Vec<_>>(), whole);
            let unseen = model.values().filter(|(flags, _)| flags & 1 == 0).count();
            let inbox = node.shard(1).reader.mailboxes(1).await.unwrap().into_iter().find(|inbox| inbox.id == mailbox);
            assert_eq!(inbox.map(|inbox| (inbox.messages, inbox.unseen)), Some((model.len() as i64, unseen as i64)));
        });
        let mut lines = Vec::new();
        crate::verify::verify(folder.path(), |line| lines.push(line.to_owned())).unwrap();
        prop_assert!(lines.is_empty(), "{lines:?}");
    }
}
