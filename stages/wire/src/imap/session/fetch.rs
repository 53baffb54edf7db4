//! FETCH: which messages, what is asked of the world for them, and their responses, one behind the other.

use super::ImapSession;
use super::job::{Job, Running, UidForm};
use crate::imap::fetch;
use crate::imap::question::{Answer, FlagMode, MessageRow, Question, flags};
use imap_types::fetch::MessageDataItemName as Item;
use imap_types::sequence::SequenceSet;
use std::collections::VecDeque;

/// Responses that are written before the first of them is sent.
const PORTION: usize = 1000;

/// What a FETCH still has to do.
#[derive(Debug)]
pub(super) struct Fetching {
    left: VecDeque<u32>,
    items: Vec<Item<'static>>,
}

impl ImapSession {
    pub(super) fn fetch(&mut self, tag: String, set: &SequenceSet, mut items: Vec<Item<'static>>, form: UidForm) {
        if !items.iter().all(fetch::is_known) {
            return self.done(&tag, "NO [CANNOT] an item of FETCH is not supported");
        }
        if items.len() > self.limits.fetch_items {
            return self.done(&tag, &format!("NO [LIMIT] at most {} items", self.limits.fetch_items));
        }
        let uids = self.chosen(set, form);
        let marks = items.iter().any(fetch::marks_seen) && !self.is_read_only();
        let unseen = if marks { self.mark_seen(&uids) } else { Vec::new() };
        if !unseen.is_empty() && !items.contains(&Item::Flags) {
            items.push(Item::Flags);
        }
        let job = Job::Fetch(Fetching { left: uids.into(), items });
        self.running = Some(Running { tag, name: "FETCH", job, refreshing: false });
        if !unseen.is_empty() {
            self.question =
                Some(Question::Flags { uids: unseen, how: FlagMode::Add, flags: flags::SEEN, keywords: Vec::new() });
        }
    }

    /// Marks messages as seen in the snapshot and gives those that were not.
    fn mark_seen(&mut self, uids: &[u32]) -> Vec<u32> {
        let Some(selected) = &mut self.selected else { return Vec::new() };
        let rows = uids.iter().filter_map(|uid| selected.messages.find(*uid)).map(|(_, row)| row);
        let rows = rows.filter(|row| row.flags & flags::SEEN == 0);
        let rows: Vec<_> = rows.map(|row| MessageRow { flags: row.flags | flags::SEEN, ..row.clone() }).collect();
        let unseen = rows.iter().map(|row| row.uid).collect();
        selected.messages = selected.messages.with(rows, &[]);
        unseen
    }

    /// Says whether all messages have been fetched; else a question has been put.
    pub(super) fn fetch_next(&mut self, fetching: &mut Fetching) -> bool {
        let Fetching { left, items } = fetching;
        if items.iter().any(fetch::needs_text) {
            self.ask_text(left.front());
        } else {
            for uid in left.drain(..left.len().min(PORTION)) {
                self.put_fetched(uid, items, None);
            }
        }
        left.is_empty()
    }

    /// Writes the response for a message, if it is still there. Says whether it had room.
    pub(super) fn put_fetched(&mut self, uid: u32, items: &[Item<'static>], text: Option<&[u8]>) -> bool {
        let Some((index, row)) = self.messages().find(uid) else { return true };
        let response = fetch::response(index + 1, row, items, text);
        let has_room = response.is_some();
        response.into_iter().for_each(|response| self.put(response.freeze()));
        has_room
    }

    pub(super) fn fetched(&mut self, mut running: Running, answer: Answer) {
        let Job::Fetch(Fetching { left, items }) = &mut running.job else { return };
        match answer {
            Answer::Text(text) => {
                let fits = left.pop_front().is_none_or(|uid| self.put_fetched(uid, items, Some(&text)));
                if !fits {
                    return self.done(&running.tag, "NO [LIMIT] the items repeat the message too often");
                }
            }
            // The message went in the meantime: RFC 2180 section 4.1.3 lets it be left out.
            Answer::Refused => drop(left.pop_front()),
            // The messages were marked as seen; now they are fetched.
            Answer::Done => {}
            _ => return self.done(&running.tag, "NO [SERVERBUG] an answer did not fit its question"),
        }
        self.running = Some(running);
    }
}
