//! What a command still has to do once it was read, and what the answers to its questions mean.

use imap_types::status::StatusDataItemName;

use super::ImapSession;
use super::changes::Telling;
use super::condstore::{Known, Since};
use super::fetch::Fetching;
use super::listing::Listing;
use super::recent::Recent;
use super::search::Searching;
use crate::imap::question::{Answer, CopyMode, Manage, Question};
use crate::imap::rows::Rows;

/// Messages that are put in order in some hundredths of a second.
const MANY: usize = 20_000;
/// Bytes that are looked into in as long, and steps of looking for names.
const LARGE: usize = 1024 * 1024;

/// What a command still has to do.
#[derive(Debug)]
pub(super) enum Job {
    Login,
    List(Box<Listing>),
    Status {
        name: String,
        items: Vec<StatusDataItemName>,
    },
    Open {
        name: String,
        mode: Mode,
        known: Option<Known>,
    },
    Fetch(Fetching),
    /// Flags are being changed; then the view is looked at again.
    Store {
        told: Vec<u32>,
        uid: UidForm,
        silent: bool,
        /// Of a conditional STORE: those that had changed.
        modified: Vec<u32>,
    },
    Search(Searching),
    Expunge {
        tell: bool,
    },
    Refresh {
        expunge: bool,
    },
    /// An idle client is told what is new.
    Idle,
    /// A client is told what went since it last looked.
    Since(Since),
    Manage(Manage),
    /// Room for the message of an APPEND.
    Room,
    /// Room for more of it.
    Receive,
    Append {
        name: String,
    },
    Copy {
        to: String,
        how: CopyMode,
    },
    /// Messages are where they should be; the view is looked at again, and then the client hears this.
    Placed(String),
    /// What the account may take up; and that it holds for this mailbox.
    Quota(Option<String>),
    /// Changes are told.
    Tell(Box<Telling>),
    /// Room for messages that are not to be is given back; then the client hears this.
    GiveUp(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::imap) enum UidForm {
    Uid,
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    ReadWrite,
    ReadOnly,
}

#[derive(Debug)]
pub(super) struct Selected {
    pub(super) name: String,
    pub(super) mode: Mode,
    /// What the client was told.
    pub(super) messages: Rows,
    /// UIDNEXT, as it was then.
    pub(super) uidnext: u32,
    /// HIGHESTMODSEQ of all that it was told.
    pub(super) modseq: u64,
    /// Of which it is the first to be told.
    pub(super) recent: Recent,
    /// UIDs of those that a search saved (RFC 5182), in order; some may be gone by now.
    pub(super) saved: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) tag: String,
    pub(super) name: &'static str,
    pub(super) job: Job,
    /// The view is being looked at again, after which the command is done.
    pub(super) refreshing: bool,
}

impl ImapSession {
    pub(super) fn ask(&mut self, tag: String, name: &'static str, question: Question, job: Job) {
        self.question = Some(question);
        self.running = Some(Running { tag, name, job, refreshing: false });
    }

    pub(super) fn finish(&mut self, running: &Running) {
        let code = if let Job::Placed(code) = &running.job { code.as_str() } else { "" };
        self.done(&running.tag, &format!("OK {code}{} done", running.name));
    }

    /// Whether the next step puts very many messages in order, looks into a large text, or for very many names.
    pub(super) fn is_long(&self) -> bool {
        match self.running.as_ref().map(|running| &running.job) {
            Some(Job::Search(searching)) => searching.is_to_order() && self.messages().len() > MANY,
            Some(Job::List(listing)) => listing.steps() > LARGE,
            Some(Job::Fetch(fetching)) => fetching.looks_into() > LARGE,
            _ => false,
        }
    }

    /// The next step of a command that goes message by message.
    pub(super) fn go_on(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let over = match &mut running.job {
            Job::Fetch(_) => return self.fetch_on(running),
            Job::List(_) => return self.list_on(running),
            Job::Tell(_) => return self.tell_on(running),
            Job::Search(searching) => self.search_next(searching),
            _ => true,
        };
        if !over {
            self.running = Some(running);
            return;
        }
        if let Job::Search(searching) = &running.job {
            self.put_found(&running, searching);
        }
        self.finish_with_news(running);
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        let Some(mut running) = self.running.take() else { return };
        match &running.job {
            Job::Room => return self.room_answered(answer),
            Job::Receive => return self.may_receive(&answer),
            Job::GiveUp(why) => return self.given_up(&running.tag, why),
            _ => {}
        }
        if answer == Answer::Unavailable {
            if matches!(running.job, Job::Idle) {
                // It will be told with what comes next.
                return;
            }
            if matches!(running.job, Job::Placed(_)) {
                // It is done, and must not be tried again. What is new is told with what comes next.
                return self.finish(&running);
            }
            return self.done(&running.tag, "NO [UNAVAILABLE] not at the moment; try again");
        }
        if running.refreshing {
            return self.refreshed(running, answer);
        }
        match (&mut running.job, answer) {
            (Job::Login, answer) => self.login_answered(&running.tag, answer),
            (Job::List(listing), Answer::Mailboxes(mailboxes)) => {
                listing.take(mailboxes);
                self.running = Some(running);
            }
            (Job::List(_) | Job::Status { .. } | Job::Quota(_), answer) => self.answered_of_names(&running, answer),
            (Job::Open { name, mode, known }, Answer::View(view)) => {
                let (name, mode, known) = (std::mem::take(name), *mode, known.take());
                self.opened(&running, name, mode, view, known);
            }
            (Job::Since(_), answer) => self.answered_of_gone(running, answer),
            (Job::Manage(manage), Answer::Done) => self.managed(&running.tag, running.name, manage),
            (Job::Append { .. } | Job::Copy { .. }, answer) => self.placed(running, answer),
            (_, Answer::No(why)) => self.refuse(&running.tag, why),
            (Job::Open { .. }, _) => self.done(&running.tag, "NO [NONEXISTENT] there is no such mailbox"),
            (_, answer) => self.answered_of_messages(running, answer),
        }
    }
}
