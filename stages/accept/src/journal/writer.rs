//! The one thread that writes: takes what waits, appends it, syncs once, and only then says so.

mod marks;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
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
    /// They were not written: what is delivered in part, or on its way to be, is not refused.
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
            // Senders of what is there are told to come again, by other nodes as well.
            if let Err(error) = self.cut_spoiled() {
                tracing::debug!(%error, "what a failed append has left cannot be cut off yet");
            }
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

    fn append(&mut self, mut mails: Vec<Appending>) {
        if mails.is_empty() {
            return;
        }
        let appended = self.try_append(&mut mails);
        if let Err(error) = &appended {
            tracing::error!(%error, mails = mails.len(), "mail could not be kept; its senders are told to come again");
        }
        for Appending { done, .. } in mails {
            // Whoever asked may be gone by now: then the mail is one whose sender has not heard.
            let _ = done.send(appended.as_ref().copied().map_err(explain));
        }
    }

    fn try_append(&mut self, mails: &mut [Appending]) -> io::Result<()> {
        let (number, mut offset) = self.open_segment()?;
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(3 * mails.len());
        for Appending { mail, head, .. } in &*mails {
            pieces.extend(record::pieces(head, mail));
        }
        let appended = self.append_synced(&mut pieces);
        if self.spoiled.is_some() {
            self.index().note_left(mails.iter().flat_map(|appending| appending.mail.keys()));
        }
        appended?;
        let mut index = self.index();
        for Appending { mail, head, .. } in mails {
            let Some(head) = record::parse_head(head) else { continue };
            let place = Place { segment: number, offset, envelope: head.envelope, body: head.body };
            index.insert(
                &head,
                std::mem::take(&mut mail.each),
                place,
                mail.id.arrived().plus(self.config.refill_first),
            );
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

    /// Appends to the current segment, which is closed if that fails. What it held before is synced; the attempt is cut
    /// off.
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

    /// Until what a failed append has left is cut off, nothing new is kept: it may be whole, and would come back at the
    /// next start as a mail whose sender was told to come again, and has.
    fn cut_spoiled(&mut self) -> io::Result<()> {
        if let Some(spoiled) = &self.spoiled {
            spoiled.cut_back()?;
            self.spoiled = None;
            self.index().none_left();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{NOW, config, mail};
    use super::*;

    fn append(writer: &mut Writer, number: u8) -> Result<(), AppendError> {
        let mail = Mail { each: vec![[100 + number; 32]], ..mail(number, 2) };
        let (done, mut wait) = oneshot::channel();
        let head = record::head(&mail, &writer.key);
        writer.append(vec![Appending { mail, head, done }]);
        wait.try_recv().unwrap()
    }

    /// Another node was told that such a mail is not here, kept it, and had it delivered a second time after a restart.
    #[test]
    fn what_a_failed_append_has_left_is_nowhere_only_when_it_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let index = Index::new(books::Ledger::default(), [5; 32], 10, config.doubt_for);
        let lock = File::create(folder.path().join("lock")).unwrap();
        let mut writer = Writer::new(config, "n", Arc::new(Mutex::new(index)), lock);
        let left = |writer: &Writer, key: u8| writer.index().may_be_left(&[[key; 32]]);
        // Takes what is written, and neither syncs nor cuts it.
        writer.current = Some(Current::of(File::options().write(true).open("/dev/null").unwrap()));
        append(&mut writer, 1).unwrap_err();
        assert!(left(&writer, 1) && left(&writer, 101) && !left(&writer, 2));
        append(&mut writer, 2).unwrap_err();
        assert!(left(&writer, 1) && !left(&writer, 2), "of this one nothing was written");
        assert_eq!(writer.index().doubtful(&[1; 32], NOW), None);
        writer.spoiled = Some(Current::of(File::create(folder.path().join("sound")).unwrap()));
        append(&mut writer, 3).unwrap();
        assert!(!left(&writer, 1) && !left(&writer, 101) && !left(&writer, 3));
    }
}
