//! Messages that a reader brings in, copies or moves.

use runtime::clock;
use wire::imap::{self, Answer, No};

use super::mailboxes::no;
use super::{Owner, Reading, wide};
use crate::shard::{
    Appended, Appending, Change, CopyMode, Copying, Limits, Mailbox, Outlined, PORTION, Placed, Placing, Refusal,
    StoreError,
};
use crate::texts::Gathered;
use crate::views::number;

/// From so many bytes on, those of one command together, the mailbox and the usage are looked at before they are sent:
/// fewer cost less than the look. In the end both are looked at in any case, with the number of messages.
const LOOKED_AT: u32 = 64 * 1024;
/// From so many bytes on a digest is made where a thread may be kept for long.
const LONG: usize = 1 << 20;
/// Messages of an account without a limit of its own, beyond which a reader brings in and copies no more: a copy costs
/// nearly nothing, and each of them lies in memory while its mailbox is open. For mail that is delivered this is no
/// limit.
const MESSAGES: u64 = 1_000_000;

impl Reading {
    /// Whether messages may be put in that are about to be sent, or have been. If not, none that has come is kept.
    pub(super) async fn make_room(&mut self, owner: Owner, name: String, size: u32) -> anyhow::Result<Answer> {
        if size == 0 {
            self.receiving = Gathered::default();
            return Ok(Answer::Done);
        }
        if size >= LOOKED_AT {
            let (is_there, [bytes, messages]) = self.node.shard(owner.account).reader.room(owner.account, name).await?;
            let limits = owner.bounds();
            let over = |used: i64, limit: u64| limit > 0 && used.unsigned_abs() > limit;
            if !is_there {
                self.receiving = Gathered::default();
                return Ok(Answer::No(No::NoSuch));
            }
            if over(bytes.saturating_add(size.into()), limits.bytes) || over(messages + 1, limits.messages) {
                self.receiving = Gathered::default();
                return Ok(Answer::No(No::Full));
            }
        }
        Ok(Answer::Done)
    }

    /// Room for what is being received.
    pub(super) async fn receive(&mut self, account: i64, bytes: u64) -> anyhow::Result<Answer> {
        let is_there = self.room.receive(account, &mut self.receiving, bytes).await?;
        Ok(if is_there { Answer::Done } else { Answer::Unavailable })
    }

    pub(super) async fn append(&mut self, owner: Owner, appended: imap::Appended) -> anyhow::Result<Answer> {
        let held = std::mem::take(&mut self.receiving);
        let mut messages = Vec::with_capacity(appended.messages.len());
        for message in appended.messages {
            messages.push(read(message).await?);
        }
        let (account, limits) = (owner.account, owner.bounds());
        let appending = Appending { account, name: appended.name, messages, limits };
        let placed = self.node.shard(account).place(Placing::Append(appending)).await;
        drop(held);
        told(placed)
    }

    pub(super) async fn copy(
        &self,
        owner: Owner,
        mailbox: i64,
        uids: Vec<u32>,
        to: String,
        how: imap::CopyMode,
    ) -> anyhow::Result<Answer> {
        let how = match how {
            imap::CopyMode::Copy => CopyMode::Copy,
            imap::CopyMode::Move => CopyMode::Move,
        };
        let (account, limits) = (owner.account, owner.bounds());
        told(self.place_in_portions(&Copying { account, mailbox, uids: wide(uids), to, how, limits }).await)
    }

