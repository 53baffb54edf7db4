//! What of a search needs more than the rows that the session has, and room for putting in order what it finds.

use std::sync::Arc;

use runtime::clock;
use wire::imap::{Answer, Criteria, MessageRow};

use super::Reading;
use crate::shard::Search;
use crate::texts::Gathered;

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

    pub(super) fn gather(&mut self, account: i64, bytes: u64) -> anyhow::Result<Answer> {
        if bytes == 0 {
            self.gathered = Gathered::default();
            return Ok(Answer::Done);
        }
        Ok(if self.room.gather(account, &mut self.gathered, bytes)? { Answer::Done } else { Answer::Refused })
    }
}
