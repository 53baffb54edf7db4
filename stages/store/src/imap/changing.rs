//! Flags that readers change, and messages that they expunge: in portions, between which the shard's writer takes what
//! waits. Neither has to happen in one go: a client that hears of a failure looks at what is there.

use wire::imap::{Answer, FlagMode};

use super::{Reading, wide};
use crate::shard::{self, Change, FlagChange, StoreError};
use crate::views::number;

/// Messages that are changed in one go: a tenth of a second of the writer, for which deliveries wait.
const PORTION: usize = 20_000;

/// Flags, as a client has them changed.
pub(super) struct Flagging {
    pub(super) how: FlagMode,
    pub(super) flags: i64,
    pub(super) keywords: Vec<String>,
    pub(super) unchanged_since: Option<u64>,
}

impl Reading {
    pub(super) async fn flag(
        &self,
        account: i64,
        mailbox: i64,
        uids: Vec<u32>,
        flagging: Flagging,
    ) -> anyhow::Result<Answer> {
        let Flagging { how, flags, keywords, unchanged_since } = flagging;
        let how = match how {
            FlagMode::Set => shard::FlagMode::Set,
            FlagMode::Add => shard::FlagMode::Add,
            FlagMode::Remove => shard::FlagMode::Remove,
        };
        let change = FlagChange { how, flags, keywords };
        let unchanged_since = unchanged_since.map(|modseq| i64::try_from(modseq).unwrap_or(i64::MAX));
        let (mut modified, mut is_refused) = (Vec::new(), false);
        for uids in wide(uids).chunks(PORTION) {
            let change = Change::Flags { mailbox, uids: uids.to_vec(), change: change.clone(), unchanged_since };
            match self.node.change(account, change).await {
                Err(StoreError::TooManyKeywords) => is_refused = true,
                Err(StoreError::Modified(uids)) => modified.extend(uids.into_iter().map(number)),
                changed => {
                    changed?;
                }
            }
        }
        Ok(match (is_refused, modified.is_empty()) {
            (true, _) => Answer::Refused,
            (false, false) => Answer::Modified(modified),
            (false, true) => Answer::Done,
        })
    }

    pub(super) async fn expunge(&self, account: i64, mailbox: i64, uids: Vec<u32>) -> anyhow::Result<Answer> {
        for uids in wide(uids).chunks(PORTION) {
            let uids = uids.to_vec();
            self.node.change(account, Change::Expunge { account, mailbox, uids, only_deleted: true }).await?;
        }
        Ok(Answer::Done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::fetching::tests::{deliver, inbox, site};
    use super::*;

    #[tokio::test]
    async fn very_many_messages_are_changed_in_portions() {
        let (_folder, reading, database) = site().await;
        for mail in 1..=3 {
            deliver(&reading, mail, "", "text").await;
        }
        let mailbox = inbox(&reading).await;
        database
            .execute_batch(
                "UPDATE messages SET uid = 30000 WHERE uid = 2; UPDATE messages SET uid = 50000 WHERE uid = 3; UPDATE \
                 mailboxes SET uidnext = 50001 WHERE uidnext = 4",
            )
            .unwrap();
        let modseq = async || reading.node.view_again(1, mailbox).await.unwrap().unwrap().modseq;
        let before = modseq().await;
        let flag = async |unchanged_since| {
            let flagging = Flagging { how: FlagMode::Add, flags: 8, keywords: Vec::new(), unchanged_since };
            reading.flag(1, mailbox, (1..=50_000).collect(), flagging).await.unwrap()
        };
        assert_eq!(flag(Some(before)).await, Answer::Done);
        assert_eq!(modseq().await, before + 3);
        assert_eq!(flag(Some(before + 1)).await, Answer::Modified(vec![30_000, 50_000]));
        assert_eq!(reading.expunge(1, mailbox, (1..=50_000).collect()).await.unwrap(), Answer::Done);
        let view = reading.node.view_again(1, mailbox).await.unwrap().unwrap();
        assert_eq!((view.messages.len(), view.modseq), (0, before + 6));
    }
}
