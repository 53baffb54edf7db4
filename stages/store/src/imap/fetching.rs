//! FETCH over the storage: outlines in portions, texts in loads, the next of which is read while the one before it is
//! sent.
//!
//! Loads need room like every text. What is more than one text, or only may be wanted, takes it while half of it is
//! free: nobody waits for it, and it keeps nobody waiting.

use std::collections::HashMap;

use wire::imap::{Answer, Load, Outline};

use super::{Reading, wide};
use crate::shard::{Begun, Late, Listed, Texts, Whole};
use crate::texts::Held;
use crate::views::number;

/// Bytes of texts of which outlines are made for one question.
const MADE: u64 = 1 << 20;

/// A load that is being read.
pub(super) struct Ahead {
    mailbox: i64,
    load: Load,
    texts: Begun,
    held: Held,
}

impl Reading {
    pub(super) async fn texts(&mut self, account: i64, mailbox: i64, now: Load, next: Load) -> anyhow::Result<Answer> {
        // The load before it has been sent by now.
        self.held = None;
        let ahead = self.ahead.take().filter(|ahead| ahead.mailbox == mailbox && ahead.load == now);
        let texts = match ahead {
            Some(ahead) => {
                self.held = Some(ahead.held);
                ahead.texts.finish().await?
            }
            None => self.load(account, mailbox, now).await?,
        };
        if !next.0.is_empty()
            && let Some(held) = self.room.try_take(account, next.size())
        {
            let texts = self.node.shard(account).reader.load(mailbox, &next);
            self.ahead = Some(Ahead { mailbox, load: next, texts, held });
        }
        let text = |whole: Whole| (number(whole.uid), whole.text);
        Ok(Answer::Texts(texts.count, texts.found.into_iter().map(text).collect()))
    }

    /// Reads a load, or its first text if there is no room for all.
    async fn load(&mut self, account: i64, mailbox: i64, mut load: Load) -> anyhow::Result<Texts> {
        self.held = self.room.try_take(account, load.size());
        if self.held.is_none() {
            load.0.truncate(1);
            self.held = Some(self.room.take(account, load.size()).await?);
        }
        self.node.shard(account).reader.load(mailbox, &load).finish().await
    }

    pub(super) async fn outlines(&mut self, account: i64, mailbox: i64, wanted: Vec<u32>) -> anyhow::Result<Answer> {
        // What an earlier command was given has been sent by now. Kept, it could be the room that is waited for here.
        self.held = None;
        let shard = self.node.shard(account);
        let wanted = wide(wanted);
        let mut listed = shard.reader.outlines(mailbox, wanted.clone()).await?;
        let missing = to_be_made(&listed);
        if !missing.0.is_empty() {
            let held = self.room.take(account, missing.size()).await?;
            let texts = shard.reader.texts(mailbox, uids(&missing)).await??;
            let (made, late) = tokio::task::spawn_blocking(move || made(texts)).await?;
            drop(held);
            // Whether they are kept is no matter: a busy writer has better things to do.
            shard.keep_outlines(late);
            fill(&mut listed, &wanted, made);
        }
        let kept = |(uid, _, outline): (i64, u64, Option<Outline>)| Some((number(uid), outline?));
        Ok(Answer::Outlines(listed.count, listed.found.into_iter().filter_map(kept).collect()))
    }
}

fn uids(load: &Load) -> Vec<i64> {
    load.0.iter().map(|(uid, _)| i64::from(*uid)).collect()
}

/// The first messages whose outlines are missing; one at least.
fn to_be_made(listed: &Listed) -> Load {
    let mut load = Load::default();
    for (uid, size, _) in listed.found.iter().filter(|(_, _, outline)| outline.is_none()) {
        if !load.0.is_empty() && load.size() + size > MADE {
            break;
        }
        load.0.push((number(*uid), *size));
    }
    load
}

/// The last UID that was looked for, and the outlines of those that were there.
type Made = (i64, HashMap<i64, Outline>);

fn made(texts: Texts) -> (Made, Vec<Late>) {
    let (mut made, mut late) = (HashMap::new(), Vec::new());
    for whole in texts.found {
        let (outline, of_body) = whole.outline();
        made.insert(whole.uid, outline);
        late.push(of_body);
    }
    ((texts.last, made), late)
}

