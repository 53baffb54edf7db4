//! Searches as a client makes them, over mail as it is stored.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use wire::imap::{Answer, ImapSession, Limits, Question, View};
use wire::session::{Cleartext, Session as _, Step, Tls};

use super::*;
use crate::shard::{Admission, Delivery, Outlined, Settings, Shard};
use crate::views::Views;

/// One account and its INBOX.
pub(super) struct World {
    _folder: tempfile::TempDir,
    pub(super) shard: Shard,
    mails: u16,
}

const NOW: i64 = 1_800_000_000_000;

impl World {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lock = Arc::new(std::fs::File::create(folder.path().join("lock")).unwrap());
        let delivered_for = Duration::from_secs(86_400);
        let settings =
            Settings { folder: folder.path().join("shard"), number: 0, batch: 99, pack: 1 << 20, delivered_for };
        Self { shard: Shard::open(settings, lock).unwrap(), _folder: folder, mails: 0 }
    }

    pub(super) async fn deliver(&mut self, prefix: &str, body: &[u8]) {
        self.mails += 1;
        let mut mail = [0; 16];
        mail[..2].copy_from_slice(&self.mails.to_be_bytes());
        let delivery = Delivery {
            mail,
            target: "a@x".into(),
            account: 1,
            folder: "INBOX".into(),
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            body: Bytes::copy_from_slice(body),
            digest: *blake3::hash(body).as_bytes(),
            outline: Outlined::of(body),
            received: NOW - 1000 * i64::from(self.mails),
            admission: Admission::Released,
            held: String::new(),
            held_for: String::new(),
        };
        self.shard.deliver(delivery).await.unwrap();
    }

    /// The mailbox, and what its client sees.
    async fn view(&self) -> (i64, View) {
        let views = Views::new(runtime::config::ByteSize::mib(1));
        views.look(&self.shard, crate::views::Which::Named(1, "INBOX".into())).await.unwrap().unwrap()
    }

    /// What a client hears after `a UID SEARCH` with these criteria.
    pub(super) async fn search(&self, criteria: &str) -> String {
        let (mailbox, view) = self.view().await;
        let mut session = ImapSession::new(Limits::default(), Tls::On, Cleartext::Allowed);
        session.input(format!("1 LOGIN a b\r\n2 SELECT INBOX\r\na UID SEARCH {criteria}\r\n").as_bytes());
        let mut heard = String::new();
        loop {
            match session.next() {
                Step::Output(bytes) => heard.push_str(&String::from_utf8_lossy(&bytes)),
                Step::Ask(Question::Select(_) | Question::Changes) => session.answer(Answer::View(view.clone())),
                Step::Ask(Question::Search { criteria, asked }) => {
                    let found = self.shard.reader.search(mailbox, Search { criteria, asked, now: NOW }).await;
                    session.answer(found.map_or(Answer::Unavailable, Answer::Found));
                }
                Step::Ask(_) => session.answer(Answer::Done),
                _ => return heard.split_once("2 OK [READ-WRITE] SELECT done\r\n").unwrap().1.to_owned(),
            }
        }
    }

    #[track_caller]
    fn check(&self, heard: &str, want: &str) {
        assert_eq!(heard, format!("* SEARCH{want}\r\na OK SEARCH done\r\n"));
    }
}

#[tokio::test]
async fn what_is_stored_is_found() {
    let mut world = World::new();
    world
        .deliver(
            "Delivered-To: A@x\r\n",
            b"Subject: One\r\nDate: Mon, 2 Mar 2026 1:00:00 +0000\r\n\r\nThe first text\r\n",
        )
        .await;
    world.deliver("", "Subject: Two\r\n\r\nÜber das zweite\r\n".as_bytes()).await;
    world.deliver("", &b"Subject: Three\r\n\r\nlong ".repeat(1000)).await;
    for (criteria, want) in [
        ("BODY \"first text\"", " 1"),
        ("NOT BODY first", " 2 3"),
        ("CHARSET UTF-8 BODY {5+}\r\n\u{fc}BER", " 2"),
        ("TEXT \"delivered-to: a@\"", " 1"),
        ("SUBJECT T", " 2 3"),
        ("OR SUBJECT one BODY LONG", " 1 3"),
        ("SENTON 2-Mar-2026", " 1"),
        ("YOUNGER 2", " 1 2"),
        ("OLDER 2 NOT BODY zweite", " 3"),
        ("HEADER delivered-to \"\"", " 1"),
    ] {
        world.check(&world.search(criteria).await, want);
    }
}

