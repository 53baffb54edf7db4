//! What has changed in the selected mailbox since the client was last told.

use super::ImapSession;
use super::job::{Job, Running, UidForm};
use crate::imap::encode;
use crate::imap::question::{Answer, MessageRow, Question};

impl ImapSession {
    pub(super) fn refresh(&mut self, tag: String, name: &'static str, job: Job) {
        let Some(mailbox) = self.selected.as_ref().map(|selected| selected.name.clone()) else { return };
        self.question = Some(Question::View(mailbox));
        self.running = Some(Running { tag, name, job, refreshing: true });
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
        for line in lines {
            self.put(line);
        }
        self.finish(running);
    }
}

/// Brings a snapshot up to date and gives what the client is told of it. Messages that went stay in the snapshot while
/// sequence numbers must stand still (RFC 3501 section 7.4.1).
fn changes(
    old: &mut Vec<MessageRow>,
    new: Vec<MessageRow>,
    told: &[u32],
    uid: UidForm,
    silent: bool,
    expunge: bool,
) -> Vec<String> {
    let mut lines = Vec::new();
    let find = |uid: u32| new.binary_search_by_key(&uid, |row| row.uid).ok().map(|at| &new[at]);
    if expunge {
        let mut number = 1;
        old.retain(|row| {
            let stays = find(row.uid).is_some();
            if stays {
                number += 1;
            } else {
                lines.push(format!("* {number} EXPUNGE\r\n"));
            }
            stays
        });
    }
    for (number, row) in (1..).zip(old.iter_mut()) {
        let Some(now) = find(row.uid) else { continue };
        let changed = now.flags != row.flags || now.keywords != row.keywords;
        let is_told = told.binary_search(&row.uid).is_ok();
        if (is_told && !silent) || (changed && !is_told) {
            let uid = if uid == UidForm::Uid { format!("UID {} ", now.uid) } else { String::new() };
            lines.push(format!("* {number} FETCH ({uid}FLAGS {})\r\n", encode::flags(now.flags, &now.keywords)));
        }
        row.clone_from(now);
    }
    let last = old.last().map_or(0, |row| row.uid);
    let before = old.len();
    old.extend(new.into_iter().filter(|row| row.uid > last));
    if old.len() > before {
        lines.push(format!("* {} EXISTS\r\n", old.len()));
    }
    lines
}
