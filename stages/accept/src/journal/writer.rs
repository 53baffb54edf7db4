//! The one thread that writes: takes what waits, appends it, syncs once, and only then says so.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use proto::MailId;
use tokio::sync::{mpsc, oneshot};

use super::config::Config;
use super::index::Index;
use super::mark::Mark;
use super::record::{self, Place};
use super::segment::{self, Current};
use super::{AppendError, Mail, books};

/// Commands that share a sync at most; what comes meanwhile shares the next.
const BATCH: usize = 1024;
/// Bytes that share a sync at most.
const BATCH_BYTES: usize = 32 << 20;
/// A segment in which everything has ended is closed early once it has this size, so that an idle journal is small.
const EARLY: u64 = 1 << 20;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Append(Mail, oneshot::Sender<Result<(), AppendError>>),
    Mark { segment: u64, id: MailId, mark: Mark, synced: Option<oneshot::Sender<io::Result<()>>> },
}

pub(super) struct Writer {
    config: Config,
    node: String,
    index: Arc<Mutex<Index>>,
    current: Option<Current>,
    next: u64,
    marks: HashMap<u64, File>,
    _lock: File,
}

type Waiting = (Mail, oneshot::Sender<Result<(), AppendError>>);

impl Writer {
    pub(super) fn new(config: Config, node: &str, index: Arc<Mutex<Index>>, lock: File) -> Self {
        // What the books have taken in is removed at the next start: no new segment may have its number.
        let next = index.lock().unwrap_or_else(PoisonError::into_inner).last_segment() + 1;
        let mut writer =
            Self { config, node: node.to_owned(), index, current: None, next, marks: HashMap::new(), _lock: lock };
        writer.look_at_disk();
        writer.fold();
        writer
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until the journal is dropped.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = commands.blocking_recv() {
            let mut bytes = size(&first);
            batch.push(first);
            while batch.len() < BATCH && bytes < BATCH_BYTES {
                let Ok(command) = commands.try_recv() else { break };
                bytes += size(&command);
                batch.push(command);
            }
            self.work(batch.drain(..));
            self.look_at_disk();
            self.close_if_due();
            self.fold();
        }
    }

    fn work(&mut self, batch: impl Iterator<Item = Command>) {
        let mut mails: Vec<Waiting> = Vec::new();
        let mut marks: HashMap<u64, BytesMut> = HashMap::new();
        let mut synced: Vec<(u64, oneshot::Sender<io::Result<()>>)> = Vec::new();
        for command in batch {
            match command {
                Command::Append(mail, done) => mails.push((mail, done)),
                Command::Mark { segment, id, mark, synced: wait } => {
                    mark.encode(id, marks.entry(segment).or_default());
                    synced.extend(wait.map(|wait| (segment, wait)));
                }
            }
        }
        self.append(mails);
        for (segment, bytes) in marks {
            let mut waits = Vec::new();
            synced.retain_mut(|(number, wait)| {
                let mine = *number == segment;
                if mine {
                    let (unused, _) = oneshot::channel();
                    waits.push(std::mem::replace(wait, unused));
                }
                !mine
            });
            let written = self.write_marks(segment, &bytes, !waits.is_empty());
            if let Err(error) = &written {
                tracing::warn!(segment, %error, "marks were not written; a restart repeats what they say");
            }
            for wait in waits {
                let result = written.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string()));
                let _ = wait.send(result);
            }
        }
    }

    fn append(&mut self, mails: Vec<Waiting>) {
        if mails.is_empty() {
            return;
        }
        let heads: Vec<Bytes> = mails.iter().map(|(mail, _)| record::head(mail)).collect();
        let appended = self.try_append(&mails, &heads);
        if let Err(error) = &appended {
            tracing::error!(%error, mails = mails.len(), "mail could not be kept; its senders are told to come again");
        }
        for (_, done) in mails {
            // Whoever asked may be gone by now: then the mail is one whose sender has not heard.
            let _ = done.send(appended.as_ref().copied().map_err(explain));
        }
    }

    fn try_append(&mut self, mails: &[Waiting], heads: &[Bytes]) -> io::Result<()> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.begin_segment()?,
        };
        let mut offset = current.length;
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(3 * mails.len());
        for ((mail, _), head) in mails.iter().zip(heads) {
            pieces.extend(record::pieces(head, mail));
        }
        if let Err(error) = current.append(&mut pieces) {
            // The segment stays closed. What it held before is synced; the attempt is cut off, and if even that fails,
            // its senders come again and are recognised.
            let _ = current.cut_back();
            return Err(error);
        }
        let number = current.number;
        let mut index = self.index();
        for ((mail, _), head) in mails.iter().zip(heads) {
            let Some(head) = record::parse_head(head) else { continue };
            let place = Place { segment: number, offset, envelope: head.envelope, body: head.body };
            index.insert(&head, place, mail.id.arrived().plus(self.config.refill_first));
            offset += place.length();
        }
        index.segments.entry(number).or_default().bytes = offset;
        drop(index);
        self.current = Some(current);
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<Current> {
        let current = Current::create(&self.config.folder, self.next, &self.node)?;
        self.next += 1;
        Ok(current)
    }

    fn write_marks(&mut self, number: u64, bytes: &[u8], sync: bool) -> io::Result<()> {
        if !self.index().segments.contains_key(&number) {
            // The segment went in the meantime: everything in it had ended.
            return Ok(());
        }
        let file = match self.marks.entry(number) {
            std::collections::hash_map::Entry::Occupied(file) => file.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let path = segment::marks_path(&self.config.folder, number);
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                File::open(&self.config.folder)?.sync_all()?;
                place.insert(file)
            }
        };
        let before = file.metadata()?.len();
        let written = file.write_all(bytes).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // Half a mark would hide those behind it.
            let _ = file.set_len(before);
            self.marks.remove(&number);
        }
        written
    }

    fn look_at_disk(&mut self) {
        if let Some(free) = segment::free(&self.config.folder) {
            self.index().free = free;
        }
    }

    /// Closes the current segment at its size, or early when all its mail has ended.
    fn close_if_due(&mut self) {
        let Some(current) = &self.current else { return };
        let over = self.index().segments.get(&current.number).is_some_and(|segment| segment.open.is_empty());
        if current.length >= self.config.segment.0 || (over && current.length >= EARLY) {
            self.current = None;
        }
    }

    /// Segments in which everything has ended go into the books.
    fn fold(&mut self) {
        let current = self.current.as_ref().map(|current| current.number);
        let numbers = self.index().foldable(current);
        if numbers.is_empty() {
            return;
        }
        let ledger = self.index().folded(&numbers, runtime::clock::now());
        if let Err(error) = books::write(&self.config.folder, &ledger) {
            tracing::warn!(%error, "the books cannot be written; segments stay a while longer");
            return;
        }
        let mut left = Vec::new();
        for number in &ledger.folded {
            self.marks.remove(number);
            if let Err(error) = segment::remove(&self.config.folder, *number) {
                tracing::warn!(segment = number, %error, "a segment that has ended cannot be removed");
                left.push(*number);
            }
        }
        self.index().fold(ledger, left);
    }
}

fn size(command: &Command) -> usize {
    match command {
        Command::Append(mail, _) => mail.envelope.len() + mail.body.len(),
        Command::Mark { .. } => 0,
    }
}

fn explain(error: &io::Error) -> AppendError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::Full(error.to_string()),
        _ => AppendError::Io(error.to_string()),
    }
}
