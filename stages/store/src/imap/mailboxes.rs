//! Mailboxes of the account: which there are, and what becomes of them.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::Connection;
use wire::imap::{Answer, Mailbox, Manage, No};

use super::Reading;
use crate::shard::{self, Change, Refusal, StoreError, reader};
use crate::views::number;

/// What each level of a name may take while it is listed: a line of its own.
const LEVEL: usize = 40;

impl Reading {
    /// All of them. Their names are there until the client has taken the last, which may be long: that takes room.
    pub(super) async fn mailboxes(&mut self, account: i64) -> anyhow::Result<Answer> {
        let shard = self.node.shard(account);
        let (mailboxes, names) = shard.reader.listed(account).await?;
        let numbers = mailboxes.iter().map(|mailbox| (mailbox.id, mailbox.uidnext)).collect();
        let recent = shard.reader.recent(&shard.notices.recent, numbers).await?;
        let all = mailboxes.iter().map(|mailbox| &mailbox.name).chain(&names);
        let size: usize = all.map(|name| room_of(name)).sum();
        // What an earlier command was given has been sent by now.
        self.held = None;
        self.held = Some(self.room.take(account, size as u64).await?);
        let listed = mailboxes.into_iter().map(|mailbox| {
            let recent = recent.get(&mailbox.id).copied().unwrap_or(0);
            listed(mailbox, recent)
        });
        Ok(Answer::Mailboxes(listed.chain(names.into_iter().map(only_subscribed)).collect()))
    }

    /// One of them, if it is there.
    pub(super) async fn mailbox(&self, account: i64, name: String) -> anyhow::Result<Answer> {
        let shard = self.node.shard(account);
        let find = move |connection: &Connection, _: &Path| Ok(reader::named(connection, account, &name)?);
        let Some(found) = shard.reader.ask(find).await? else { return Ok(Answer::Mailboxes(Vec::new())) };
        let numbers = HashMap::from([(found.id, found.uidnext)]);
        let recent = shard.reader.recent(&shard.notices.recent, numbers).await?.values().sum();
        Ok(Answer::Mailboxes(vec![listed(found, recent)]))
    }

    /// Those of an answer, with the bytes of what is marked as deleted. They are not counted: where there is any, all
    /// messages are gone through. That leaves no view behind: a client that asks this of many large mailboxes must not
    /// push out what others look at.
    pub(super) async fn with_deleted(&self, account: i64, mut answer: Answer) -> anyhow::Result<Answer> {
        let Answer::Mailboxes(all) = &mut answer else { return Ok(answer) };
        for mailbox in all.iter_mut().filter(|mailbox| mailbox.deleted > 0) {
            let name = mailbox.name.clone();
            let count = move |connection: &Connection, _: &Path| Ok(reader::deleted_bytes(connection, account, &name)?);
            mailbox.deleted_bytes = count_of(self.node.shard(account).reader.ask(count).await?);
        }
        Ok(answer)
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
        Refusal::UseTaken => No::UseTaken,
    }))
}

