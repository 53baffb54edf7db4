//! A shard: one database, its packs, one writer, any number of readers.

mod changes;
mod command;
mod delivered;
mod filter;
mod index;
mod indexed;
mod mailboxes;
pub(crate) mod marks;
mod notices;
mod outlines;
mod pen;
mod placing;
mod portions;
pub(crate) mod reader;
mod recent;
pub(crate) mod redo;
pub(crate) mod schema;
mod search;
mod sound;
mod sweep;
mod turns;
mod words;
mod writer;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::aside;
use tokio::sync::{mpsc, oneshot};

pub(crate) use changes::{DELETED, REMEMBERED, SEEN};
pub use changes::{FlagChange, FlagMode};
use changes::{KEYWORD_BYTES, MOST_KEYWORDS};
use command::{Command, Queued, Work};
pub(crate) use index::Index;
pub(crate) use indexed::Indexed;
pub use mailboxes::{Manage, Refusal};
pub(crate) use notices::{Notices, Watch};
pub(crate) use outlines::Late;
pub use outlines::Outlined;
use pen::{Pen, Tried};
pub(crate) use placing::{Appended, Appending, CopyMode, Copying, Limits, PORTION, Placed, Placing};
pub(crate) use portions::{Begun, Listed, Texts, Whole};
pub(crate) use reader::{Held, Mailbox, Message, Reader};
pub(crate) use recent::Claim;
pub(crate) use search::Search;
pub(crate) use sweep::{Carried, Sweep, remove};
use turns::Turns;
pub(crate) use words::Words;
use writer::Writer;

/// Deliveries and changes that may wait for a shard's writer; whoever comes then waits before that.
const QUEUE: usize = 4096;
/// What weighs more than so many deliveries waits until the one before it is done, and then behind the deliveries that
/// have come meanwhile: they wait for one such command, not for those of a crowd.
const HEAVY: usize = 16;

/// One mail for one mailbox.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The mail's id.
    pub mail: [u8; 16],
    /// With the mail's id, what is delivered once.
    pub target: String,
    /// The account.
    pub account: i64,
    /// The mailbox; it is made if it is not there.
    pub folder: String,
    /// Header lines of this copy alone.
    pub prefix: Bytes,
    /// The body.
    pub body: Bytes,
    /// BLAKE3 of the body.
    pub digest: [u8; 32],
    /// What is kept of the body for lists.
    pub outline: Outlined,
    /// Milliseconds since 1970.
    pub received: i64,
    /// Whether the mailbox takes it.
    pub admission: Admission,
    /// Why it is held; empty for all other mail.
    pub held: String,
    /// The recipient for whom it is held.
    pub held_for: String,
}

#[cfg(test)]
impl Delivery {
    /// A mail for the INBOX of account 1, which takes it.
    pub(crate) fn sample(mail: u8, body: Bytes) -> Self {
        Self {
            mail: [mail; 16],
            target: "a@x".into(),
            account: 1,
            folder: "INBOX".into(),
            prefix: Bytes::new(),
            digest: *blake3::hash(&body).as_bytes(),
            outline: Outlined::of(&body),
            body,
            received: 1_800_000_000_000,
            admission: Admission::IfRoom { bytes: 0, messages: 0 },
            held: String::new(),
            held_for: String::new(),
        }
    }
}

/// Whether a mailbox takes a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// If there is room for it.
    IfRoom {
        /// Limit of the account in bytes; 0 is none.
        bytes: u64,
        /// Limit of the account in messages; 0 is none.
        messages: u64,
    },
    /// However full it is, and also if it was turned away before: an operator has released it.
    Released,
    /// Not at all: the account was removed.
    Removed,
}

/// Why a mailbox does not take a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// There is no room.
    #[error("the mailbox is full")]
    Full,
    /// The account was removed.
    #[error("the account was removed")]
    Removed,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is in the mailbox.
    New,
    /// It was before.
    Already,
}

/// Why something is not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The mailbox does not take it, now and whenever it comes again.
    #[error("turned away: {0}")]
    TurnedAway(Why),
    /// Messages that would have more keywords than a message may have are left as they were.
    #[error("a message has at most {MOST_KEYWORDS} keywords, of {KEYWORD_BYTES} bytes together")]
    TooManyKeywords,
    /// These were left as they were: they had changed. The others were changed.
    #[error("some messages had changed")]
    Modified(Vec<i64>),
    /// What a reader asked for cannot be; nothing has changed.
    #[error("it cannot be: {0:?}")]
    Refused(#[from] Refusal),
    /// The disk or the database failed; nothing of it is kept.
    #[error("it cannot be stored: {0}")]
    Failed(String),
}

/// A change that a reader asks for.
#[derive(Debug, Clone)]
pub enum Change {
    /// The mailboxes that every account has at first are made.
    Mailboxes {
        /// The account.
        account: i64,
    },
    /// Flags of messages.
    Flags {
        /// The mailbox.
        mailbox: i64,
        /// The messages.
        uids: Vec<i64>,
        /// The change.
        change: FlagChange,
        /// Only of those that have not changed after this MODSEQ.
        unchanged_since: Option<i64>,
    },
    /// Messages go for good.
    Expunge {
        /// Whose they are.
        account: i64,
        /// The mailbox.
        mailbox: i64,
        /// The messages.
        uids: Vec<i64>,
        /// Only those that are marked as deleted at that moment.
        only_deleted: bool,
    },
    /// Mailboxes are made, renamed, deleted, subscribed to.
    Manage {
        /// Whose they are.
        account: i64,
        /// What becomes of which.
        manage: Manage,
    },
}

