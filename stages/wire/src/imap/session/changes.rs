//! What has changed in the selected mailbox since the client was last told.

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

use super::ImapSession;
use super::condstore::Tells;
use super::job::{Job, Running, UidForm};
use crate::imap::question::{Answer, MessageRow, Question};
use crate::imap::rows::Rows;
use crate::imap::{encode, set};

/// Lines that are written before the first of them is sent.
const PORTION: usize = 1000;

impl ImapSession {
    pub(super) fn refresh(&mut self, tag: String, name: &'static str, job: Job) {
        self.question = Some(Question::Changes);
        self.running = Some(Running { tag, name, job, refreshing: true });
    }

    /// What others have changed meanwhile is told before the command ends; but no number may change under a client that
    /// uses them (RFC 3501 section 7.4.1).
    pub(super) fn finish_with_news(&mut self, running: Running) {
        self.refresh(running.tag, running.name, Job::Refresh { expunge: false });
    }

    pub(super) fn refreshed(&mut self, running: Running, answer: Answer) {
        let (Answer::View(view), Some(selected)) = (answer, &mut self.selected) else {
            self.put("* BYE the mailbox is gone\r\n");
            self.closing = true;
            return;
        };
        let how = How::of(&running.job, self.tells);
        selected.uidnext = view.uidnext;
        selected.recent.take(&view);
        let told = changes(&mut selected.messages, view.messages, &how);
        if !told.is_held_back {
            selected.modseq = view.modseq;
        }
        let name = running.name;
        let tell = Box::new(Telling { told, modseq: view.modseq, of: running });
        self.tell_on(Running { tag: String::new(), name, job: Job::Tell(tell), refreshing: false });
    }

    /// Tells the next of what has changed; then the command ends.
    pub(super) fn tell_on(&mut self, mut running: Running) {
        let Job::Tell(telling) = &mut running.job else { return };
        let lines = self.lines(telling);
        if !lines.is_empty() {
            self.put(lines);
        }
        if !telling.told.gone.is_empty() || !telling.told.changed.is_empty() {
            self.running = Some(running);
            return;
        }
        if let Some(count) = telling.told.exists {
            self.put(format!("* {count} EXISTS\r\n"));
        }
        self.put_recent();
        if let Job::Tell(telling) = running.job {
            self.finish_told(&telling.of, telling.modseq);
        }
    }

    /// The next lines, some thousand at most.
    fn lines(&self, telling: &mut Telling) -> BytesMut {
        let mut lines = BytesMut::new();
        let how = How::of(&telling.of.job, self.tells);
        let Told { gone, changed, vanished, .. } = &mut telling.told;
        if !vanished.is_empty() {
            lines.put_slice(format!("* VANISHED {}\r\n", set::compress(vanished)).as_bytes());
            vanished.clear();
        }
        for number in gone.drain(..gone.len().min(PORTION)) {
            let _ = write!(lines, "* {number} EXPUNGE\r\n");
        }
        if gone.is_empty() {
            let next: Vec<u32> = changed.drain(..changed.len().min(PORTION)).collect();
            for (index, row) in self.messages().each(&next) {
                how.put_row(index, &self.shown(row), &mut lines);
            }
        }
        lines
    }

    fn finish_told(&mut self, running: &Running, modseq: u64) {
        let name = running.name;
        match &running.job {
            Job::Idle => {}
            Job::Store { modified, uid, .. } if !modified.is_empty() => {
                let number = |found: &u32| if *uid == UidForm::Uid { Some(*found) } else { self.number(*found) };
                let set = set::compress(&modified.iter().filter_map(number).collect::<Vec<_>>());
                self.done(&running.tag, &format!("OK [MODIFIED {set}] the others were changed"));
            }
            Job::Expunge { .. } if self.tells.modseq => {
                self.done(&running.tag, &format!("OK [HIGHESTMODSEQ {modseq}] {name} done"));
            }
            _ => self.finish(running),
        }
    }
}

/// What a client still has to be told of, before a command ends.
#[derive(Debug)]
pub(super) struct Telling {
    told: Told,
    /// HIGHESTMODSEQ.
    modseq: u64,
    /// The command.
    of: Running,
}

/// What has changed.
#[derive(Debug, Default)]
struct Told {
    /// UIDs that are gone, for a client that wants to hear of these,
    vanished: Vec<u32>,
    /// else numbers, each as it is when those before it have been told.
    gone: VecDeque<usize>,
    /// UIDs.
    changed: VecDeque<u32>,
    /// How many messages there are, if there are more.
    exists: Option<usize>,
    /// It is not all that there is to tell.
    is_held_back: bool,
}