    /// Each portion is placed as a whole or not at all. If one cannot be, what was copied before it is taken back; what
    /// was moved stays where it is: a message is moved or is not (RFC 6851 section 3.3), and the client hears NO. A
    /// crash in between leaves the portions that are placed; no client has heard of them.
    async fn place_in_portions(&self, copying: &Copying) -> Result<Placed, StoreError> {
        let mut all: Option<Placed> = None;
        for uids in copying.uids.chunks(PORTION).chain(copying.uids.is_empty().then_some(&[][..])) {
            let portion = Copying { uids: uids.to_vec(), to: copying.to.clone(), ..*copying };
            let placed = self.node.shard(copying.account).place(Placing::Copy(portion)).await;
            // A mailbox that was deleted meanwhile and made again is another one, in which nothing of before is.
            match (placed, &mut all) {
                (Ok(placed), Some(all)) if placed.uidvalidity == all.uidvalidity => {
                    all.from.extend(placed.from);
                    all.to.extend(placed.to);
                }
                (Ok(placed), _) => all = Some(placed),
                (Err(error), all) => {
                    if let (CopyMode::Copy, Some(all)) = (copying.how, all.take()) {
                        self.take_back(copying, all).await?;
                    }
                    return Err(error);
                }
            }
        }
        all.ok_or(StoreError::Refused(Refusal::NoSuch))
    }

    /// Copies that are not to be.
    async fn take_back(&self, copying: &Copying, placed: Placed) -> Result<(), StoreError> {
        let account = copying.account;
        let listed = self.node.shard(account).reader.listed(account).await;
        let (mailboxes, _) = listed.map_err(|error| StoreError::Failed(format!("{error:#}")))?;
        let is_target = |mailbox: &Mailbox| mailbox.name == copying.to && mailbox.uidvalidity == placed.uidvalidity;
        let Some(target) = mailboxes.into_iter().find(is_target) else { return Ok(()) };
        for uids in placed.to.chunks(PORTION) {
            let expunge = Change::Expunge { account, mailbox: target.id, uids: uids.to_vec(), only_deleted: false };
            self.node.change(account, expunge).await?;
        }
        Ok(())
    }

    /// What the account takes up.
    pub(super) async fn quota(&self, owner: Owner) -> anyhow::Result<Answer> {
        let Owner { account, limits } = owner;
        let (_, [bytes, messages]) = self.node.shard(account).reader.room(account, "INBOX".to_owned()).await?;
        let of = |used: i64, limit: u64| (limit > 0).then(|| (u64::try_from(used).unwrap_or(0), limit));
        let (bytes, messages) = (of(bytes, limits.bytes), of(messages, limits.messages));
        Ok(Answer::Quota(imap::Quota { bytes, messages }))
    }
}

impl Owner {
    /// What the account may take up with what a reader brings in and copies.
    fn bounds(self) -> Limits {
        let messages = if self.limits.messages == 0 { MESSAGES } else { self.limits.messages };
        Limits { messages, ..self.limits }
    }
}

