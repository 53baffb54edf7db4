//! The one thread that writes: takes what waits, appends it, syncs once, and only then says so.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use proto::MailId;
use tokio::sync::{mpsc, oneshot};

use super::config::Config;
use super::index::Index;
use super::mark::Mark;
use super::record::{self, Key, Place};
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
    Append(Appending),
    Mark(Marking),
    /// Nothing but what is done after each batch.
    Tidy,
}

/// A mail to be appended.
#[derive(Debug)]
pub(super) struct Appending {
    pub(super) mail: Mail,
    /// The head of its record: its checksum is made where there is more than one thread.
    pub(super) head: Bytes,
    pub(super) done: oneshot::Sender<Result<(), AppendError>>,
}

/// Marks of one mail to be written.
#[derive(Debug)]
pub(super) struct Marking {
    pub(super) id: MailId,
    /// Where its record was when this was said.
    pub(super) segment: u64,
    pub(super) marks: Vec<Mark>,
    /// Who waits until they are synced, and have taken effect. Marks for which nobody waits have taken effect already.
    pub(super) synced: Option<oneshot::Sender<io::Result<Effect>>>,
}

/// What marks that somebody waited for have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Something.
    Changed,
    /// Nothing: it was so, or the mail had ended.
    Nothing,
    /// They were not written: what has begun to be delivered is not refused.
    Begun,
}

pub(super) struct Writer {
    pub(super) config: Config,
    node: String,
    pub(super) key: Key,
    index: Arc<Mutex<Index>>,
    current: Option<Current>,
    /// A closed segment behind whose end lies what could not be cut off.
    spoiled: Option<Current>,
    /// Marks files behind whose sound length lies what could not be cut off.
    spoiled_marks: HashMap<u64, u64>,
    next: u64,
    marks: HashMap<u64, File>,
    /// When something may be carried over again, after an attempt that failed.
    pub(super) carries_from: Instant,
    /// When the disk was looked at.
    looked: Option<Instant>,
    _lock: File,
}