#[tokio::test]
async fn what_is_gone_is_left_out_and_what_is_damaged_is_said() {
    let mut world = World::new();
    for text in ["one", "two", "three"] {
        world.deliver("", format!("Subject: {text}\r\n\r\n{text}\r\n").as_bytes()).await;
    }
    let (mailbox, _) = world.view().await;
    let expunge = crate::shard::Change::Expunge { account: 1, mailbox, uids: vec![2], only_deleted: false };
    world.shard.change(expunge).await.unwrap();
    world.check(&world.search("TEXT t").await, " 1 3");
    let pack = crate::pack::path(&world.shard.packs, 1);
    let mut bytes = std::fs::read(&pack).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    assert!(world.search("TEXT t").await.starts_with("a NO [UNAVAILABLE]"));
    world.check(&world.search("1:1 TEXT t").await, " 1");
}

impl World {
    /// Opens the index and fills it, with mails of so many bytes of text.
    pub(super) async fn index(&self, most: usize) {
        self.shard.reader.index.open().unwrap();
        let mut behind = 0;
        loop {
            let done = self.shard.reader.index_portion(behind, most).await.unwrap();
            if done.is_end {
                return;
            }
            behind = done.behind;
        }
    }

    async fn filters(&self, behind: i64) -> (usize, usize) {
        let done = self.shard.reader.index_portion(behind, 1000).await.unwrap();
        assert!(done.is_end);
        (done.filters, done.removed)
    }
}

#[tokio::test]
async fn the_index_follows_the_bodies() {
    let mut world = World::new();
    world.deliver("", b"Subject: one\r\n\r\nfirst\r\n").await;
    world.index(1000).await;
    world.deliver("", b"Subject: two\r\n\r\nsecond\r\n").await;
    world.check(&world.search("BODY second").await, " 2");
    assert_eq!(world.shard.reader.index.last().unwrap(), 1);
    assert_eq!(world.filters(1).await, (1, 0));
    assert_eq!(world.filters(0).await, (0, 0));
    let (mailbox, _) = world.view().await;
    let expunge = crate::shard::Change::Expunge { account: 1, mailbox, uids: vec![1], only_deleted: false };
    world.shard.change(expunge).await.unwrap();
    assert_eq!(world.filters(0).await, (0, 1));
    world.check(&world.search("OR BODY first BODY second").await, " 2");
    // It came again.
    world.deliver("", b"Subject: one\r\n\r\nfirst\r\n").await;
    world.check(&world.search("OR BODY first BODY second").await, " 2 3");
    assert_eq!(world.filters(0).await, (1, 0));
}

/// What the index rules out is not read: it is damaged here, and nobody notices.
#[tokio::test]
async fn what_the_index_rules_out_is_not_read() {
    let mut world = World::new();
    world.deliver("Delivered-To: a@x\r\n", b"Subject: one\r\n\r\nfirst text\r\n").await;
    world.index(1000).await;
    let pack = crate::pack::path(&world.shard.packs, 1);
    std::fs::write(&pack, vec![0; std::fs::read(&pack).unwrap().len()]).unwrap();
    for (criteria, want) in [
        ("BODY second", ""),
        ("NOT TEXT second", " 1"),
        ("HEADER x-none \"\"", ""),
        ("TEXT other@", ""),
        ("SUBJECT two", ""),
    ] {
        world.check(&world.search(criteria).await, want);
    }
    for criteria in ["BODY first", "TEXT a@x", "HEADER delivered-to a", "BODY t"] {
        assert!(world.search(criteria).await.starts_with("a NO [UNAVAILABLE]"), "{criteria}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn the_index_makes_no_difference(
        mails in prop::collection::vec((
            "(Delivered-To: [a-c]{1,4}\r\n|X-A: [a-c]{0,5}\r\n|Content-Type: image/png\r\n|\r\n|abc)?",
            "( [a-c]{0,5}\r\n)?(Subject: [a-cA-C ]{0,8}\r\n|X-A: =\\?utf-8\\?q\\?[a-c_]{1,4}\\?=\r\n\
    |From: [a-c\u{c4}]{1,5}\r\n|Content-Type: text/html\r\n|Content-Transfer-Encoding: (base64|quoted-printable)\r\n\
    ){0,4}(\r\n)?[a-cA-C= \r\n:\u{e4}]{0,40}",
        ), 1..8),
        criteria in prop::collection::vec(
            "(NOT )?(BODY|TEXT|SUBJECT|HEADER x-a|FROM|HEADER delivered-to) \"[a-cA-C: ]{0,5}\"", 1..12,
        ),
        most in prop_oneof![Just(30), Just(1000)],
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for (prefix, body) in &mails {
                world.deliver(prefix, body.as_bytes()).await;
            }
            let mut without = Vec::new();
            for criteria in &criteria {
                without.push(world.search(criteria).await);
            }
            world.index(most).await;
            for (criteria, without) in criteria.iter().zip(without) {
                assert_eq!(world.search(criteria).await, without, "{criteria}");
            }
        });
    }
}
