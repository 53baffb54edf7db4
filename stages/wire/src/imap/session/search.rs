//! Searching the selected mailbox.

use std::collections::VecDeque;

use imap_types::command::CommandBody;
use imap_types::search::SearchKey;

use super::ImapSession;
use super::job::{Job, Running, UidForm};
use super::messages::form;
use crate::imap::question::Answer;
use crate::imap::readable::Readable;
use crate::imap::search::{self, Criteria};

impl ImapSession {
    pub(super) fn in_search(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            CommandBody::Search { charset: Some(charset), .. } if !search::knows(&charset) => {
                self.done(&tag, "NO [BADCHARSET (US-ASCII UTF-8)] this charset is not known");
            }
            CommandBody::Search { criteria, uid, .. } => self.search(tag, &SearchKey::And(criteria), form(uid)),
            _ => self.done(&tag, "NO [CANNOT] this command is not supported"),
        }
    }

    fn search(&mut self, tag: String, key: &SearchKey<'_>, uid: UidForm) {
        let mut reading = search::Reading { last: self.last(), texts: self.limits.search_texts };
        match reading.read(key) {
            Ok(criteria) => {
                let left = self.messages().iter().map(|row| row.uid).collect();
                let job = Job::Search { criteria: Box::new(criteria), left, found: Vec::new(), uid };
                self.running = Some(Running { tag, name: "SEARCH", job, refreshing: false });
            }
            Err(why) => self.done(&tag, &format!("NO {why}")),
        }
    }

    pub(super) fn search_next(&mut self, criteria: &Criteria, left: &mut VecDeque<u32>, found: &mut Vec<u32>) -> bool {
        if criteria.needs_text() {
            self.ask_text(left.front());
        } else {
            found.extend(left.drain(..).filter(|uid| self.meets(criteria, *uid, None)));
        }
        left.is_empty()
    }

    pub(super) fn meets(&self, criteria: &Criteria, uid: u32, text: Option<&[u8]>) -> bool {
        let Some(number) = self.number(uid) else { return false };
        let Some((_, row)) = self.messages().find(uid) else { return false };
        criteria.hold(&search::Candidate { row, number, text: text.map(Readable::new) })
    }

    pub(super) fn answered_of_search(&mut self, mut running: Running, answer: Answer) {
        let Job::Search { criteria, left, found, .. } = &mut running.job else { return };
        match answer {
            Answer::Text(text) => {
                found.extend(left.pop_front().filter(|uid| self.meets(criteria, *uid, Some(&text))));
            }
            // The message went in the meantime: RFC 2180 section 4.1.3 lets it be left out.
            Answer::Refused => drop(left.pop_front()),
            _ => return self.done(&running.tag, "NO [SERVERBUG] an answer did not fit its question"),
        }
        self.running = Some(running);
    }

    pub(super) fn put_found(&mut self, found: &[u32], form: UidForm) {
        let mut line = String::from("* SEARCH");
        for uid in found {
            let number = self.number(*uid).unwrap_or(0);
            line.push_str(&format!(" {}", if form == UidForm::Uid { *uid } else { number }));
        }
        self.put(line + "\r\n");
    }
}
