//! COPY, MOVE (RFC 6851) and UID EXPUNGE (RFC 4315).

use super::ImapSession;
use super::job::{Job, UidForm};
use crate::imap::question::{CopyMode, Placed, Question, flags};
use imap_types::mailbox::Mailbox as MailboxName;
use imap_types::sequence::SequenceSet;

impl ImapSession {
    pub(super) fn copy(&mut self, tag: String, set: &SequenceSet, to: &MailboxName<'_>, form: UidForm, how: CopyMode) {
        let command = if how == CopyMode::Copy { "COPY" } else { "MOVE" };
        if how == CopyMode::Move && self.is_read_only() {
            return self.done(&tag, "NO [READ-ONLY] the mailbox was opened with EXAMINE");
        }
        let Some(to) = self.named(&tag, to) else { return };
        let uids = self.chosen(set, form);
        self.ask(tag, command, Question::Copy { uids, to: to.clone(), how }, Job::Copy { to, how });
    }

    pub(super) fn copied(&mut self, tag: String, command: &'static str, to: &str, how: CopyMode, placed: &Placed) {
        let code = placed.copy_code();
        match how {
            CopyMode::Copy => self.finish_in(tag, command, to, code),
            // RFC 6851 section 4.3: before the messages are told to be gone.
            CopyMode::Move => {
                if !code.is_empty() {
                    self.put(format!("* OK {code}moved\r\n"));
                }
                self.refresh(tag, command, Job::Placed(String::new()));
            }
        }
    }

    pub(super) fn expunge_uids(&mut self, tag: String, set: &SequenceSet) {
        if self.is_read_only() {
            return self.done(&tag, "NO [READ-ONLY] the mailbox was opened with EXAMINE");
        }
        let mut uids = self.chosen(set, UidForm::Uid);
        let is_deleted = |uid: u32| self.messages().find(uid).is_some_and(|(_, row)| row.flags & flags::DELETED != 0);
        uids.retain(|uid| is_deleted(*uid));
        self.ask(tag, "EXPUNGE", Question::Expunge(uids), Job::Expunge { tell: true });
    }
}
