//! A shard's one writer: takes what waits, appends the bodies, commits the rows, all of it synced, and only then says
//! so.
//!
//! When the pack or the commit fails, the whole batch fails, and nothing is half kept.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use proto::Millis;
use runtime::clock;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use tokio::sync::oneshot;

use super::command::{Command, Work};
use super::delivered::{self, Decided, FORGET_MOST};
use super::mailboxes;
use super::notices::{self, Notices};
use super::outlines;
use super::placing::{Limits, Placed};
use super::reader::place;
use super::redo;
use super::sound::Sound;
use super::sweep;
use super::{Admission, Delivery, Kept, Settings, StoreError, Why};
use crate::pack::{self, Current, Packer, Place};

/// An answer, and to whom it will be given once the batch is kept.
type Answered<T> = (oneshot::Sender<Result<T, StoreError>>, Result<T, StoreError>);

/// What was answered in a batch.
#[derive(Default)]
struct Answers {
    delivered: Vec<Answered<Kept>>,
    changed: Vec<Answered<u64>>,
    placed: Vec<Answered<Placed>>,
}

pub(super) struct Writer {
    settings: Settings,
    database: Connection,
    pack: Current,
    packer: Packer,
    sound: Sound,
    forget_at: Instant,
    notices: Notices,
    /// Messages of deleted mailboxes are still there.
    has_doomed: bool,
}

/// How often delivered ids that are too old are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60);

impl Writer {
    pub(super) fn open(settings: Settings, notices: Notices) -> anyhow::Result<Self> {
        let database = super::schema::open_writer(&settings.database(), clock::now())?;
        notices::note(&database)?;
        let last: Option<i64> = database.query_row("SELECT max(pack) FROM bodies", [], |row| row.get(0))?;
        // First what must go, or the last of it would be opened, written to, and removed.
        sweep::finish(&database, &settings.packs())?;
        redo::replay(&database, &settings.packs())?;
        let pack = Current::open_last(&settings.packs(), last.unwrap_or(1))?;
        database.execute("DELETE FROM redo", [])?;
        let now = Instant::now();
        let (sound, forget_at) = (Sound::new(now), now + FORGET_EVERY);
        let packer = Packer::new();
        Ok(Self { settings, database, pack, packer, sound, forget_at, notices, has_doomed: true })
    }

    /// When so many deliveries have gathered, or what takes as long, nothing more is written together with them.
    pub(super) fn batch(&self) -> usize {
        self.settings.batch
    }

    /// A portion of what belonged to deleted mailboxes goes; says whether there may be more. When the disk fails it
    /// stays until there is something to do again.
    pub(super) fn clear_some(&mut self) -> bool {
        self.has_doomed = self.has_doomed && mailboxes::clear(&mut self.database).unwrap_or_else(|error| {
            tracing::warn!(shard = self.settings.number, %error, "messages of deleted mailboxes stay a while longer");
            false
        });
        self.has_doomed
    }

    /// Whether there is something to do between two batches.
    pub(super) fn has_chores(&self) -> bool {
        self.has_doomed || Instant::now() >= self.forget_at
    }

    /// Between two batches. As long as there is more than is forgotten in one go, after each of them: ids must not come
    /// faster than they go.
    pub(super) fn forget_in_time(&mut self) {
        let now = Instant::now();
        if now < self.forget_at {
            return;
        }
        self.forget_at = now + FORGET_EVERY;
        self.has_doomed = true;
        let shard = self.settings.number;
        match delivered::forget(&self.database, clock::patient(), self.settings.delivered_for) {
            Ok(0) => {}
            Ok(count) => {
                tracing::debug!(shard, count, "forgot old delivered ids");
                if count >= FORGET_MOST as usize {
                    self.forget_at = now;
                }
            }
            Err(error) => tracing::warn!(shard, %error, "old delivered ids stay a while longer"),
        }
    }

