//! A shard's pen, which one has at a time. Whoever wants a change written and finds the pen free writes it on the spot,
//! on its own thread; all else waits for the shard's thread, which writes together what has gathered. So a change that
//! comes alone is spared the way to another thread and back, and many that come at once are synced together.
//!
//! Who writes on the spot does not come before what waits: the thread would never get the pen from a crowd of them.
//!
//! When a writer panics the pen is broken: nothing is written with it any more, and the shard's thread ends.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::command::{Command, Queued};
use super::writer::Writer;

pub(super) struct Pen {
    writer: Mutex<Writer>,
    /// The shard's thread has something to write.
    is_wanted: AtomicBool,
    /// Goes last: nobody else may begin before the writer has ended.
    _lock: Arc<File>,
}

/// What became of a command that was to be written on the spot.
pub(super) enum Tried {
    Written,
    /// And there is something for the shard's thread to do.
    WrittenWithChores,
    /// The pen is not free.
    NotFree(Command),
}

impl Pen {
    pub(super) fn new(writer: Writer, lock: Arc<File>) -> Self {
        Self { writer: Mutex::new(writer), is_wanted: AtomicBool::new(false), _lock: lock }
    }

    /// Writes a command on the spot, if the pen is free. This blocks.
    pub(super) fn try_write(&self, command: Command) -> Tried {
        if self.is_wanted.load(Ordering::Relaxed) {
            return Tried::NotFree(command);
        }
        let Ok(mut writer) = self.writer.try_lock() else { return Tried::NotFree(command) };
        writer.work(vec![command]);
        if writer.has_chores() { Tried::WrittenWithChores } else { Tried::Written }
    }