impl Writer {
    pub(super) fn new(config: Config, node: &str, index: Arc<Mutex<Index>>, lock: File) -> Self {
        let (key, next) = {
            let index = index.lock().unwrap_or_else(PoisonError::into_inner);
            // What the books have taken in is removed at the next start: no new segment may have its number.
            (index.key, index.last_segment() + 1)
        };
        let (node, marks) = (node.to_owned(), HashMap::new());
        let carries_from = Instant::now();
        let (current, spoiled, spoiled_marks, looked) = (None, None, HashMap::new(), None);
        let mut writer = Self {
            config,
            node,
            key,
            index,
            current,
            spoiled,
            spoiled_marks,
            next,
            marks,
            carries_from,
            looked,
            _lock: lock,
        };
        writer.look_at_disk(0);
        writer.fold();
        writer
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
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
            self.look_at_disk(bytes);
            self.close_if_due();
            if self.cut_all_marks() {
                self.carry();
            }
            self.fold();
        }
    }

    fn work(&mut self, batch: impl Iterator<Item = Command>) {
        let (mut mails, mut marked) = (Vec::new(), Vec::new());
        for command in batch {
            match command {
                Command::Append(appending) => mails.push(appending),
                Command::Mark(marking) => marked.push(marking),
                Command::Tidy => {}
            }
        }
        self.append(mails);
        self.mark(marked);
    }

    /// Writes marks, those for one segment in one go.
    fn mark(&mut self, marked: Vec<Marking>) {
        let mut segments: HashMap<u64, Vec<Marking>> = HashMap::new();
        let index = self.index();
        for mut marking in marked {
            // The store is ahead of what is known here, so a refusal may still come too late; but not knowingly.
            if marking.marks.contains(&Mark::Refused) && index.is_begun(marking.id) {
                if let Some(wait) = marking.synced.take() {
                    let _ = wait.send(Ok(Effect::Begun));
                }
                continue;
            }
            // A mail that was carried over meanwhile has its marks where its record is.
            let segment = index.segment_of(marking.id).unwrap_or(marking.segment);
            segments.entry(segment).or_default().push(marking);
        }
        drop(index);
        for (segment, marked) in segments {
            let mut bytes = BytesMut::new();
            for marking in &marked {
                bytes.extend_from_slice(&self.encoded(marking.id, &marking.marks));
            }
            let sync = marked.iter().any(|marking| marking.synced.is_some());
            let written = self.write_marks(segment, &bytes, sync);
            if let Err(error) = &written {
                tracing::warn!(segment, %error, "marks were not written; a restart repeats what they say");
                self.doubt_refusals(segment, &marked);
            }
            for marking in marked {
                self.answer(marking, written.as_ref());
            }
        }
    }

    /// As long as the marks of a failed write may be on disk, nobody may rely on these mails, and nobody on their refusal.
    fn doubt_refusals(&self, segment: u64, marked: &[Marking]) {
        if self.spoiled_marks.contains_key(&segment) {
            let refused = marked.iter().filter(|marking| marking.marks.contains(&Mark::Refused));
            self.index().note_unsure(segment, refused.map(|marking| marking.id));
        }
    }

    /// What had to be synced takes effect now, and before anything else is written of that mail: no later record of it may
    /// lack the mark.
    fn answer(&self, marking: Marking, written: Result<&(), &io::Error>) {
        let Some(wait) = marking.synced else { return };
        let changed = written.map(|()| {
            let mut index = self.index();
            let changed = marking.marks.into_iter().filter(|mark| index.apply(marking.id, mark.clone())).count();
            if changed > 0 { Effect::Changed } else { Effect::Nothing }
        });
        let _ = wait.send(changed.map_err(|error| io::Error::new(error.kind(), error.to_string())));
    }

    /// The marks of one mail as the journal has them.
    pub(super) fn encoded(&self, id: MailId, marks: &[Mark]) -> BytesMut {
        let mut bytes = BytesMut::new();
        marks.iter().for_each(|mark| mark.encode(id, &self.key, &mut bytes));
        bytes
    }

    fn append(&mut self, mails: Vec<Appending>) {
        if mails.is_empty() {
            return;
        }
        let appended = self.try_append(&mails);
        if let Err(error) = &appended {
            tracing::error!(%error, mails = mails.len(), "mail could not be kept; its senders are told to come again");
        }
        for Appending { done, .. } in mails {
            // Whoever asked may be gone by now: then the mail is one whose sender has not heard.
            let _ = done.send(appended.as_ref().copied().map_err(explain));
        }
    }

    fn try_append(&mut self, mails: &[Appending]) -> io::Result<()> {
        let (number, mut offset) = self.open_segment()?;
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(3 * mails.len());
        for Appending { mail, head, .. } in mails {
            pieces.extend(record::pieces(head, mail));
        }
        self.append_synced(&mut pieces)?;
        let mut index = self.index();
        for Appending { mail, head, .. } in mails {
            let Some(head) = record::parse_head(head) else { continue };
            let place = Place { segment: number, offset, envelope: head.envelope, body: head.body };
            index.insert(&head, mail.each.clone(), place, mail.id.arrived().plus(self.config.refill_first));
            offset += place.length();
        }
        Ok(())
    }

    /// The number of the current segment, which is begun if there is none, and its length.
    pub(super) fn open_segment(&mut self) -> io::Result<(u64, u64)> {
        self.cut_spoiled()?;
        let current = match self.current.take() {
            Some(current) => current,
            None => {
                let current = Current::create(&self.config.folder, self.next, &self.node, &self.key)?;
                self.next += 1;
                self.index().begin_segment(current.number, self.key, current.length);
                current
            }
        };
        let begun = (current.number, current.length);
        self.current = Some(current);
        Ok(begun)
    }

    /// Appends to the current segment, which is closed if that fails. What it held before is synced; the attempt is cut off.
    pub(super) fn append_synced(&mut self, pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        let Some(mut current) = self.current.take() else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = current.append(pieces) {
            self.spoiled = Some(current);
            let _ = self.cut_spoiled();
            return Err(error);
        }
        self.index().begin_segment(current.number, self.key, current.length);
        self.current = Some(current);
        Ok(())
    }

    /// Until what a failed append has left is cut off, nothing new is kept: it may be whole, and would come back at the next
    /// start as a mail whose sender was told to come again, and has.
    fn cut_spoiled(&mut self) -> io::Result<()> {
        if let Some(spoiled) = &self.spoiled {
            spoiled.cut_back()?;
            self.spoiled = None;
        }
        Ok(())
    }

    pub(super) fn current_number(&self) -> Option<u64> {
        self.current.as_ref().map(|current| current.number)
    }

    /// Closes the current segment.
    pub(super) fn close(&mut self) {
        self.current = None;
    }

    pub(super) fn write_marks(&mut self, number: u64, bytes: &[u8], sync: bool) -> io::Result<()> {
        if !self.index().segments.contains_key(&number) {
            // The segment went in the meantime: everything in it had ended.
            return Ok(());
        }
        self.cut_marks(number)?;
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
            // Half a mark would hide those behind it, and a whole one come true at the next start, although nobody relied
            // on it.
            self.marks.remove(&number);
            self.spoiled_marks.insert(number, before);
            let _ = self.cut_marks(number);
        }
        written
    }

    /// Cuts off what a failed write of marks has left, and syncs that. Until it is done nothing is written behind it.
    fn cut_marks(&mut self, number: u64) -> io::Result<()> {
        let Some(length) = self.spoiled_marks.get(&number) else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(segment::marks_path(&self.config.folder, number))?;
        file.set_len(*length)?;
        file.sync_all()?;
        self.spoiled_marks.remove(&number);
        self.index().note_sure(number);
        Ok(())
    }

    /// Says whether nothing is left to be cut. A mail that is carried over leaves its marks behind: not such ones.
    fn cut_all_marks(&mut self) -> bool {
        let numbers: Vec<u64> = self.spoiled_marks.keys().copied().collect();
        numbers.into_iter().filter(|number| self.cut_marks(*number).is_err()).count() == 0
    }

    /// Takes off what a batch has written, and looks at the disk itself if that is due.
    fn look_at_disk(&mut self, written: usize) {
        let free = self.index().free.saturating_sub(written as u64);
        let due = segment::look_is_due(free, self.config.min_free.0, self.looked.map(|looked| looked.elapsed()));
        let seen = if due { segment::free(&self.config.folder) } else { None };
        if seen.is_some() {
            self.looked = Some(Instant::now());
        }
        self.index().free = seen.unwrap_or(free);
    }

    /// Closes the current segment at its size, or early when all its mail has ended.
    fn close_if_due(&mut self) {
        let Some(current) = &self.current else { return };
        let over = self.index().segments.get(&current.number).is_some_and(|segment| segment.open.is_empty());
        if current.length >= self.config.segment.0 || (over && current.length >= EARLY) {
            self.close();
        }
    }

    /// Segments in which everything has ended go into the books.
    fn fold(&mut self) {
        if self.spoiled.is_some() {
            // What lies behind its end may be a second record of a mail whose first one would go.
            return;
        }
        let numbers = self.index().foldable(self.current_number());
        if numbers.is_empty() {
            return;
        }
        let ledger = self.index().folded(&numbers, runtime::clock::patient());
        if let Err(error) = books::write(&self.config.folder, &ledger) {
            tracing::warn!(%error, "the books cannot be written; segments stay a while longer");
            return;
        }
        let mut left = Vec::new();
        for number in &ledger.folded {
            self.marks.remove(number);
            self.spoiled_marks.remove(number);
            if let Err(error) = segment::let_go(&self.config.folder, *number, ledger.damaged.contains(number)) {
                tracing::warn!(segment = number, %error, "a segment that has ended cannot be removed");
                left.push(*number);
            }
        }
        self.index().fold(ledger, left);
    }
}

fn size(command: &Command) -> usize {
    match command {
        Command::Append(Appending { mail, .. }) => mail.envelope.len() + mail.body.len(),
        Command::Mark(_) | Command::Tidy => 0,
    }
}

fn explain(error: &io::Error) -> AppendError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::Full(error.to_string()),
        _ => AppendError::Io(error.to_string()),
    }
}