fn count_of(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn room_of(name: &str) -> usize {
    let levels = name.bytes().filter(|byte| *byte == b'/').count() + 1;
    size_of::<Mailbox>() + name.len() + levels * LEVEL
}

fn listed(mailbox: shard::Mailbox, recent: u64) -> Mailbox {
    Mailbox {
        name: mailbox.name,
        exists: true,
        special_use: mailbox.special_use,
        subscribed: mailbox.subscribed,
        uidvalidity: number(mailbox.uidvalidity),
        uidnext: number(mailbox.uidnext),
        messages: count_of(mailbox.messages),
        unseen: count_of(mailbox.unseen),
        deleted: count_of(mailbox.deleted),
        deleted_bytes: 0,
        bytes: count_of(mailbox.bytes),
        modseq: count_of(mailbox.modseq),
        recent,
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
        deleted_bytes: 0,
        bytes: 0,
        modseq: 0,
        recent: 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use wire::imap::{Appended, FlagMode, Incoming, flags};

    use super::super::changing::Flagging;
    use super::super::fetching::tests::{ALICE, deliver, inbox, site};
    use super::*;
    use crate::shard::Claim;

    /// The first UID of the recent messages that a look shows, and how many of these are listed then.
    async fn look(reading: &mut Reading, claim: Option<Claim>) -> (u32, u64) {
        let answer = match claim {
            Some(claim) => reading.view(1, "INBOX".to_owned(), claim).await.unwrap(),
            None => reading.view_again(1, reading.mailbox.unwrap()).await.unwrap(),
        };
        let Answer::View(view) = answer else { panic!("no view") };
        let Answer::Mailboxes(mailboxes) = reading.mailboxes(1).await.unwrap() else { panic!("no list") };
        (view.recent, mailboxes.iter().find(|mailbox| mailbox.name == "INBOX").unwrap().recent)
    }

    #[tokio::test]
    async fn a_message_is_recent_until_a_session_takes_it() {
        let (_folder, mut reading, _database) = site().await;
        let (look_only, take) = (Some(Claim::Look), Some(Claim::Take));
        deliver(&reading, 1, "", "one").await;
        deliver(&reading, 2, "", "two").await;
        assert_eq!(look(&mut reading, look_only).await, (1, 2));
        assert_eq!(look(&mut reading, None).await, (1, 2), "who only looks takes nothing");
        assert_eq!(look(&mut reading, take).await, (1, 0));
        assert_eq!(look(&mut reading, None).await, (3, 0));
        deliver(&reading, 3, "", "three").await;
        assert_eq!(look(&mut reading, None).await, (3, 0), "it was selected");
        let mailbox = inbox(&reading).await;
        reading.copy(ALICE, mailbox, vec![1, 2], "INBOX".to_owned(), wire::imap::CopyMode::Copy).await.unwrap();
        assert_eq!(look(&mut reading, look_only).await, (4, 2), "copies are new");
        reading
            .node
            .change(1, Change::Expunge { account: 1, mailbox, uids: vec![4], only_deleted: false })
            .await
            .unwrap();
        assert_eq!(look(&mut reading, take).await, (4, 0));
    }

    #[tokio::test]
    async fn what_is_deleted_has_its_bytes() {
        let (_folder, mut reading, _database) = site().await;
        deliver(&reading, 1, "", "one").await;
        deliver(&reading, 2, "", "three").await;
        let mailbox = inbox(&reading).await;
        let flagging = |how| Flagging { how, flags: flags::DELETED, keywords: Vec::new(), unchanged_since: None };
        let Answer::View(view) = reading.view(1, "INBOX".to_owned(), Claim::Look).await.unwrap() else {
            panic!("no view")
        };
        let size = view.messages.find(2).unwrap().1.size;
        let deleted =
            || Incoming { flags: flags::DELETED, keywords: String::new(), received: None, text: "four".into() };
        let appended = Appended { name: "INBOX".to_owned(), messages: vec![deleted(), deleted()] };
        reading.append(ALICE, appended).await.unwrap();
        reading.flag(1, mailbox, vec![2], flagging(FlagMode::Add)).await.unwrap();
        reading.flag(1, mailbox, vec![4], flagging(FlagMode::Remove)).await.unwrap();
        let answer = reading.mailboxes(1).await.unwrap();
        let Answer::Mailboxes(all) = reading.with_deleted(1, answer).await.unwrap() else { panic!("no list") };
        let told: Vec<u64> = all.iter().map(|mailbox| mailbox.deleted_bytes).filter(|bytes| *bytes > 0).collect();
        assert_eq!(told, [size + 4], "one was marked, one came so and stayed so, one came so and did not");
    }

    /// As many names as an account may have lay in memory for as long as its clients took to read them.
    #[tokio::test]
    async fn names_that_are_listed_take_room() {
        let (_folder, mut reading, database) = site().await;
        deliver(&reading, 1, "", "one").await;
        let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO subscriptions SELECT 1, 'a/b/c/' || i FROM n";
        database.execute(many, []).unwrap();
        let Answer::Mailboxes(all) = reading.mailboxes(1).await.unwrap() else { panic!("no list") };
        assert!(all.len() > 2000);
        // Of a share of 4 MiB, and each text is there twice.
        let _text = reading.room.take(1, 1 << 20).await.unwrap();
        tokio::time::pause();
        assert!(reading.room.take(1, 1 << 20).await.is_err(), "the list has some of it");
        runtime::driver::Backend::sent(&mut reading);
        assert!(reading.room.take(1, 1 << 20).await.is_ok());
    }

    /// What was there is recent for nobody.
    #[tokio::test]
    async fn a_restart_forgets_what_was_recent() {
        let (_folder, mut reading, _database) = site().await;
        deliver(&reading, 1, "", "one").await;
        reading.node.shard(1).notices.recent.forget();
        assert_eq!(look(&mut reading, Some(Claim::Look)).await, (2, 0));
        deliver(&reading, 2, "", "two").await;
        assert_eq!(look(&mut reading, Some(Claim::Look)).await, (2, 1));
    }
}