/// How a client is told of changes.
struct How<'a> {
    /// UIDs that it is told of in any case, or in no case, if it has asked for silence.
    told: &'a [u32],
    uid: UidForm,
    silent: bool,
    /// Numbers may change.
    expunge: bool,
    tells: Tells,
}

impl<'a> How<'a> {
    fn of(job: &'a Job, tells: Tells) -> Self {
        let (told, uid, silent, expunge) = match job {
            Job::Store { told, uid, silent, .. } => (told.as_slice(), *uid, *silent, *uid == UidForm::Uid),
            Job::Refresh { expunge } => (&[][..], UidForm::Number, false, *expunge),
            _ => (&[][..], UidForm::Number, false, true),
        };
        Self { told, uid, silent, expunge, tells }
    }

    /// Whether the client sees a difference.
    fn differs(&self, was: &MessageRow, is: &MessageRow) -> bool {
        (was.flags, &was.keywords) != (is.flags, &is.keywords) || (self.tells.modseq && was.modseq != is.modseq)
    }

    fn tell_gone(&self, gone: &[(usize, &MessageRow)], told: &mut Told) {
        if self.tells.vanished {
            told.vanished = gone.iter().map(|(_, row)| row.uid).collect();
        } else {
            told.gone = gone.iter().enumerate().map(|(earlier, (index, _))| index + 1 - earlier).collect();
        }
    }

    /// RFC 7162 section 3.2, RFC 9051 section 7.5.2: with QRESYNC, and in IMAP4rev2, each such response has the UID;
    /// RFC 7162 section 3.1.3: MODSEQ is told also of what is stored in silence.
    fn put_row(&self, index: usize, row: &MessageRow, lines: &mut BytesMut) {
        // Writing into memory does not fail.
        let _ = write!(lines, "* {} FETCH ", index + 1);
        let mut before = "(";
        if self.uid == UidForm::Uid || self.tells.vanished || self.tells.rev2 {
            let _ = write!(lines, "{before}UID {}", row.uid);
            before = " ";
        }
        if !self.silent || self.told.binary_search(&row.uid).is_err() {
            let _ = write!(lines, "{before}FLAGS {}", encode::flags(row.flags, &row.keywords));
            before = " ";
        }
        if self.tells.modseq {
            let _ = write!(lines, "{before}MODSEQ ({})", row.modseq);
        }
        lines.put_slice(b")\r\n");
    }
}

/// Brings what the client was told up to date and gives what it is told of that. Messages that went stay in it while
/// sequence numbers must stand still (RFC 3501 section 7.4.1).
fn changes(old: &mut Rows, new: Rows, how: &How<'_>) -> Told {
    let (mut gone, mut changed, mut told) = (Vec::new(), Vec::new(), Told::default());
    let mut told_anyway = how.told.iter().peekable();
    old.compare(&new, |was, is| match (was, is) {
        (Some(was), None) => gone.push(was),
        (Some((_, was)), Some((_, is))) if how.differs(was, is) => {
            while told_anyway.next_if(|told| **told < is.uid).is_some() {}
            if told_anyway.peek() != Some(&&is.uid) {
                changed.push(is.uid);
            }
        }
        (_, _) => {}
    });
    if how.tells.vanished && !how.expunge && !gone.is_empty() {
        return only_asked(old, &new, how);
    }
    let before = old.len() - if how.expunge { gone.len() } else { 0 };
    told.is_held_back = !how.expunge && !gone.is_empty();
    let next = if how.expunge {
        how.tell_gone(&gone, &mut told);
        new.clone()
    } else {
        new.with(gone.into_iter().map(|(_, row)| row.clone()), &[])
    };
    if !how.silent || how.tells.modseq {
        changed.extend(how.told);
        changed.sort_unstable();
    }
    // Those that are gone are told as gone.
    told.changed = new.each(&changed).map(|(_, row)| row.uid).collect();
    told.exists = (next.len() > before).then_some(next.len());
    *old = next;
    told
}

/// A client that keeps what it has seen up to a MODSEQ must hear first of what went before that, and may not hear of it
/// now: nothing is told but what it has asked for.
fn only_asked(old: &mut Rows, new: &Rows, how: &How<'_>) -> Told {
    let asked: Vec<MessageRow> = new.each(how.told).map(|(_, row)| row.clone()).collect();
    let changed = asked.iter().map(|row| row.uid).collect();
    *old = old.with(asked, &[]);
    Told { changed, is_held_back: true, ..Told::default() }
}
