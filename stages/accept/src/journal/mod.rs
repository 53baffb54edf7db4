//! The journal: the synced record on which every 250 rests.
//!
//! A mail is appended, with its envelope and body, and synced before anybody is told that it is kept; it stays until
//! every recipient has ended. Appends that wait together share one sync (*group commit*): while one runs, the next
//! batch gathers. What happens to a mail later is a *mark* in a file beside its segment, so that a segment and its
//! marks are whole in themselves and go together.
//!
//! | a crash comes | what it leaves | what recovery does |
//! |---|---|---|
//! | before the sync of an append | a torn or unsynced record; nobody was told | cuts a torn tail; a whole record is a mail whose sender will come again, and is recognised |
//! | between the sync and the reply | a mail without the mark that its sender went on | delivers it; the sender's second copy is recognised by its key |
//! | while mail is on its way | pending mail | sends it round again with the same id |
//! | after an end, before its mark is on disk | the mail seems pending | sends it round again; the store knows it already |
//! | between answering 550 and the end | the refusal's mark, which was synced | the mail has ended |
//! | while old mail is carried over | marks without a record, or two records of one mail | marks without a record say nothing; the second record is the mail, in another place |
//! | while a segment is folded into the books | old or new books, never half; files that may still be there | files of a folded segment are removed |
//!
//! A damaged record costs that record only: an error names file and offset, and reading goes on behind it.

mod books;
mod carry;
mod config;
mod doubts;
mod folder;
mod index;
mod mark;
mod recipients;
mod record;
mod recover;
mod segment;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use proto::{Ended, MailId, Millis};
use runtime::tasks::Tasks;
use tokio::sync::{mpsc, oneshot};

pub use books::Books;
pub use config::Config;
pub use index::{Doubt, Pending};
pub use recover::{Damage, Recovery};

use index::Index;
use mark::Mark;
use writer::{Appending, Command, Effect, Marking};

/// Appends and marks that may wait for the writer; whoever comes then waits before that.
const QUEUE: usize = 4096;

/// A mail to be kept.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Its id.
    pub id: MailId,
    /// How many recipients its envelope has.
    pub recipients: u32,
    /// Opaque here, but for the keys of its recipients.
    pub envelope: Bytes,
    /// As the sender gave it.
    pub body: Bytes,
    /// By what the same mail from the same sender is recognised.
    pub doubt: Doubt,
    /// The same for each of its recipients, if there are several. Not in its record: the envelope says it again.
    pub each: Vec<Doubt>,
}

impl Mail {
    /// All by which it is recognised.
    fn keys(&self) -> impl Iterator<Item = Doubt> {
        std::iter::once(self.doubt).chain(self.each.iter().copied())
    }
}

/// Why a mail is not kept.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The journal has reached a high-water mark, or the disk is full.
    #[error("the journal is full: {0}")]
    Full(String),
    /// The disk failed.
    #[error("the journal cannot be written: {0}")]
    Io(String),
}

/// What became of the wish to refuse a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is refused.
    Done,
    /// It cannot be refused any more: some recipient has its copy already, or all checks were passed, and the copies
    /// are under way.
    Begun,
    /// It had ended before.
    Ended,
}

/// The journal of one accept node.
#[derive(Debug, Clone)]
pub struct Journal {
    index: Arc<Mutex<Index>>,
    writer: mpsc::Sender<Command>,
    folder: PathBuf,
    config: Config,
    /// With what new records are written.
    key: record::Key,
}

impl Journal {
    /// Opens the journal in its folder, recovers what a crash left, and starts the writer.
    ///
    /// # Errors
    /// When the folder cannot be read or written, belongs to another node, or is in use by another process.
    pub fn open(config: Config, node: &str, now: Millis) -> anyhow::Result<(Self, Recovery)> {
        let folder = config.folder.clone();
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        folder::sync_above(&folder)?;
        let lock = folder::lock(&folder)?;
        let (index, recovery) = recover::recover(&config, node, now)?;
        let key = index.key;
        let index = Arc::new(Mutex::new(index));
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = writer::Writer::new(config.clone(), node, Arc::clone(&index), lock);
        std::thread::Builder::new().name("journal".into()).spawn(move || writer.run(receiver))?;
        Ok((Self { index, writer: sender, folder, config, key }, recovery))
    }

