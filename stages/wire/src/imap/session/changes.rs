//! What has changed in the selected mailbox since the client was last told.

use bytes::{BufMut as _, BytesMut};

use super::ImapSession;
use super::job::{Job, Running, UidForm};
use crate::imap::encode;
use crate::imap::question::{Answer, Question};
use crate::imap::rows::Rows;

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
            Job::Store { told, uid, silent } => (told.as_slice(), *uid, *silent, *uid == UidForm::Uid),
            Job::Refresh { expunge } => (&[][..], UidForm::Number, false, *expunge),
            _ => (&[][..], UidForm::Number, false, true),
        };
        let lines = changes(&mut selected.messages, view.messages, told, uid, silent, expunge);
        if !lines.is_empty() {
            self.put(lines);
        }
        if !matches!(running.job, Job::Idle) {
            self.finish(running);
        }
    }
}

/// Brings what the client was told up to date and gives what it is told of that. Messages that went stay in it while
/// sequence numbers must stand still (RFC 3501 section 7.4.1).
fn changes(old: &mut Rows, new: Rows, told: &[u32], uid: UidForm, silent: bool, expunge: bool) -> BytesMut {
    let (mut gone, mut changed, mut lines) = (Vec::new(), Vec::new(), BytesMut::new());
    old.compare(&new, |was, is| match (was, is) {
        (Some(was), None) => gone.push(was),
        (Some((_, was)), Some((_, is))) if (was.flags, &was.keywords) != (is.flags, &is.keywords) => {
            if told.binary_search(&is.uid).is_err() {
                changed.push(is.uid);
            }
        }
        (_, _) => {}
    });
    let before = old.len() - if expunge { gone.len() } else { 0 };
    let next = if expunge {
        for (earlier, (index, _)) in gone.iter().enumerate() {
            lines.put_slice(format!("* {} EXPUNGE\r\n", index + 1 - earlier).as_bytes());
        }
        new.clone()
    } else {
        new.with(gone.into_iter().map(|(_, row)| row.clone()), &[])
    };
    if !silent {
        changed.extend(told);
        changed.sort_unstable();
    }
    for (index, row) in changed.iter().filter(|uid| new.find(**uid).is_some()).filter_map(|uid| next.find(*uid)) {
        let uid = if uid == UidForm::Uid { format!("UID {} ", row.uid) } else { String::new() };
        let flags = encode::flags(row.flags, &row.keywords);
        lines.put_slice(format!("* {} FETCH ({uid}FLAGS {flags})\r\n", index + 1).as_bytes());
    }
    if next.len() > before {
        lines.put_slice(format!("* {} EXISTS\r\n", next.len()).as_bytes());
    }
    *old = next;
    lines
}
