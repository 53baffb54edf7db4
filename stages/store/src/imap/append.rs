//! Messages that a reader brings in, copies or moves.

use runtime::clock;
use wire::imap::{self, Answer, No};

use super::mailboxes::no;
use super::{Reading, wide};
use crate::shard::{Appended, CopyMode, Copying, Limits, Outlined, Placed, Placing, StoreError};
use crate::views::number;

/// A message of so many bytes is asked about before it is sent: a smaller one costs less than the question.
const LOOKED_AT: u32 = 64 * 1024;
/// From so many bytes on a digest is made where a thread may be kept for long.
const LONG: usize = 1 << 20;

impl Reading {
    /// Room for a message that is about to be sent.
    pub(super) async fn make_room(&mut self, account: i64, name: String, size: u32) -> anyhow::Result<Answer> {
        self.receiving = None;
        if size == 0 {
            return Ok(Answer::Done);
        }
        if size >= LOOKED_AT {
            let (is_there, [bytes, messages]) = self.node.shard(account).reader.room(account, name).await?;
            let limits = self.limits();
            let over = |used: i64, limit: u64| limit > 0 && used.unsigned_abs() > limit;
            if !is_there {
                return Ok(Answer::No(No::NoSuch));
            }
            if over(bytes.saturating_add(size.into()), limits.bytes) || over(messages + 1, limits.messages) {
                return Ok(Answer::No(No::Full));
            }
        }
        self.receiving = Some(self.room.take(account, size.into()).await?);
        Ok(Answer::Done)
    }

    pub(super) async fn append(&mut self, account: i64, appended: imap::Appended) -> anyhow::Result<Answer> {
        let held = self.receiving.take();
        let imap::Appended { name, flags, keywords, received, text } = appended;
        let digest = match text.len() {
            LONG.. => {
                let text = text.clone();
                tokio::task::spawn_blocking(move || blake3::hash(&text)).await?
            }
            _ => blake3::hash(&text),
        };
        let now = || i64::try_from(clock::now().0).unwrap_or(i64::MAX);
        let appended = Appended {
            account,
            name,
            flags,
            keywords: keywords.join(" "),
            received: received.unwrap_or_else(now),
            outline: Outlined::made(&text).await,
            body: text,
            digest: *digest.as_bytes(),
            limits: self.limits(),
        };
        let placed = self.node.shard(account).place(Placing::Append(appended)).await;
        drop(held);
        told(placed)
    }

    pub(super) async fn copy(
        &self,
        account: i64,
        mailbox: i64,
        uids: Vec<u32>,
        to: String,
        how: imap::CopyMode,
    ) -> anyhow::Result<Answer> {
        let how = match how {
            imap::CopyMode::Copy => CopyMode::Copy,
            imap::CopyMode::Move => CopyMode::Move,
        };
        let copying = Copying { account, mailbox, uids: wide(uids), to, how, limits: self.limits() };
        told(self.node.shard(account).place(Placing::Copy(copying)).await)
    }

    /// What the account takes up.
    pub(super) async fn quota(&self, account: i64) -> anyhow::Result<Answer> {
        let (_, [bytes, messages]) = self.node.shard(account).reader.room(account, "INBOX".to_owned()).await?;
        let limits = self.limits();
        let of = |used: i64, limit: u64| (limit > 0).then(|| (u64::try_from(used).unwrap_or(0), limit));
        Ok(Answer::Quota(imap::Quota { bytes: of(bytes, limits.bytes), messages: of(messages, limits.messages) }))
    }

    /// What the account may take up.
    pub(super) fn limits(&self) -> Limits {
        let limits = |account: &std::sync::Arc<directory::Account>| Limits {
            bytes: account.quota_bytes,
            messages: account.quota_messages,
        };
        self.account.as_ref().map_or(Limits { bytes: 0, messages: 0 }, limits)
    }
}

fn told(placed: Result<Placed, StoreError>) -> anyhow::Result<Answer> {
    let numbers = |uids: Vec<i64>| uids.into_iter().map(number).collect();
    match placed {
        Ok(Placed { uidvalidity, from, to }) => {
            Ok(Answer::Placed(imap::Placed { uidvalidity: number(uidvalidity), from: numbers(from), to: numbers(to) }))
        }
        Err(error) => no(error),
    }
}
