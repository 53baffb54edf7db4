//! Texts that are read before they are asked for. Most clients take all that there is, one text after the other: who
//! has taken two in a row is given the next of what was read with them.
//!
//! What is read so early needs room like every text, and takes a small part of it: it is held until the client asks,
//! or ends.

use std::collections::VecDeque;

use bytes::Bytes;
use wire::imap::Load;

use super::Open;
use crate::shard::{Shard, Whole};
use crate::texts::{Held, Texts};
use crate::views::number;

/// Bytes of texts that are read at once: as many are held for a client that stops in between.
const MOST: u64 = 64 << 10;

/// What one client may be given next.
#[derive(Default)]
pub(super) struct Early {
    texts: VecDeque<Whole>,
    /// Room for these, and for the one that is being sent.
    held: Option<Held>,
    /// The message behind the one that was asked for last.
    next: Option<usize>,
}

impl Early {
    /// The text of a message; none if it is gone.
    pub(super) async fn text(
        &mut self,
        open: &Open,
        shard: &Shard,
        room: &Texts,
        index: usize,
    ) -> anyhow::Result<Option<Bytes>> {
        let Some((uid, _)) = open.uids.get(index) else { return Ok(None) };
        let most = if self.next.replace(index + 1) == Some(index) { MOST } else { 0 };
        // Who asks for another has no use for what would have been next.
        if self.texts.front().is_none_or(|text| text.uid != *uid) {
            self.read(open, shard, room, load(&open.uids[index..], most)).await?;
        }
        Ok(self.texts.pop_front_if(|text| text.uid == *uid).map(|whole| whole.text))
    }

    /// Reads a load, or its first text if there is no room for all.
    async fn read(&mut self, open: &Open, shard: &Shard, room: &Texts, mut load: Load) -> anyhow::Result<()> {
        // What was before has been sent by now.
        self.texts.clear();
        self.held = None;
        if load.0.len() > 1 {
            self.held = room.try_keep(open.account, load.size());
        }
        if self.held.is_none() {
            load.0.truncate(1);
            self.held = Some(room.take(open.account, load.size()).await?);
        }
        let uids = load.0.iter().map(|(uid, _)| i64::from(*uid)).collect();
        self.texts = shard.reader.texts(open.mailbox, uids).await??.found.into();
        Ok(())
    }

    /// What was given has been sent.
    pub(super) fn sent(&mut self) {
        if self.texts.is_empty() {
            self.held = None;
        }
    }
}

/// The first message, and those behind it, up to so many bytes.
fn load(uids: &[(i64, u64)], most: u64) -> Load {
    let (mut load, mut whole) = (Load::default(), 0);
    for (uid, size) in uids {
        whole += size;
        if !load.0.is_empty() && whole > most {
            break;
        }
        load.0.push((number(*uid), *size));
    }
    load
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;
    use std::rc::Rc;

    use runtime::config::{ByteSize, Section, Sheet};

    use super::*;
    use crate::node::Node;
    use crate::shard::{Change, Delivery};

    async fn deliver(node: &Node, mail: u8, size: usize) {
        let body = Bytes::from(format!("\r\n{mail}{}", "x".repeat(size)));
        let delivery = Delivery { prefix: "A: b\r\n".into(), ..Delivery::sample(mail, body) };
        node.deliver(delivery).await.unwrap();
    }

    /// A node with mails of these sizes, and what a client sees of them.
    async fn site(sizes: &[usize]) -> (tempfile::TempDir, Node, Open) {
        let folder = tempfile::tempdir().unwrap();
        let section = Section::root(serde_json::json!({"shards": 1}), Rc::new(RefCell::new(Sheet::default())));
        let node = Node::open(&crate::Config::read(section, folder.path()), "s1").unwrap();
        for (mail, size) in (1..).zip(sizes) {
            deliver(&node, mail, *size).await;
        }
        let (mailbox, view) = node.view(1, "INBOX").await.unwrap().unwrap();
        let uids = view.messages.iter().map(|row| (i64::from(row.uid), row.size)).collect();
        (folder, node, Open { account: 1, mailbox, uids })
    }

    /// Takes a text, and says how many more are held by then.
    async fn take(early: &mut Early, (node, open, room): (&Node, &Open, &Texts), index: usize) -> usize {
        let text = early.text(open, node.shard(1), room, index).await.unwrap().unwrap();
        assert!(text.starts_with(format!("A: b\r\n\r\n{}x", index + 1).as_bytes()));
        early.sent();
        assert_eq!(early.held.is_some(), !early.texts.is_empty());
        early.texts.len()
    }

    #[tokio::test]
    async fn who_takes_one_after_the_other_is_given_what_was_read() {
        let (_folder, node, open) = site(&[100, 30_000, 30_000, 30_000, 100, 200_000, 100, 100]).await;
        let (mut early, room) = (Early::default(), Texts::new(ByteSize::mib(32)));
        let at = (&node, &open, &room);
        for (index, left) in [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (5, 0), (6, 1)] {
            assert_eq!(take(&mut early, at, index).await, left, "message {}", index + 1);
        }
        for (index, left) in [(3, 0), (4, 0), (2, 0), (3, 1), (3, 0), (4, 0), (0, 0)] {
            assert_eq!(take(&mut early, at, index).await, left, "message {}", index + 1);
        }
        assert_eq!(early.text(&open, node.shard(1), &room, 8).await.unwrap(), None, "there is none");
    }

    #[tokio::test]
    async fn what_is_gone_or_damaged_costs_itself_alone() {
        let (folder, node, open) = site(&[100; 5]).await;
        let (mut early, room) = (Early::default(), Texts::new(ByteSize::mib(8)));
        let pack = std::fs::File::options().write(true).open(folder.path().join("store/shard-000/packs/000001.pack"));
        let damaged = 3 * (53 + 103) + 53 + 9;
        std::os::unix::fs::FileExt::write_all_at(&pack.unwrap(), b"!", damaged).unwrap();
        let expunge = Change::Expunge { account: 1, mailbox: open.mailbox, uids: vec![3], only_deleted: false };
        node.change(1, expunge).await.unwrap();
        let at = (&node, &open, &room);
        assert_eq!(take(&mut early, at, 0).await, 0);
        assert_eq!(take(&mut early, at, 1).await, 0, "the rest is gone, or damaged");
        assert_eq!(early.text(&open, node.shard(1), &room, 2).await.unwrap(), None);
        let error = early.text(&open, node.shard(1), &room, 3).await.unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error:#}");
        assert_eq!(take(&mut early, at, 4).await, 0);
    }

    #[tokio::test]
    async fn without_room_texts_come_one_by_one() {
        let (_folder, node, open) = site(&[100; 4]).await;
        let (mut early, room) = (Early::default(), Texts::new(ByteSize::mib(8)));
        let _most = room.take(1, 200 << 10).await.unwrap();
        for index in 0..4 {
            assert_eq!(take(&mut early, (&node, &open, &room), index).await, 0);
        }
    }
}
