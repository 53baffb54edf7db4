//! Mailboxes of the account: which there are, and what becomes of them.

use wire::imap::{Answer, Mailbox, Manage, No};

use super::Reading;
use crate::shard::{self, Change, Refusal, StoreError};
use crate::views::number;

impl Reading {
    pub(super) async fn mailboxes(&self, account: i64) -> anyhow::Result<Answer> {
        let (mailboxes, names) = self.node.shard(account).reader.listed(account).await?;
        Ok(Answer::Mailboxes(mailboxes.into_iter().map(listed).chain(names.into_iter().map(only_subscribed)).collect()))
    }

    pub(super) async fn manage(&self, account: i64, manage: Manage) -> anyhow::Result<Answer> {
        let manage = match manage {
            Manage::Create { name, special_use } => shard::Manage::Create { name, special_use },
            Manage::Delete(name) => shard::Manage::Delete(name),
            Manage::Rename { from, to } => shard::Manage::Rename { from, to },
            Manage::Subscribe(name) => shard::Manage::Subscribe(name),
            Manage::Unsubscribe(name) => shard::Manage::Unsubscribe(name),
        };
        match self.node.change(account, Change::Manage { account, manage }).await {
            Ok(_) => Ok(Answer::Done),
            Err(error) => no(error),
        }
    }
}

/// What a client hears of a change that was refused; an error, if it failed.
pub(super) fn no(error: StoreError) -> anyhow::Result<Answer> {
    let StoreError::Refused(why) = error else { return Err(error.into()) };
    Ok(Answer::No(match why {
        Refusal::Exists => No::Exists,
        Refusal::NoSuch => No::NoSuch,
        Refusal::HasInferiors => No::HasInferiors,
        Refusal::TooMany => No::TooMany,
        Refusal::Cannot => No::Cannot,
        Refusal::Full => No::Full,
    }))
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn listed(mailbox: shard::Mailbox) -> Mailbox {
    Mailbox {
        name: mailbox.name,
        exists: true,
        special_use: mailbox.special_use,
        subscribed: mailbox.subscribed,
        uidvalidity: number(mailbox.uidvalidity),
        uidnext: number(mailbox.uidnext),
        messages: count(mailbox.messages),
        unseen: count(mailbox.unseen),
        deleted: count(mailbox.deleted),
        bytes: count(mailbox.bytes),
        modseq: count(mailbox.modseq),
    }
}

/// A name that is subscribed to although there is no such mailbox (RFC 3501 section 6.3.6).
fn only_subscribed(name: String) -> Mailbox {
    Mailbox {
        name,
        exists: false,
        special_use: String::new(),
        subscribed: true,
        uidvalidity: 0,
        uidnext: 0,
        messages: 0,
        unseen: 0,
        deleted: 0,
        bytes: 0,
        modseq: 0,
    }
}