    pub(super) fn work(&mut self, batch: Vec<Command>) {
        let mut answers = Answers::default();
        let mut records = BytesMut::new();
        let done = self.try_work(batch, &mut answers, &mut records);
        if let Err(error) = &done {
            tracing::error!(shard = self.settings.number, error = format!("{error:#}"), "a batch was not stored");
        }
        if self.pack.length >= self.settings.pack
            && let Err(error) = self.pack.seal()
        {
            tracing::error!(
                shard = self.settings.number,
                error = format!("{error:#}"),
                "the next pack cannot be begun"
            );
        }
        let failed = done.err().map(|error| StoreError::Failed(format!("{error:#}")));
        tell(answers.delivered, failed.as_ref());
        tell(answers.changed, failed.as_ref());
        tell(answers.placed, failed.as_ref());
    }

    fn try_work(&mut self, batch: Vec<Command>, answers: &mut Answers, records: &mut BytesMut) -> anyhow::Result<()> {
        self.sound.age(Instant::now());
        let packs = self.settings.packs();
        let mut senders = batch.into_iter();
        let transaction = match self.database.transaction() {
            Ok(transaction) => transaction,
            Err(error) => {
                refuse_all(&mut senders, answers);
                return Err(error).context("beginning a transaction");
            }
        };
        let mut gathering = Gathering {
            transaction: &transaction,
            now: clock::now(),
            pack: (self.pack.number, self.pack.length),
            records,
            packer: &mut self.packer,
            packs: &packs,
            known_sound: &self.sound,
            sound: HashMap::new(),
            is_doomed: false,
        };
        while let Some(command) = senders.next() {
            let failed = match command {
                Command::Deliver(delivery, answer) => {
                    answered(&mut answers.delivered, answer, gathering.deliver(&delivery))
                }
                Command::Work(work, answer) => answered(&mut answers.changed, answer, gathering.work(&work)),
                Command::Place(placing, answer) => answered(&mut answers.placed, answer, gathering.place(&placing)),
            };
            if let Some(error) = failed {
                refuse_all(&mut senders, answers);
                return Err(error).context("writing rows");
            }
        }
        if !gathering.records.is_empty() || redo::is_due(&self.pack) {
            redo::append(&mut self.pack, &transaction, gathering.records, self.settings.pack)?;
        }
        let (sound, is_doomed) = (gathering.sound, gathering.is_doomed);
        let changed = notices::changed(&transaction)?;
        self.notices.recent.note(&changed);
        transaction.commit().context("committing")?;
        self.has_doomed |= is_doomed;
        self.sound.remember(sound.into_keys(), Instant::now());
        self.notices.tell(&changed);
        Ok(())
    }
}

/// Notes an answer; gives the error with which the batch fails.
fn answered<T>(
    all: &mut Vec<Answered<T>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
    result: rusqlite::Result<Result<T, StoreError>>,
) -> Option<rusqlite::Error> {
    match result {
        Ok(result) => {
            all.push((answer, result));
            None
        }
        Err(error) => {
            all.push((answer, Err(StoreError::Failed(error.to_string()))));
            Some(error)
        }
    }
}

/// Whoever asked may be gone by now; what is stored stays.
fn tell<T>(all: Vec<Answered<T>>, failed: Option<&StoreError>) {
    for (answer, result) in all {
        let _ = answer.send(failed.map_or(result, |failed| Err(failed.clone())));
    }
}

fn refuse_all(rest: &mut impl Iterator<Item = Command>, answers: &mut Answers) {
    let failed = || StoreError::Failed("the batch failed".to_owned());
    for command in rest {
        match command {
            Command::Deliver(_, answer) => answers.delivered.push((answer, Err(failed()))),
            Command::Work(_, answer) => answers.changed.push((answer, Err(failed()))),
            Command::Place(_, answer) => answers.placed.push((answer, Err(failed()))),
        }
    }
}

/// A batch while its rows are being written.
pub(super) struct Gathering<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) now: Millis,
    /// The current pack's number and committed length.
    pub(super) pack: (i64, i64),
    pub(super) records: &'a mut BytesMut,
    packer: &'a mut Packer,
    packs: &'a Path,
    known_sound: &'a Sound,
    /// Rows of the bodies that this batch has written or found sound.
    pub(super) sound: HashMap<[u8; 32], i64>,
    /// Whether a mailbox was deleted, whose messages go afterwards.
    pub(super) is_doomed: bool,
}