/// Puts in what was made. What is still missing was not looked for: the answer ends before it; or it has gone.
fn fill(listed: &mut Listed, wanted: &[i64], (last, mut made): Made) {
    for (uid, _, outline) in listed.found.iter_mut().filter(|(_, _, outline)| outline.is_none()) {
        *outline = made.remove(uid);
    }
    let end = listed.found.iter().position(|(uid, _, outline)| outline.is_none() && *uid > last);
    if let Some(end) = end {
        let uid = listed.found[end].0;
        listed.found.truncate(end);
        listed.count = wanted.partition_point(|other| *other < uid);
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn listed(found: &[(i64, u64, bool)]) -> Listed {
        let one = |&(uid, size, is_kept): &(i64, u64, bool)| (uid, size, is_kept.then(Outline::default));
        Listed { count: 10, found: found.iter().map(one).collect() }
    }

    #[test]
    fn what_is_made_at_once_has_a_bound() {
        let load = |found: &[(i64, u64, bool)]| to_be_made(&listed(found)).0;
        assert_eq!(load(&[(1, 9, true)]), []);
        assert_eq!(load(&[(1, MADE * 2, false), (2, 1, false)]), [(1, MADE * 2)]);
        assert_eq!(
            load(&[(1, 5, false), (2, MADE, true), (3, MADE - 5, false), (4, 1, false)]),
            [(1, 5), (3, MADE - 5)]
        );
    }

    #[test]
    fn an_answer_ends_before_what_was_not_made() {
        let wanted = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        let mut some = listed(&[(1, 0, true), (3, 0, false), (4, 0, false), (6, 0, true), (7, 0, false), (9, 0, true)]);
        // 4 has gone; 7 was not looked for.
        fill(&mut some, &wanted, (4, HashMap::from([(3, Outline::default())])));
        assert_eq!((some.count, some.found.iter().map(|(uid, ..)| *uid).collect::<Vec<_>>()), (6, vec![1, 3, 4, 6]));
        assert!(some.found[2].2.is_none());
        let mut all = listed(&[(1, 0, false), (9, 0, true)]);
        fill(&mut all, &wanted, (1, HashMap::from([(1, Outline::default())])));
        assert_eq!((all.count, all.found.len()), (10, 2));
    }

    use std::cell::RefCell;
    use std::rc::Rc;

    use bytes::Bytes;
    use directory::Directory;
    use futures::FutureExt as _;
    use runtime::config::{ByteSize, Section, Sheet};
    use runtime::driver::Backend as _;

    use super::super::Owner;
    use crate::logins::Logins;
    use crate::node::Node;
    use crate::shard::{Change, Delivery, Limits};

    /// Whose mail is read here.
    pub(in crate::imap) const ALICE: Owner = Owner { account: 1, limits: Limits { bytes: 0, messages: 0 } };

    /// A reader of a node with one shard, and that node's database for whoever spoils it.
    pub(in crate::imap) async fn site() -> (tempfile::TempDir, Reading, rusqlite::Connection) {
        let folder = tempfile::tempdir().unwrap();
        let section = |value| Section::root(value, Rc::new(RefCell::new(Sheet::default())));
        let config = crate::Config::read(section(serde_json::json!({"shards": 1})), folder.path());
        let node = Node::open(&config, "s1").unwrap();
        let directory = directory::Config::read(section(serde_json::json!({})), folder.path());
        let directory = Directory::open(directory).await.unwrap();
        let logins = Logins::new(directory, "s1".to_owned(), config.logins);
        let room = crate::texts::Texts::new(ByteSize::mib(64));
        let reading = Reading::new(node, logins, room, [127, 0, 0, 1].into());
        let database = rusqlite::Connection::open(config.folder.join("shard-000/shard.db")).unwrap();
        (folder, reading, database)
    }

    pub(in crate::imap) async fn deliver(reading: &Reading, mail: u8, prefix: &'static str, body: &str) {
        let body = Bytes::from(body.to_owned());
        let delivery = Delivery { prefix: prefix.into(), ..Delivery::sample(mail, body) };
        reading.node.deliver(delivery).await.unwrap();
    }

    /// The INBOX's id.
    pub(in crate::imap) async fn inbox(reading: &Reading) -> i64 {
        let mailboxes = reading.node.shard(1).reader.mailboxes(1).await.unwrap();
        mailboxes.into_iter().find(|mailbox| mailbox.name == "INBOX").unwrap().id
    }

    /// The fields of each message that is there.
    async fn fields(reading: &mut Reading, uids: &[u32]) -> (usize, Vec<(u32, String)>) {
        let mailbox = inbox(reading).await;
        let Ok(Answer::Outlines(count, found)) = reading.outlines(1, mailbox, uids.to_vec()).await else {
            panic!("no outlines")
        };
        let text = |(uid, outline): (u32, Outline)| (uid, String::from_utf8(outline.fields.to_vec()).unwrap());
        (count, found.into_iter().map(text).collect())
    }

    /// Waits for the writer to have done what came before.
    async fn settled(reading: &Reading) {
        reading.node.change(1, Change::Mailboxes { account: 1 }).await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_or_damaged_outline_only_costs_time() {
        let (_folder, mut reading, database) = site().await;
        deliver(&reading, 1, "Received: r\r\n", "Subject: one\r\n\r\nbody").await;
        deliver(&reading, 2, "Subject: [SPAM]\r\n", "Subject: one\r\n\r\nbody").await;
        deliver(&reading, 3, "", &format!("Subject: three\r\nTo: {}\r\n\r\n", "a@x.example, ".repeat(2000))).await;
        let kept = || {
            database.query_row("SELECT count(*), min(length(outline)) FROM outlines", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
        };
        assert_eq!(kept(), Ok((2, 0)), "one for each body; the third is too large");
        for spoil in [
            "SELECT 1",
            "DELETE FROM outlines",
            "UPDATE outlines SET outline = x'00'",
            "UPDATE outlines SET outline = zeroblob(100)",
            "UPDATE outlines SET outline = 'text'",
            "UPDATE outlines SET outline = substr(outline, 1, 40) WHERE outline != x''",
        ] {
            database.execute_batch(spoil).unwrap();
            let (count, found) = fields(&mut reading, &[1, 2, 3, 4]).await;
            let (uids, texts): (Vec<_>, Vec<_>) = found.into_iter().unzip();
            assert_eq!((count, uids), (4, vec![1, 2, 3]), "{spoil}");
            assert_eq!(texts[..2], ["Subject: one\r\n\r\n", "Subject: [SPAM]\r\nSubject: one\r\n\r\n"], "{spoil}");
            assert!(texts[2].starts_with("Subject: three\r\nTo: a@x"), "{spoil}");
            settled(&reading).await;
            assert_eq!(kept(), Ok((2, 0)), "{spoil}: they are kept again");
        }
    }

    #[tokio::test]
    async fn a_busy_writer_keeps_nobody_from_reading() {
        let (_folder, mut reading, database) = site().await;
        deliver(&reading, 1, "", "Subject: one\r\n\r\n").await;
        database.execute_batch("DELETE FROM outlines").unwrap();
        let release = reading.node.shard(1).busy();
        let want = (1, vec![(1, "Subject: one\r\n\r\n".to_owned())]);
        assert_eq!(fields(&mut reading, &[1]).await, want);
        drop(release);
    }

    /// Commands may follow each other without a pause: the first one's text still had all the room.
    #[tokio::test]
    async fn room_of_a_text_that_was_sent_is_not_waited_for() {
        let (_folder, mut reading, database) = site().await;
        deliver(&reading, 1, "", "Subject: one\r\n\r\n").await;
        database.execute_batch("DELETE FROM outlines").unwrap();
        reading.room = crate::texts::Texts::new(ByteSize::mib(16));
        reading.held = Some(reading.room.take(1, 1 << 20).await.unwrap());
        assert_eq!(fields(&mut reading, &[1]).await.0, 1);
    }

    #[tokio::test]
    async fn who_is_idle_is_not_woken_again_and_again_while_the_database_fails() {
        let (_folder, mut reading, database) = site().await;
        deliver(&reading, 1, "", "one").await;
        reading.view(1, "INBOX".to_owned(), crate::shard::Claim::Take).await.unwrap();
        let mailbox = inbox(&reading).await;
        reading.view_again(1, mailbox).await.unwrap();
        deliver(&reading, 2, "", "two").await;
        database.execute_batch("ALTER TABLE mailboxes RENAME TO hidden").unwrap();
        reading.news().await;
        assert!(reading.view_again(1, mailbox).await.is_err());
        assert_eq!(reading.news().now_or_never(), None);
        database.execute_batch("ALTER TABLE hidden RENAME TO mailboxes").unwrap();
        let Answer::View(view) = reading.view_again(1, mailbox).await.unwrap() else { panic!("no view") };
        assert_eq!(view.messages.len(), 2, "it is told with the next command");
    }

    /// What is made late for a body that has gone must not be kept for another that has its number by now.
    #[tokio::test]
    async fn an_outline_goes_with_its_body() {
        let (_folder, reading, database) = site().await;
        deliver(&reading, 1, "", "Subject: one\r\n\r\n").await;
        let texts = reading.node.shard(1).reader.texts(inbox(&reading).await, vec![1]).await.unwrap().unwrap();
        let (_, late) = made(texts);
        database.execute_batch("DELETE FROM bodies").unwrap();
        let rows = || database.query_row("SELECT count(*) FROM outlines", [], |row| row.get::<_, i64>(0));
        assert_eq!(rows(), Ok(0));
        database.execute_batch("INSERT INTO bodies VALUES (1, zeroblob(32), 1, 0, 60, 1)").unwrap();
        reading.node.shard(1).keep_outlines(late);
        settled(&reading).await;
        assert_eq!(rows(), Ok(0));
    }

    async fn load(reading: &mut Reading, now: &[u32], ahead: &[u32]) -> anyhow::Result<Vec<(u32, String)>> {
        let mailbox = inbox(reading).await;
        let size = |uids: &[u32]| Load(uids.iter().map(|uid| (*uid, 20)).collect());
        let Answer::Texts(_, found) = reading.texts(1, mailbox, size(now), size(ahead)).await? else {
            panic!("no texts")
        };
        let text = |(uid, text): (u32, Bytes)| (uid, String::from_utf8(text.to_vec()).unwrap());
        Ok(found.into_iter().map(text).collect())
    }

    #[tokio::test]
    async fn loads_are_read_ahead() {
        let (folder, mut reading, _) = site().await;
        for number in 1..=6 {
            deliver(&reading, number, "A: b\r\n", &format!("\r\n{number}")).await;
        }
        let text = |uid: u32| (uid, format!("A: b\r\n\r\n{uid}"));
        assert_eq!(load(&mut reading, &[1, 2], &[3, 9]).await.unwrap(), [text(1), text(2)]);
        assert!(reading.ahead.is_some());
        assert_eq!(load(&mut reading, &[3, 9], &[5]).await.unwrap(), [text(3)], "9 is not there");
        assert_eq!(load(&mut reading, &[4], &[]).await.unwrap(), [text(4)], "another than was read ahead");
        // The fifth is damaged: what comes before it is given.
        let pack = folder.path().join("store/shard-000/packs/000001.pack");
        let pack = std::fs::File::options().write(true).open(pack).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&pack, b"!", 4 * 56 + 55).unwrap();
        assert_eq!(load(&mut reading, &[3, 4, 5, 6], &[]).await.unwrap(), [text(3), text(4)]);
        assert!(load(&mut reading, &[5, 6], &[]).await.unwrap_err().to_string().contains("is damaged"));
        assert_eq!(load(&mut reading, &[6], &[]).await.unwrap(), [text(6)]);
    }

    #[tokio::test]
    async fn a_load_in_two_halves_ends_before_what_is_damaged() {
        let (folder, mut reading, _) = site().await;
        for number in 1..=6 {
            deliver(&reading, number, "", &number.to_string()).await;
        }
        let pack = folder.path().join("store/shard-000/packs/000001.pack");
        let pack = std::fs::File::options().write(true).open(pack).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&pack, b"!", 4 * 54 + 53).unwrap();
        let mailbox = inbox(&reading).await;
        for (uids, want) in [(1..=6, 4), (3..=6, 2), (2..=4, 3), (1..=5, 4), (4..=6, 1)] {
            let now = Load(uids.clone().map(|uid| (uid, 100_000)).collect());
            let Ok(Answer::Texts(count, found)) = reading.texts(1, mailbox, now, Load::default()).await else {
                panic!("no texts")
            };
            let found: Vec<u32> = found.into_iter().map(|(uid, _)| uid).collect();
            assert_eq!((count, found), (want, uids.clone().take(want).collect()), "{uids:?}");
        }
        let now = Load((5..=7).map(|uid| (uid, 100_000)).collect());
        assert!(reading.texts(1, mailbox, now, Load::default()).await.is_err());
    }

    #[tokio::test]
    async fn without_room_texts_come_one_by_one() {
        let (_folder, mut reading, _) = site().await;
        deliver(&reading, 1, "", "1").await;
        deliver(&reading, 2, "", "2").await;
        reading.room = crate::texts::Texts::new(ByteSize::mib(16));
        let _most = reading.room.take(1, 400 << 10).await.unwrap();
        assert_eq!(load(&mut reading, &[1, 2], &[2]).await.unwrap(), [(1, "1".to_owned())]);
        assert!(reading.ahead.is_none());
    }
}
