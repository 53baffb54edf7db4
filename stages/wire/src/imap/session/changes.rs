//! What has changed in the selected mailbox since the client was last told.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

use super::ImapSession;
use super::condstore::Tells;
use super::job::{Job, Running, UidForm};
use crate::imap::question::{Answer, MessageRow, Question};
use crate::imap::rows::Rows;
use crate::imap::{encode, set};

impl ImapSession {
    pub(super) fn refresh(&mut self, tag: String, name: &'static str, job: Job) {
        self.question = Some(Question::Changes);
        self.running = Some(Running { tag, name, job, refreshing: true });
    }

    /// What others have changed meanwhile is told before the command ends; but no number may change under a client that uses
    /// them (RFC 3501 section 7.4.1).
    pub(super) fn finish_with_news(&mut self, running: Running) {
        self.refresh(running.tag, running.name, Job::Refresh { expunge: false });
    }

    pub(super) fn refreshed(&mut self, running: &Running, answer: Answer) {
        let (Answer::View(view), Some(selected)) = (answer, &mut self.selected) else {
            self.put("* BYE the mailbox is gone\r\n");
            self.closing = true;
            return;
        };
        let (told, uid, silent, expunge) = match &running.job {
            Job::Store { told, uid, silent, .. } => (told.as_slice(), *uid, *silent, *uid == UidForm::Uid),
            Job::Refresh { expunge } => (&[][..], UidForm::Number, false, *expunge),
            _ => (&[][..], UidForm::Number, false, true),
        };
        let how = How { told, uid, silent, expunge, tells: self.tells };
        selected.uidnext = view.uidnext;
        let lines = changes(&mut selected.messages, view.messages, &how);
        if !lines.is_empty() {
            self.put(lines);
        }
        let name = running.name;
        match &running.job {
            Job::Idle => {}
            Job::Store { modified, uid, .. } if !modified.is_empty() => {
                let number = |found: &u32| if *uid == UidForm::Uid { Some(*found) } else { self.number(*found) };
                let set = set::compress(&modified.iter().filter_map(number).collect::<Vec<_>>());
                self.done(&running.tag, &format!("OK [MODIFIED {set}] the others were changed"));
            }
            Job::Expunge { .. } if self.tells.modseq => {
                self.done(&running.tag, &format!("OK [HIGHESTMODSEQ {}] {name} done", view.modseq));
            }
            _ => self.finish(running),
        }
    }
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

impl How<'_> {
    /// Whether the client sees a difference.
    fn differs(&self, was: &MessageRow, is: &MessageRow) -> bool {
        (was.flags, &was.keywords) != (is.flags, &is.keywords) || (self.tells.modseq && was.modseq != is.modseq)
    }

    fn put_gone(&self, gone: &[(usize, &MessageRow)], lines: &mut BytesMut) {
        if self.tells.vanished && !gone.is_empty() {
            let uids: Vec<u32> = gone.iter().map(|(_, row)| row.uid).collect();
            return lines.put_slice(format!("* VANISHED {}\r\n", set::compress(&uids)).as_bytes());
        }
        for (earlier, (index, _)) in gone.iter().enumerate() {
            lines.put_slice(format!("* {} EXPUNGE\r\n", index + 1 - earlier).as_bytes());
        }
    }

    /// RFC 7162 section 3.2, RFC 9051 section 7.5.2: with QRESYNC, and in IMAP4rev2, each such response has the UID; RFC 7162
    /// section 3.1.3: MODSEQ is told also of what is stored in silence.
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
fn changes(old: &mut Rows, new: Rows, how: &How<'_>) -> BytesMut {
    let (mut gone, mut changed, mut lines) = (Vec::new(), Vec::new(), BytesMut::new());
    let mut told = how.told.iter().peekable();
    old.compare(&new, |was, is| match (was, is) {
        (Some(was), None) => gone.push(was),
        (Some((_, was)), Some((_, is))) if how.differs(was, is) => {
            while told.next_if(|told| **told < is.uid).is_some() {}
            if told.peek() != Some(&&is.uid) {
                changed.push(is.uid);
            }
        }
        (_, _) => {}
    });
    let before = old.len() - if how.expunge { gone.len() } else { 0 };
    let next = if how.expunge {
        how.put_gone(&gone, &mut lines);
        new.clone()
    } else {
        new.with(gone.into_iter().map(|(_, row)| row.clone()), &[])
    };
    if !how.silent || how.tells.modseq {
        changed.extend(how.told);
        changed.sort_unstable();
    }
    // Those that are gone are told as gone.
    let there: Vec<u32> = new.each(&changed).map(|(_, row)| row.uid).collect();
    for (index, row) in next.each(&there) {
        how.put_row(index, row, &mut lines);
    }
    if next.len() > before {
        lines.put_slice(format!("* {} EXISTS\r\n", next.len()).as_bytes());
    }
    *old = next;
    lines
}