/// A message as it is kept.
async fn read(message: imap::Incoming) -> anyhow::Result<Appended> {
    let imap::Incoming { flags, keywords, received, text } = message;
    let digest = match text.len() {
        LONG.. => {
            let text = text.clone();
            tokio::task::spawn_blocking(move || blake3::hash(&text)).await?
        }
        _ => blake3::hash(&text),
    };
    let now = || i64::try_from(clock::now().0).unwrap_or(i64::MAX);
    Ok(Appended {
        flags,
        keywords,
        received: received.unwrap_or_else(now),
        outline: Outlined::made(&text).await,
        body: text,
        digest: *digest.as_bytes(),
    })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::super::fetching::tests::{ALICE, deliver, inbox, site};
    use super::*;

    #[tokio::test]
    async fn messages_are_not_copied_without_bound() {
        let (_folder, mut reading, database) = site().await;
        deliver(&reading, 1, "", "one").await;
        let mailbox = inbox(&reading).await;
        let appended = || {
            let text = Bytes::from_static(b"two");
            let message = imap::Incoming { flags: 0, keywords: String::new(), received: None, text };
            imap::Appended { name: "INBOX".to_owned(), messages: vec![message] }
        };
        let copied = imap::CopyMode::Copy;
        let before = reading.copy(ALICE, mailbox, vec![1], "INBOX".to_owned(), copied).await.unwrap();
        assert!(matches!(before, Answer::Placed(_)));
        database.execute("UPDATE accounts SET messages = ?", [MESSAGES.cast_signed()]).unwrap();
        let full = Answer::No(No::Full);
        assert_eq!(reading.copy(ALICE, mailbox, vec![1], "INBOX".to_owned(), copied).await.unwrap(), full);
        assert_eq!(reading.append(ALICE, appended()).await.unwrap(), full);
        deliver(&reading, 2, "", "three").await;
        let (_, view) = reading.node.view(1, "INBOX").await.unwrap().unwrap();
        assert_eq!(view.messages.len(), 3, "what is delivered is stored");
    }

    /// What has come is counted while room is asked for what comes next; what is only announced is not.
    #[tokio::test]
    async fn messages_of_one_command_take_their_room_together() {
        const MIB: u64 = 1 << 20;
        let (_folder, mut reading, _database) = site().await;
        deliver(&reading, 1, "", "one").await;
        let inbox = || "INBOX".to_owned();
        assert_eq!(reading.make_room(ALICE, inbox(), 25 << 20).await.unwrap(), Answer::Done);
        // The account may have 16 MiB, which is 8 of messages.
        let mut other = Gathered::default();
        assert!(reading.room.receive(1, &mut other, 8 * MIB).await.unwrap(), "nothing has come");
        drop(other);
        assert_eq!(reading.receive(1, 4 * MIB).await.unwrap(), Answer::Done);
        assert_eq!(reading.make_room(ALICE, inbox(), 2 << 20).await.unwrap(), Answer::Done);
        assert_eq!(reading.receive(1, 6 * MIB).await.unwrap(), Answer::Done);
        let mut other = Gathered::default();
        assert!(reading.room.receive(1, &mut other, 2 * MIB).await.unwrap());
        assert_eq!(reading.receive(1, 7 * MIB).await.unwrap(), Answer::Unavailable, "at once");
        assert_eq!(reading.make_room(ALICE, inbox(), 0).await.unwrap(), Answer::Done);
        assert!(reading.room.receive(1, &mut other, 8 * MIB).await.unwrap(), "it was given back");
    }

    #[tokio::test]
    async fn very_many_messages_are_copied_and_moved_in_portions() {
        let (_folder, reading, database) = site().await;
        for mail in 1..=3 {
            deliver(&reading, mail, "", "text").await;
        }
        reading.node.change(1, Change::Mailboxes { account: 1 }).await.unwrap();
        let mailbox = inbox(&reading).await;
        database
            .execute_batch(
                "UPDATE messages SET uid = 30000 WHERE uid = 2; UPDATE messages SET uid = 50000 WHERE uid = 3; UPDATE \
                 mailboxes SET uidnext = 50001 WHERE uidnext = 4",
            )
            .unwrap();
        let all = || (1..=50_000).collect::<Vec<u32>>();
        let count = async |name: &str| reading.node.view(1, name).await.unwrap().unwrap().1.messages.len();
        let used = || {
            database.query_row("SELECT messages FROM accounts", [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
        };
        let place = async |how| reading.copy(ALICE, mailbox, all(), "Junk".to_owned(), how).await.unwrap();
        let Answer::Placed(placed) = place(imap::CopyMode::Copy).await else { panic!("they were not copied") };
        assert_eq!((placed.from, placed.to), (vec![1, 30_000, 50_000], vec![1, 2, 3]));

        // The third does not fit: the others go again.
        database.execute("UPDATE accounts SET messages = ?", [(MESSAGES - 2).cast_signed()]).unwrap();
        assert_eq!(place(imap::CopyMode::Copy).await, Answer::No(No::Full));
        assert_eq!((count("Junk").await, count("INBOX").await, used()), (3, 3, MESSAGES - 2));

        let Answer::Placed(placed) = place(imap::CopyMode::Move).await else { panic!("they were not moved") };
        assert_eq!((placed.from, placed.to), (vec![1, 30_000, 50_000], vec![6, 7, 8]));
        assert_eq!((count("Junk").await, count("INBOX").await, used()), (6, 0, MESSAGES - 2));
        let none = reading.copy(ALICE, mailbox, Vec::new(), "nowhere".to_owned(), imap::CopyMode::Copy).await.unwrap();
        assert_eq!(none, Answer::No(No::NoSuch));
    }
}
