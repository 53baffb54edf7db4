//! What the session asks of the world, what the world answers, and what both are about.

use std::sync::Arc;

use bytes::Bytes;

use super::outline::Outline;
use super::rows::Rows;
use super::search::Criteria;
use crate::secret::Secret;

/// The system flags, a bit each.
pub mod flags {
    /// Read.
    pub const SEEN: i64 = 1;
    /// Answered.
    pub const ANSWERED: i64 = 2;
    /// Flagged.
    pub const FLAGGED: i64 = 4;
    /// To be expunged.
    pub const DELETED: i64 = 8;
    /// A draft.
    pub const DRAFT: i64 = 16;
    /// No session was told of it before. It is never kept: a session sees it, or does not.
    pub const RECENT: i64 = 1 << 32;

    pub(in crate::imap) const NAMES: [(i64, &str); 6] = [
        (SEEN, "\\Seen"),
        (ANSWERED, "\\Answered"),
        (FLAGGED, "\\Flagged"),
        (DELETED, "\\Deleted"),
        (DRAFT, "\\Draft"),
        (RECENT, "\\Recent"),
    ];
}

/// What a client may take up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one command with its literals; the message of an APPEND is not among them.
    pub command: u32,
    /// Bytes of one command before the login. A name, a password and their literals need less.
    pub stranger: u32,
    /// Bytes of a message that is appended.
    pub message: u32,
    /// Commands that cannot be read, before the connection is closed.
    pub errors: u32,
    /// Logins that fail, before the connection is closed.
    pub failed_logins: u32,
    /// Items of one FETCH. A client that knows what it wants names a dozen.
    pub fetch_items: usize,
    /// Names of fields in one FETCH: each field of every header is looked up among them. Clients name some dozens.
    pub fetch_fields: usize,
    /// Criteria of one SEARCH that ask for texts: each is looked for in every message.
    pub search_texts: usize,
    /// Messages of a mailbox that can be sorted or put into threads: each takes some 200 bytes while that is done. How
    /// much room there is for them is asked.
    pub sorted: usize,
    /// Keywords named in one command.
    pub keywords: Keywords,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command: 64 * 1024,
            stranger: 8 * 1024,
            message: 25 << 20,
            errors: 50,
            failed_logins: 3,
            fetch_items: 100,
            fetch_fields: 100,
            search_texts: 50,
            sorted: 500_000,
            keywords: Keywords { most: 50, longest: 64, together: 1000 },
        }
    }
}

/// Bounds of the keywords that one command gives a message.
#[derive(Debug, Clone, Copy)]
pub struct Keywords {
    /// How many.
    pub most: usize,
    /// Bytes of each.
    pub longest: usize,
    /// Bytes of all, with a space between each two.
    pub together: usize,
}

/// A mailbox of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Its name, with `/` between levels.
    pub name: String,
    /// Whether there is such a mailbox. If not, its name is subscribed to all the same.
    pub exists: bool,
    /// Its special use (RFC 6154), or empty.
    pub special_use: String,
    /// Whether it is subscribed to.
    pub subscribed: bool,
    /// UIDVALIDITY.
    pub uidvalidity: u32,
    /// UIDNEXT.
    pub uidnext: u32,
    /// Messages.
    pub messages: u64,
    /// Those that are not seen.
    pub unseen: u64,
    /// Those that are to be expunged.
    pub deleted: u64,
    /// Their bytes, if they were asked for.
    pub deleted_bytes: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// HIGHESTMODSEQ.
    pub modseq: u64,
    /// Those of which no session was told.
    pub recent: u64,
}

/// A message of the selected mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// Its UID.
    pub uid: u32,
    /// Bits of [`flags`].
    pub flags: i64,
    /// Keywords, with spaces between.
    pub keywords: Arc<str>,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub received: i64,
    /// MODSEQ: of the mailbox's, when this one was last changed (RFC 7162).
    pub modseq: u64,
}

/// A mailbox as it is at one moment. Those who look at it share its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// UIDVALIDITY.
    pub uidvalidity: u32,
    /// UIDNEXT.
    pub uidnext: u32,
    /// HIGHESTMODSEQ.
    pub modseq: u64,
    /// By UID.
    pub messages: Rows,
    /// The first UID of those of which no session was told before; UIDNEXT if there are none.
    pub recent: u32,
}

/// How flags change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagMode {
    /// These and no others.
    Set,
    /// These too.
    Add,
    /// Not these.
    Remove,
}

/// Messages by UID, each with its bytes, as the view said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load(pub Vec<(u32, u64)>);

impl Load {
    /// The bytes of all.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|(_, size)| size).sum()
    }
}

