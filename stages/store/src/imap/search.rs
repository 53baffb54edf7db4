//! What of a search needs more than the rows that the session has.

use std::sync::Arc;

use runtime::clock;
use wire::imap::{Answer, Criteria, MessageRow};

use super::Reading;
use crate::shard::Search;

impl Reading {
    pub(super) async fn search(
        &mut self,
        account: i64,
        mailbox: i64,
        criteria: Arc<Criteria>,
        asked: Vec<(u32, MessageRow)>,
    ) -> anyhow::Result<Answer> {
        self.held = None;
        let largest = asked.iter().map(|(_, row)| row.size).max().unwrap_or(0);
        let _turn = self.room.take_turn(account, largest).await?;
        let now = i64::try_from(clock::now().0).unwrap_or(i64::MAX);
        let found = self.node.shard(account).reader.search(mailbox, Search { criteria, asked, now }).await?;
        Ok(Answer::Found(found))
    }
}