    /// What the shard's thread does, until the node is dropped or the pen is broken.
    pub(super) fn run(&self, mut commands: mpsc::Receiver<Queued>) {
        while let Some(first) = self.first(&mut commands) {
            let Some(mut writer) = self.take() else { return };
            let mut weight = first.command.weight();
            let mut batch = vec![first];
            while weight < writer.batch() {
                let Ok(next) = commands.try_recv() else { break };
                weight += next.command.weight();
                batch.push(next);
            }
            let (batch, turns): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|queued| (queued.command, queued.turn)).unzip();
            writer.work(batch);
            drop(turns);
            writer.forget_in_time();
        }
    }

    /// The first command of the next batch. Between two batches, and while there is none, a portion of what belonged to
    /// deleted mailboxes goes.
    fn first(&self, commands: &mut mpsc::Receiver<Queued>) -> Option<Queued> {
        while self.take()?.clear_some() {
            match commands.try_recv() {
                Err(TryRecvError::Empty) => {}
                command => return command.ok(),
            }
        }
        commands.blocking_recv()
    }

    fn take(&self) -> Option<MutexGuard<'_, Writer>> {
        self.is_wanted.store(true, Ordering::Relaxed);
        let writer = self.writer.lock();
        self.is_wanted.store(false, Ordering::Relaxed);
        writer.ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;
    use crate::shard::command::Work;
    use crate::shard::{
        Admission, Appended, Appending, Change, Delivery, Kept, Limits, Notices, Outlined, Placing, Reader, Settings,
        Shard, StoreError,
    };

    fn settings(folder: &tempfile::TempDir) -> Settings {
        let (delivered_for, folder) = (Duration::from_secs(86_400), folder.path().to_owned());
        Settings { folder, number: 0, batch: 9, pack: 1 << 20, delivered_for }
    }

    fn open(folder: &tempfile::TempDir) -> Shard {
        Shard::open(settings(folder), Arc::new(tempfile::tempfile().unwrap())).unwrap()
    }

    /// There is no thread that could write it.
    #[test]
    fn who_finds_the_pen_free_writes_on_the_spot() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::open(settings(&folder), Notices::default()).unwrap();
        let pen = Pen::new(writer, Arc::new(tempfile::tempfile().unwrap()));
        let mut answers = Vec::new();
        let mut write = || {
            let (answer, wait) = oneshot::channel();
            answers.push(wait);
            pen.try_write(Command::Work(Work::Change(Change::Mailboxes { account: 1 }), answer))
        };
        assert!(matches!(write(), Tried::WrittenWithChores), "nobody has looked for what is doomed");
        let mut taken = pen.take().unwrap();
        assert!(!taken.clear_some());
        assert!(matches!(write(), Tried::NotFree(_)));
        drop(taken);
        assert!(matches!(write(), Tried::Written));
        pen.is_wanted.store(true, Ordering::Relaxed);
        assert!(matches!(write(), Tried::NotFree(_)));
        let answered = answers.iter_mut().map(|answer| answer.try_recv().is_ok()).collect::<Vec<_>>();
        assert_eq!(answered, [true, false, true, false]);
    }

    /// The thread would never get the pen from a crowd of those who write on the spot.
    #[test]
    fn the_thread_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::open(settings(&folder), Notices::default()).unwrap();
        let pen = Arc::new(Pen::new(writer, Arc::new(tempfile::tempfile().unwrap())));
        let taken = pen.take().unwrap();
        let is_wanted = || pen.is_wanted.load(Ordering::Relaxed);
        assert!(!is_wanted(), "it has the pen");
        let thread = {
            let pen = Arc::clone(&pen);
            std::thread::spawn(move || drop(pen.take().unwrap()))
        };
        let began = Instant::now();
        while !is_wanted() {
            assert!(began.elapsed() < Duration::from_secs(20), "nobody hears that the thread waits");
            std::thread::yield_now();
        }
        drop(taken);
        thread.join().unwrap();
        assert!(!is_wanted());
    }

    /// There is no thread that could write it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_change_that_comes_alone_goes_to_no_thread() {
        let folder = tempfile::tempdir().unwrap();
        let (settings, notices) = (settings(&folder), Notices::default());
        let writer = Writer::open(settings.clone(), notices.clone()).unwrap();
        let (commands, mut receiver) = mpsc::channel(9);
        let shard = Shard {
            number: 0,
            pen: Arc::new(Pen::new(writer, Arc::new(tempfile::tempfile().unwrap()))),
            commands,
            turns: Arc::default(),
            reader: Reader::new(&settings),
            notices,
            packs: settings.packs(),
        };
        shard.change(Change::Mailboxes { account: 1 }).await.unwrap();
        let woken = receiver.try_recv().unwrap().command;
        assert!(matches!(woken, Command::Work(Work::Wake, _)), "nobody has looked for what is doomed");
        assert!(receiver.try_recv().is_err());
    }

    fn appending(texts: impl Iterator<Item = String>) -> Placing {
        let appended = |text: String| Appended {
            flags: 0,
            keywords: String::new(),
            received: 1_700_000_000_000,
            digest: *blake3::hash(text.as_bytes()).as_bytes(),
            outline: Outlined::of(text.as_bytes()),
            body: Bytes::from(text),
        };
        let (limits, messages) = (Limits { bytes: 0, messages: 0 }, texts.map(appended).collect());
        Placing::Append(Appending { account: 1, name: "INBOX".into(), messages, limits })
    }

    /// A hundred sessions of one account, with a thousand messages each, were one transaction of some ten seconds.
    #[tokio::test]
    async fn a_crowd_with_very_many_messages_keeps_no_delivery_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let shard = open(&folder);
        shard.change(Change::Mailboxes { account: 1 }).await.unwrap();
        let release = shard.busy();
        let mut crowd = JoinSet::new();
        for one in 0..10 {
            let (shard, placing) = (shard.clone(), appending((0..20).map(|at| format!("{one} {at}"))));
            crowd.spawn(async move { shard.place(placing).await.unwrap().to });
        }
        tokio::task::yield_now().await;
        let body = Bytes::from_static(b"text");
        let delivery = Delivery { admission: Admission::Released, ..Delivery::sample(1, body) };
        let mut delivered = JoinSet::new();
        delivered.spawn(async move { shard.deliver(delivery).await.unwrap() });
        tokio::task::yield_now().await;
        drop(release);
        assert_eq!(delivered.join_all().await, [Kept::New]);
        let appended: BTreeSet<i64> = crowd.join_all().await.into_iter().flatten().collect();
        assert_eq!((appended.len(), appended.last()), (200, Some(&201)));
        assert!(!appended.contains(&21), "the delivery waited for one of them");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_broken_pen_ends_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let shard = open(&folder);
        // Whoever has the pen: the thread may still be looking for what is doomed.
        let _ = shard.write(Command::Work(Work::BreakDown, oneshot::channel().0)).await;
        shard.ended().await;
        let failed = shard.change(Change::Mailboxes { account: 1 }).await;
        assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_crowd_is_served_by_whoever_has_the_pen() {
        let folder = tempfile::tempdir().unwrap();
        let shard = open(&folder);
        shard.change(Change::Mailboxes { account: 1 }).await.unwrap();
        let mut crowd = JoinSet::new();
        for one in 0..8 {
            let shard = shard.clone();
            crowd.spawn(async move {
                let mut uids = Vec::new();
                for at in 0..25 {
                    let placing = appending(std::iter::once(format!("{one} {at}")));
                    let placed = shard.place(placing).await.unwrap();
                    uids.extend(placed.to);
                }
                uids
            });
        }
        let uids: BTreeSet<i64> = crowd.join_all().await.into_iter().flatten().collect();
        assert!(uids.into_iter().eq(1..=200));
    }
}