impl Gathering<'_> {
    fn deliver(&mut self, delivery: &Delivery) -> rusqlite::Result<Result<Kept, StoreError>> {
        let before = delivered::before(self.transaction, &delivery.mail, &delivery.target, self.now)?;
        match before {
            Some(Decided::Kept) => return Ok(Ok(Kept::Already)),
            Some(Decided::Turned(why)) if delivery.admission != Admission::Released => {
                return Ok(Err(StoreError::TurnedAway(why)));
            }
            Some(Decided::Turned(_)) | None => {}
        }
        let size = i64::try_from(delivery.prefix.len() + delivery.body.len()).unwrap_or(i64::MAX);
        let why = self.turns_away(delivery, size)?;
        let decided = why.map_or(Decided::Kept, Decided::Turned);
        delivered::note(self.transaction, &delivery.mail, &delivery.target, decided, self.now)?;
        if let Some(why) = why {
            return Ok(Err(StoreError::TurnedAway(why)));
        }
        let body = self.body(&delivery.body, &delivery.digest)?;
        outlines::keep(self.transaction, body, &delivery.outline)?;
        let (mailbox, uid, modseq) = self.next_uid(delivery, size)?;
        let insert =
            "INSERT INTO messages (mailbox, uid, modseq, body, size, received, flags, keywords, prefix, mail, held, \
             held_for)
             VALUES (?, ?, ?, ?, ?, ?, 0, '', ?, ?, ?, ?)";
        self.transaction.prepare_cached(insert)?.execute(params![
            mailbox,
            uid,
            modseq,
            body,
            size,
            delivery.received,
            &delivery.prefix[..],
            delivery.mail,
            delivery.held,
            delivery.held_for,
        ])?;
        let add = "INSERT INTO accounts (account, bytes, messages) VALUES (?, ?, 1)
             ON CONFLICT (account) DO UPDATE SET bytes = bytes + excluded.bytes, messages = messages + 1";
        self.transaction.prepare_cached(add)?.execute(params![delivery.account, size])?;
        Ok(Ok(Kept::New))
    }

    fn turns_away(&self, delivery: &Delivery, size: i64) -> rusqlite::Result<Option<Why>> {
        let (most_bytes, most_messages) = match delivery.admission {
            Admission::Removed => return Ok(Some(Why::Removed)),
            Admission::Released | Admission::IfRoom { bytes: 0, messages: 0 } => return Ok(None),
            Admission::IfRoom { bytes, messages } => (bytes, messages),
        };
        let limits = Limits { bytes: most_bytes, messages: most_messages };
        Ok(self.is_full(delivery.account, (size, 1), limits)?.then_some(Why::Full))
    }

    /// The row of a body: one that is there already and whose record is sound, or one whose record goes into the pack
    /// with this batch.
    pub(super) fn body(&mut self, body: &Bytes, digest: &[u8; 32]) -> rusqlite::Result<i64> {
        let known = match self.sound.get(digest) {
            Some(id) => Some((*id, None)),
            None => {
                let known = "SELECT id, pack, offset, length FROM bodies WHERE digest = ?";
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, Some(place(row, 1)?)));
                self.transaction.prepare_cached(known)?.query_row([&digest[..]], read).optional()?
            }
        };
        let id = match known {
            Some((id, place)) => {
                if place.is_some_and(|place| !self.is_sound(place, digest)) {
                    let new = self.append(body, digest);
                    let mend = "UPDATE bodies SET pack = ?, offset = ?, length = ? WHERE id = ?";
                    self.transaction.prepare_cached(mend)?.execute([new.pack, new.offset, new.length, id])?;
                }
                self.transaction.prepare_cached("UPDATE bodies SET refs = refs + 1 WHERE id = ?")?.execute([id])?;
                id
            }
            None => {
                let new = self.append(body, digest);
                let insert = "INSERT INTO bodies (digest, pack, offset, length, refs) VALUES (?, ?, ?, ?, 1)";
                let row = params![&digest[..], new.pack, new.offset, new.length];
                self.transaction.prepare_cached(insert)?.execute(row)?;
                self.transaction.last_insert_rowid()
            }
        };
        self.sound.insert(*digest, id);
        Ok(id)
    }

    fn is_sound(&self, place: Place, digest: &[u8; 32]) -> bool {
        let read =
            if self.known_sound.knows(digest) { Ok(()) } else { pack::read(self.packs, place, digest).map(drop) };
        if let Err(error) = &read {
            tracing::error!(error = format!("{error:#}"), "a mail of the same text has come: it is stored anew");
        }
        read.is_ok()
    }

    fn append(&mut self, body: &[u8], digest: &[u8; 32]) -> Place {
        let record = self.packer.record(body, digest);
        let place = self.next_place(record.len());
        self.records.extend_from_slice(&record);
        place
    }

    /// Takes the next UID and MODSEQ of the mailbox, which is made if it is not there.
    fn next_uid(&self, delivery: &Delivery, size: i64) -> rusqlite::Result<(i64, i64, i64)> {
        let take = "UPDATE mailboxes SET uidnext = uidnext + 1, modseq = modseq + 1, messages = messages + 1,
                 unseen = unseen + 1, bytes = bytes + ?
             WHERE account = ? AND name = ? RETURNING id, uidnext - 1, modseq";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let account = delivery.account;
        let taken = self
            .transaction
            .prepare_cached(take)?
            .query_row(params![size, account, delivery.folder], read)
            .optional()?;
        if let Some(taken) = taken {
            return Ok(taken);
        }
        let name = self.made_for(account, &delivery.folder)?;
        self.transaction.prepare_cached(take)?.query_row(params![size, account, name], read)
    }

    fn work(&mut self, work: &Work) -> rusqlite::Result<Result<u64, StoreError>> {
        match work {
            Work::Change(change) => self.change(change),
            Work::Sweep(sweep) => self.sweep(sweep),
            Work::Outlines(late) => outlines::keep_late(self.transaction, late).map(|()| Ok(0)),
            Work::Wake => Ok(Ok(0)),
            #[cfg(test)]
            Work::BreakDown => panic!("a defect"),
            #[cfg(test)]
            Work::Wait(until) => Ok(Ok(until.lock().is_ok_and(|until| until.recv().is_err()).into())),
        }
    }

    /// Where a record of this length goes in the current pack.
    pub(super) fn next_place(&self, length: usize) -> Place {
        let number = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        Place { pack: self.pack.0, offset: self.pack.1 + number(self.records.len()), length: number(length) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::shard::{Change, Sweep};

    fn delivery(mail: u8) -> Command {
        let delivery = crate::shard::Delivery::sample(mail, Bytes::from_static(b"body"));
        Command::Deliver(Box::new(delivery), oneshot::channel().0)
    }

    fn open(folder: &tempfile::TempDir) -> Writer {
        open_with(folder, 10)
    }

    fn open_with(folder: &tempfile::TempDir, pack: i64) -> Writer {
        let (delivered_for, folder) = (Duration::from_secs(86_400), folder.path().to_owned());
        Writer::open(Settings { folder, number: 0, batch: 9, pack, delivered_for }, Notices::default()).unwrap()
    }

    /// The rows are on the disk, and of the pack nothing is.
    #[test]
    fn a_loss_of_power_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = open_with(&folder, 1 << 20);
        writer.work(vec![delivery(1)]);
        let (path, digest) = (pack::path(&writer.settings.packs(), 1), *blake3::hash(b"body").as_bytes());
        let record = std::fs::read(&path).unwrap();
        assert_eq!(record, pack::record(b"body", &digest));
        drop(writer);
        std::fs::write(&path, b"").unwrap();
        let mut writer = open_with(&folder, 1 << 20);
        assert_eq!(std::fs::read(&path).unwrap(), record);
        let left = "SELECT count(*) FROM redo";
        assert_eq!(writer.database.query_row(left, [], |row| row.get::<_, i64>(0)), Ok(0));
        // As after a sync that failed: the kernel has forgotten what it was to write.
        writer.work(vec![work(Work::Change(Change::Mailboxes { account: 1 }))]);
        writer.sound = Sound::new(Instant::now());
        std::fs::write(&path, b"").unwrap();
        writer.work(vec![delivery(2)]);
        let again = std::fs::read(&path).unwrap();
        writer.pack.is_suspect = true;
        writer.sound = Sound::new(Instant::now());
        std::fs::write(&path, b"").unwrap();
        writer.work(vec![delivery(3)]);
        assert!(std::fs::read(&path).unwrap().starts_with(&again));
    }

    /// Small batches that nothing followed stayed unsynced for ever, and nobody heard that their disk had failed.
    #[test]
    fn a_small_batch_is_synced_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = open_with(&folder, 1 << 20);
        writer.work(vec![delivery(1)]);
        let left = |writer: &Writer| {
            writer.database.query_row("SELECT count(*) FROM redo", [], |row| row.get::<_, i64>(0)).unwrap()
        };
        let wake = || vec![work(Work::Wake)];
        writer.work(wake());
        assert_eq!(left(&writer), 1, "there is time");
        let appended = writer.pack.unsynced_since.unwrap();
        writer.pack.unsynced_since = appended.checked_sub(redo::LONGEST);
        writer.work(wake());
        assert_eq!((left(&writer), writer.pack.unsynced, writer.pack.unsynced_since), (0, 0, None));
    }

    /// More mails come in a minute than are forgotten in one go.
    #[test]
    fn ids_are_forgotten_as_fast_as_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = open(&folder);
        let many = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2499)
             INSERT INTO delivered (mail, target, at, turned) SELECT i, 'a@x', 0, 0 FROM n";
        writer.database.execute(many, []).unwrap();
        writer.forget_at = Instant::now();
        for left in [1500, 500, 0, 0] {
            writer.forget_in_time();
            let count = writer.database.query_row("SELECT count(*) FROM delivered", [], |row| row.get(0));
            assert_eq!(count, Ok(left));
        }
        assert!(writer.forget_at > Instant::now(), "then it rests");
    }

    fn work(work: Work) -> Command {
        Command::Work(work, oneshot::channel().0)
    }

    /// The row of a body goes in the middle of a batch that has referred to it before, and does so again.
    #[test]
    fn a_batch_does_not_refer_to_what_it_has_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = open(&folder);
        writer.work(vec![delivery(1)]);
        assert_eq!(writer.pack.number, 2, "a record fills a pack");
        let expunge = Change::Expunge { account: 1, mailbox: 1, uids: vec![1, 2], only_deleted: false };
        writer.work(vec![delivery(2), work(Work::Change(expunge)), work(Work::Sweep(Sweep::Clear(1))), delivery(3)]);
        let whole = "SELECT uid, pack FROM messages JOIN bodies ON bodies.id = body";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        assert_eq!(writer.database.query_row(whole, [], row).unwrap(), (3, 2));
    }

    /// A body is moved and delivered again in one batch: its new record is not on the disk yet.
    #[test]
    fn a_batch_refers_to_what_it_has_moved() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = open(&folder);
        writer.work(vec![delivery(1)]);
        writer.sound = Sound::new(Instant::now());
        let digest = *blake3::hash(b"body").as_bytes();
        let record = pack::record(b"body", &digest);
        let place = Place { pack: 1, offset: 0, length: i64::try_from(record.len()).unwrap() };
        let carried = super::super::Carried { id: 1, digest, place, record: record.clone() };
        writer.work(vec![work(Work::Sweep(Sweep::Carry(vec![carried]))), delivery(2)]);
        assert_eq!(std::fs::read(pack::path(&writer.settings.packs(), 2)).unwrap(), record, "one record, not two");
    }
}