    /// Watches the writer until the shutdown. It ends by a panic alone as long as this handle is there; nothing is kept
    /// then any more, and nothing noted of what was.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn watch(self, tasks: Tasks) -> anyhow::Result<()> {
        tokio::select! {
            () = tasks.stopping() => Ok(()),
            () = self.writer.closed() => bail!("the journal's writer has ended"),
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a mail. Resolves when its record is synced.
    ///
    /// # Errors
    /// See [`AppendError`]; the mail is then not kept, or at most as one whose sender was not told so: see
    /// [`Self::may_be_left`].
    pub async fn append(&self, mail: Mail) -> Result<(), AppendError> {
        self.room()?;
        let (done, wait) = oneshot::channel();
        let gone = || AppendError::Io("the writer has ended".into());
        let head = record::head(&mail, &self.key);
        let keys: Vec<Doubt> = mail.keys().collect();
        self.writer.send(Command::Append(Appending { mail, head, done })).await.map_err(|_| gone())?;
        wait.await.unwrap_or_else(|_| {
            // Nobody knows how far it came.
            self.index().note_left(keys.into_iter());
            Err(gone())
        })
    }

    /// Whether there is room for more mail.
    ///
    /// # Errors
    /// [`AppendError::Full`] over one of the high-water marks.
    pub fn room(&self) -> Result<(), AppendError> {
        let mut index = self.index();
        let (bytes, mails) = (index.bytes(), index.pending());
        if bytes >= self.config.max_bytes.0 {
            return Err(AppendError::Full(format!("{bytes} bytes, at most {}", self.config.max_bytes)));
        }
        if mails as u64 >= self.config.max_mails {
            return Err(AppendError::Full(format!("{mails} mails are pending")));
        }
        if index.free < self.config.min_free.0 {
            // The writer looks at the disk after each batch. Whoever refuses every mail has no batches: look again
            // here, or room that others make would never be seen.
            index.free = segment::free(&self.config.folder).unwrap_or(index.free);
        }
        if index.free < self.config.min_free.0 {
            return Err(AppendError::Full(format!("{} bytes are free on its disk", index.free)));
        }
        Ok(())
    }

    /// Envelope and body of a pending mail, verified.
    ///
    /// # Errors
    /// When the mail is not pending, or its record is damaged; the error names file and offset.
    pub async fn read(&self, id: MailId) -> anyhow::Result<(Bytes, Bytes)> {
        let mut before = None;
        loop {
            let Some((place, key)) = self.index().record(id) else { bail!("mail {id} is not pending") };
            let folder = self.folder.clone();
            let read = tokio::task::spawn_blocking(move || record::read(&folder, place, &key, id)).await?;
            match read {
                Ok((_, envelope, body)) => return Ok((envelope, body)),
                // It was carried over in between.
                Err(_) if before != Some(place) => before = Some(place),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The sender went on after our reply: it knows that we keep the mail, for all recipients or for those with these
    /// keys.
    pub async fn went_on(&self, id: MailId, heard: &[Doubt]) {
        let heard = heard.iter().copied().collect();
        let segment = self.index().went_on_for(id, &heard);
        self.mark(segment, id, vec![Mark::WentOn]).await;
    }

    /// The mail was refused in the session. Resolves when that is synced; every recipient has ended then.
    ///
    /// # Errors
    /// When it cannot be synced: then nothing has changed.
    pub async fn refuse(&self, id: MailId) -> anyhow::Result<Refusal> {
        let segment = self.index().segment_of(id);
        let Some(segment) = segment else { return Ok(Refusal::Ended) };
        Ok(match self.mark_synced(segment, id, vec![Mark::Refused]).await? {
            Effect::Changed => Refusal::Done,
            Effect::Begun => Refusal::Begun,
            Effect::Nothing => Refusal::Ended,
        })
    }

    /// The mail goes on as held, in this round and every later one. Gives its recipients that are open; none when it is
    /// not pending.
    pub async fn hold(&self, id: MailId, reason: &str) -> Option<Vec<u32>> {
        let (segment, open) = self.index().hold(id, reason)?;
        self.mark(Some(segment), id, vec![Mark::Held(reason.to_owned())]).await;
        Some(open)
    }

    /// All checks were passed, and the copy of that round is under way. Says whether the mail is pending. This waits
    /// for nothing: its sender does. A full queue leaves the mark out, and a crash then costs a copy too many in the
    /// quarantine, if a later round is rejected.
    pub fn clear(&self, id: MailId) -> bool {
        let segment = self.index().clear(id);
        if let Some(segment) = segment {
            let _ =
                self.writer.try_send(Command::Mark(Marking { id, segment, marks: vec![Mark::Cleared], synced: None }));
        }
        self.index().pending_state(id).is_some()
    }

    /// Takes in what became of recipients. Says whether the mail has ended by that.
    pub async fn ended(&self, ended: &Ended) -> bool {
        let id = ended.id;
        let known = self.index().ended(ended);
        let Some((segment, over)) = known else { return false };
        let mut marks: Vec<Mark> = ended.ends.iter().map(Mark::end).collect();
        marks.extend(
            ended.burial.iter().flat_map(|burial| &burial.recipients).map(|recipient| Mark::Buried(*recipient)),
        );
        self.mark(Some(segment), id, marks).await;
        over
    }

    /// Mails of which something is buried.
    pub fn buried(&self) -> Vec<MailId> {
        self.index().buried()
    }

    /// The buried ones among these recipients of a mail, or all that are buried if none is named, go round again. Says
    /// whether there were any. Resolves when that is synced: their dead letter goes then, and nothing else would bring
    /// them back.
    ///
    /// # Errors
    /// When it cannot be synced: then nothing has changed.
    pub async fn replay(&self, id: MailId, recipients: &[u32], now: Millis) -> anyhow::Result<bool> {
        let is_changed = self.change_buried(id, recipients, Mark::Replayed).await?;
        if is_changed {
            self.index().set_due(id, now);
        }
        Ok(is_changed)
    }

    /// An operator gives up the buried ones among these recipients of a mail, or all that are buried if none is named.
    /// Says whether there were any. Resolves when that is synced.
    ///
    /// # Errors
    /// When it cannot be synced: then nothing has changed.
    pub async fn drop_buried(&self, id: MailId, recipients: &[u32]) -> anyhow::Result<bool> {
        self.change_buried(id, recipients, Mark::Dropped).await
    }

    async fn change_buried(&self, id: MailId, recipients: &[u32], mark: fn(u32) -> Mark) -> anyhow::Result<bool> {
        let (segment, buried) = {
            let index = self.index();
            (index.segment_of(id), index.buried_of(id, recipients))
        };
        let Some(segment) = segment.filter(|_| !buried.is_empty()) else { return Ok(false) };
        let effect = self.mark_synced(segment, id, buried.into_iter().map(mark).collect()).await?;
        Ok(effect == Effect::Changed)
    }

    async fn mark_synced(&self, segment: u64, id: MailId, marks: Vec<Mark>) -> anyhow::Result<Effect> {
        let (done, wait) = oneshot::channel();
        self.writer.send(Command::Mark(Marking { id, segment, marks, synced: Some(done) })).await?;
        Ok(wait.await??)
    }

    async fn mark(&self, segment: Option<u64>, id: MailId, marks: Vec<Mark>) {
        let Some(segment) = segment.filter(|_| !marks.is_empty()) else { return };
        // A mark that is lost costs one harmless repetition.
        let _ = self.writer.send(Command::Mark(Marking { id, segment, marks, synced: None })).await;
    }

    /// Has the writer look for what can be put in order, also while no mail comes.
    pub fn tidy(&self) {
        // When its queue is full it has mail, and does so by itself.
        let _ = self.writer.try_send(Command::Tidy);
    }

    /// The last mail that was kept under this key and whose sender has not gone on since, if it is younger than the
    /// configured time.
    pub fn doubtful(&self, key: &Doubt, now: Millis) -> Option<MailId> {
        self.index().doubtful(key, now)
    }

    /// Whether a restart might find this mail refused, because a refusal could be neither recorded nor taken back.
    /// Nobody is told then that it is kept, nor is it taken for another.
    pub fn is_unsure(&self, id: MailId) -> bool {
        self.index().is_unsure(id)
    }

    /// Whether a restart might find a mail with one of these keys, because an append could be neither synced nor taken
    /// back. No other node may be told then that it is not here.
    pub fn may_be_left(&self, keys: &[Doubt]) -> bool {
        self.index().may_be_left(keys)
    }

    /// By what all mails are recognised that are in doubt, and by what their recipients.
    pub fn doubts(&self) -> (Vec<Doubt>, Vec<Doubt>) {
        self.index().all_doubts()
    }

    /// Whether it is certain that every recipient of this mail has ended. Of what arrived before this journal was
    /// begun, or before damage was found in it, nothing is certain.
    pub fn has_ended(&self, id: MailId) -> bool {
        self.index().has_ended(id)
    }

    /// What the refill has to know of a pending mail; none once it has ended.
    pub fn pending(&self, id: MailId) -> Option<Pending> {
        self.index().pending_state(id)
    }

    /// Mails that have not ended although their last round is long ago, at most `limit` of them. Each is due again only
    /// after a longer wait.
    pub fn due(&self, now: Millis, limit: usize) -> Vec<MailId> {
        let (first, most) = (self.config.refill_first, self.config.refill_most);
        self.index().due(now, limit, first, most)
    }

    /// The mail could not be sent round: it is due again at this time.
    pub fn due_again(&self, id: MailId, at: Millis) {
        self.index().due_again(id, at);
    }

    /// Bytes of a pending mail's body.
    pub fn body_size(&self, id: MailId) -> Option<u64> {
        self.index().place(id).map(|place| place.body)
    }

    /// Everything pending is due now: what was on its way may be lost.
    pub fn all_due(&self, now: Millis) {
        self.index().all_due(now);
    }

    /// What became of all recipients ever accepted here.
    pub fn books(&self) -> Books {
        self.index().books()
    }

    /// Pending mails and the bytes of all segments.
    pub fn size(&self) -> (u64, u64) {
        let index = self.index();
        (index.pending() as u64, index.bytes())
    }
}

#[cfg(test)]
pub(crate) mod tests;