/// Where a shard lies, and its limits.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) folder: PathBuf,
    pub(crate) number: u32,
    pub(crate) batch: usize,
    pub(crate) pack: i64,
    pub(crate) delivered_for: Duration,
}

impl Settings {
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join("shard.db")
    }

    pub(crate) fn packs(&self) -> PathBuf {
        self.folder.join("packs")
    }
}

/// A shard that is open.
#[derive(Clone)]
pub(crate) struct Shard {
    pub(crate) number: u32,
    /// Before `commands`: the writer is closed by its thread, which ends when the last sender is gone.
    pen: Arc<Pen>,
    commands: mpsc::Sender<Queued>,
    /// At what is heavy.
    turns: Arc<Turns>,
    pub(crate) reader: Reader,
    pub(crate) notices: Notices,
    pub(crate) packs: PathBuf,
}

impl Shard {
    /// Opens a shard of a folder that is locked. The lock is the pen's: the thread writes on for a moment when the last
    /// handle is gone, and nobody else must begin before it has ended.
    pub(crate) fn open(settings: Settings, lock: Arc<File>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&settings.folder)?;
        let notices = Notices::default();
        let writer = Writer::open(settings.clone(), notices.clone())?;
        let (commands, receiver) = mpsc::channel(QUEUE);
        let number = settings.number;
        let name = format!("store-{number}");
        let pen = Arc::new(Pen::new(writer, lock));
        let thread = Arc::clone(&pen);
        std::thread::Builder::new().name(name).spawn(move || thread.run(receiver))?;
        let (reader, turns) = (Reader::new(&settings), Arc::default());
        Ok(Self { number, pen, commands, turns, reader, notices, packs: settings.packs() })
    }

    /// For the shard's thread in any case: the copies of one mail come together, and are synced together.
    pub(crate) async fn deliver(&self, delivery: Delivery) -> Result<Kept, StoreError> {
        let (answer, wait) = oneshot::channel();
        self.queue(Command::Deliver(Box::new(delivery), answer)).await?;
        wait.await.map_err(|_| gone())?
    }

    pub(crate) async fn change(&self, change: Change) -> Result<u64, StoreError> {
        let (answer, wait) = oneshot::channel();
        self.write(Command::Work(Work::Change(change), answer)).await?;
        wait.await.map_err(|_| gone())?
    }

    pub(crate) async fn place(&self, placing: Placing) -> Result<Placed, StoreError> {
        let (answer, wait) = oneshot::channel();
        self.write(Command::Place(Box::new(placing), answer)).await?;
        wait.await.map_err(|_| gone())?
    }

    /// Writes on the spot, or leaves it to the shard's thread.
    async fn write(&self, command: Command) -> Result<(), StoreError> {
        let turn = if command.weight() > HEAVY { Some(self.turns.take(command.whose()).await) } else { None };
        let nothing_waits = self.commands.capacity() == self.commands.max_capacity();
        if !nothing_waits || !aside::is_there() {
            return self.queue(Queued { command, turn }).await;
        }
        // A broken pen is not used again.
        match catch_unwind(AssertUnwindSafe(|| aside::aside(|| self.pen.try_write(command)))) {
            Ok(Tried::Written) => Ok(()),
            Ok(Tried::WrittenWithChores) => {
                self.wake();
                Ok(())
            }
            Ok(Tried::NotFree(command)) => self.queue(Queued { command, turn }).await,
            Err(_) => {
                self.wake();
                Err(gone())
            }
        }
    }

    async fn queue(&self, queued: impl Into<Queued>) -> Result<(), StoreError> {
        self.commands.send(queued.into()).await.map_err(|_| gone())
    }

    /// The thread looks for what is to be done; if it has commands, it does so in any case.
    pub(crate) fn wake(&self) {
        let _ = self.commands.try_send(Command::Work(Work::Wake, oneshot::channel().0).into());
    }

    pub(crate) async fn sweep(&self, sweep: Sweep) -> Result<u64, StoreError> {
        self.work(Work::Sweep(sweep)).await
    }

    /// Keeps outlines that were missing, if the writer has time for it.
    pub(crate) fn keep_outlines(&self, late: Vec<Late>) {
        // They are made again when they are asked for again.
        let _ = self.commands.try_send(Command::Work(Work::Outlines(late), oneshot::channel().0).into());
    }

    /// Resolves when the writer has ended. It does so by a panic alone, as long as this handle is there.
    pub(crate) async fn ended(&self) {
        self.commands.closed().await;
    }

    #[cfg(test)]
    pub(crate) async fn break_down(&self) {
        let _ = self.work(Work::BreakDown).await;
    }

    /// Keeps the writer busy until the sender is dropped.
    #[cfg(test)]
    pub(crate) fn busy(&self) -> std::sync::mpsc::SyncSender<()> {
        let (release, wait) = std::sync::mpsc::sync_channel(1);
        let command = Command::Work(Work::Wait(std::sync::Mutex::new(wait)), oneshot::channel().0);
        assert!(self.commands.try_send(command.into()).is_ok());
        release
    }

    async fn work(&self, work: Work) -> Result<u64, StoreError> {
        let (answer, wait) = oneshot::channel();
        self.queue(Command::Work(work, answer)).await?;
        wait.await.map_err(|_| gone())?
    }
}

fn gone() -> StoreError {
    StoreError::Failed("the shard's writer has ended".to_owned())
}