/// What the session asks of the world.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// Is this the user's password? Answer: done, refused, or elsewhere.
    Login {
        /// The user.
        user: String,
        /// The password.
        password: Secret<String>,
    },
    /// Which mailboxes are there? Answer: mailboxes.
    Mailboxes,
    /// How is this mailbox now? It becomes the one that the questions below are about. Answer: view, or refused if
    /// there is none of that name.
    View(String),
    /// Change flags. Answer: done, or refused if a message would have too many keywords.
    Flags {
        /// Of these messages.
        uids: Vec<u32>,
        /// In this way.
        how: FlagMode,
        /// Bits of [`flags`].
        flags: i64,
        /// Keywords.
        keywords: Vec<String>,
        /// Only of those that have not changed after this MODSEQ. The others are the answer, if there are any:
        /// modified.
        unchanged_since: Option<u64>,
    },
    /// Remove these messages for good. Answer: done.
    Expunge(Vec<u32>),
    /// Which of these messages meet the criteria? Answer: found.
    Search {
        /// What they have to meet.
        criteria: Arc<Criteria>,
        /// Their sequence numbers and rows: some that the criteria need more for than their rows.
        asked: Vec<(u32, MessageRow)>,
    },
    /// What is kept of the texts of these messages. Answer: outlines.
    Outlines(Vec<u32>),
    /// The texts of these messages. Answer: texts.
    Texts {
        /// What is wanted now.
        now: Load,
        /// What will be wanted next, if all goes well: it may be read meanwhile.
        ahead: Load,
    },
    /// How is the mailbox now that was viewed last? Answer: view, or refused if it is gone.
    Changes,
    /// Which messages of it were expunged after this MODSEQ? Answer: gone.
    Gone(u64),
    /// What does the account take up, and what may it? Answer: quota.
    Quota,
    /// Make, rename, delete or subscribe to a mailbox. Answer: done, or no.
    Manage(Manage),
    /// May messages of this size be put into this mailbox? They are asked about before they come; with 0 bytes they do
    /// not, and what room there is in memory for them is given back, as it is when they are appended. Answer: done, or
    /// no.
    Room {
        /// The mailbox.
        name: String,
        /// Bytes.
        size: u32,
    },
    /// Keep these messages, all or none. Answer: placed, or no.
    Append(Appended),
    /// Copy these messages into another mailbox, all or none; or move them, each or not. Answer: placed, or no.
    Copy {
        /// Their UIDs.
        uids: Vec<u32>,
        /// The mailbox.
        to: String,
        /// What becomes of these.
        how: CopyMode,
    },
    /// The same as `View`; and this session takes the messages of which none was told before, now and whenever it asks
    /// for changes: no other will be told that they are recent.
    Select(String),
    /// Is there room in memory for so many bytes of what is to be put in order, together with what there was before? It
    /// is kept until something else than outlines is asked for; 0 gives it back. Answer: done, or refused if no account
    /// may have so much.
    Gather(u64),
    /// What mailboxes are there, with the bytes of what is marked as deleted, for which it may take longer? Answer:
    /// mailboxes, or unavailable.
    MailboxesWithDeleted,
    /// How is the mailbox of this name, with the bytes of what is marked as deleted? Answer: mailboxes, which is this
    /// one, or none.
    MailboxWithDeleted(String),
    /// Is there room in memory for so many bytes of messages that are being received, together with what there was
    /// before? It is kept until they are appended or given up. Answer: done, or unavailable.
    Receive(u64),
    /// How is the mailbox of this name? Answer: mailboxes, which is this one, or none.
    Mailbox(String),
}

/// What an account takes up and may take up, where it has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes.
    pub bytes: Option<(u64, u64)>,
    /// Messages.
    pub messages: Option<(u64, u64)>,
}

/// What becomes of messages that are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyMode {
    /// They stay.
    Copy,
    /// They go for good (RFC 6851).
    Move,
}

/// Messages that a client brings in.
#[derive(Debug, PartialEq, Eq)]
pub struct Appended {
    /// The mailbox.
    pub name: String,
    /// In their order; there is at least one.
    pub messages: Vec<Incoming>,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Bits of [`flags`].
    pub flags: i64,
    /// Keywords, with spaces between.
    pub keywords: String,
    /// Milliseconds since 1970; none is now.
    pub received: Option<i64>,
    /// The message.
    pub text: Bytes,
}

/// Where messages are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// UIDVALIDITY of the mailbox.
    pub uidvalidity: u32,
    /// The UIDs that they had, in order; none of an appended message.
    pub from: Vec<u32>,
    /// The UIDs that they have there, as many and in the same order.
    pub to: Vec<u32>,
}

/// What becomes of which mailbox. All names are good ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manage {
    /// It is made, and what is above it.
    Create {
        /// Its name.
        name: String,
        /// Its special use (RFC 6154), or empty.
        special_use: String,
    },
    /// It goes with its messages.
    Delete(String),
    /// It gets another name, and so does what is below it. The INBOX only gives its messages away.
    Rename {
        /// Its name so far.
        from: String,
        /// Its name from then on.
        to: String,
    },
    /// It is subscribed to.
    Subscribe(String),
    /// It is no longer.
    Unsubscribe(String),
}

/// Why something cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum No {
    /// There is such a mailbox already.
    Exists,
    /// There is no such mailbox.
    NoSuch,
    /// It is there only for the mailboxes below it.
    HasInferiors,
    /// There would be too many, or too long names.
    TooMany,
    /// It cannot be at all.
    Cannot,
    /// The account has no room for it.
    Full,
    /// Another mailbox has the special use.
    UseTaken,
}

/// What the world says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// No.
    Refused,
    /// The mailboxes.
    Mailboxes(Vec<Mailbox>),
    /// The mailbox.
    View(View),
    /// The UIDs of those that do.
    Found(Vec<u32>),
    /// Outlines of the first so many of the messages that were asked about, with the messages' UIDs: what is missing
    /// among these is gone. At least one, unless none was asked about.
    Outlines(usize, Vec<(u32, Outline)>),
    /// The same with texts.
    Texts(usize, Vec<(u32, Bytes)>),
    /// The mailbox is on the store node of this name.
    Elsewhere(String),
    /// Not at the moment.
    Unavailable,
    /// Done, but not of these messages, in order: they had changed.
    Modified(Vec<u32>),
    /// The account has as many sessions as it may have.
    Crowded,
    /// UIDs of the expunged; none if they are not remembered for so long.
    Gone(Option<Vec<u32>>),
    /// No, and why.
    No(No),
    /// What the account takes up.
    Quota(Quota),
    /// They are there.
    Placed(Placed),
}
