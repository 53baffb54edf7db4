//! FETCH: which messages, what is asked of the world for them, and their responses, one behind the other.
//!
//! What clients ask about every message is kept beside its row, and asked for in portions. Texts come in loads, which
//! are small at first: a client that wants one message does not pay for what it may never take. While a load is sent,
//! the world may read the next.

use super::ImapSession;
use super::job::{Job, Running, UidForm};
use crate::imap::fetch::{self, Need, Source};
use crate::imap::question::{Answer, FlagMode, Load, MessageRow, Question, flags};
use imap_types::fetch::MessageDataItemName as Item;
use imap_types::sequence::SequenceSet;
use std::collections::VecDeque;

/// Responses that are written before the first of them is sent.
const PORTION: usize = 1000;
/// Messages about which is asked at once: their outlines are a MiB where all is as usual.
const OUTLINES: usize = 500;
/// Texts of a load, in messages, and in bytes of the first and of the largest: so much is held while a slow client
/// takes it.
const TEXTS: usize = 500;
const SMALL_LOAD: u64 = 64 * 1024;
const LARGE_LOAD: u64 = 1024 * 1024;

/// What a FETCH still has to do.
#[derive(Debug)]
pub(super) struct Fetching {
    /// Messages that were not asked about.
    left: VecDeque<u32>,
    items: Vec<Item<'static>>,
    need: Need,
    /// The bytes of the next load.
    load: u64,
    /// What has come and is not sent.
    ready: VecDeque<(u32, Source)>,
    /// Whatever is sent counts as seen.
    marks: bool,
    /// What was sent and is not marked as seen yet. It is with each load: one that a client never got stays unseen,
    /// whether its connection broke or it cannot be told.
    seen: Vec<u32>,
    /// How the command ends, if it is no FETCH.
    end: Option<String>,
}

impl Fetching {
    /// Bytes of the text, or of what is kept of it, that is looked into next.
    pub(super) fn looks_into(&self) -> usize {
        match self.ready.front() {
            Some((_, Source::Text(text))) if fetch::looks_inside(&self.items) => text.len(),
            // Of a header whose fields are nearly all of those that are kept, it is as large as the header.
            Some((_, Source::Outline(outline))) => outline.fields.len() + outline.structure.len(),
            _ => 0,
        }
    }
}

impl ImapSession {
    pub(super) fn fetch(&mut self, tag: String, set: &SequenceSet, items: Vec<Item<'static>>, form: UidForm) {
        self.fetch_these(tag, self.chosen(set, form), items);
    }

    pub(super) fn fetch_these(&mut self, tag: String, uids: Vec<u32>, mut items: Vec<Item<'static>>) {
        if !items.iter().all(fetch::is_known) {
            return self.done(&tag, "NO [CANNOT] an item of FETCH is not supported");
        }
        if items.len() > self.limits.fetch_items {
            return self.done(&tag, &format!("NO [LIMIT] at most {} items", self.limits.fetch_items));
        }
        if fetch::field_names(&items) > self.limits.fetch_fields {
            return self.done(&tag, &format!("NO [LIMIT] at most {} names of fields", self.limits.fetch_fields));
        }
        let marks = items.iter().any(fetch::marks_seen) && !self.is_read_only();
        let is_unseen = |uid: &u32| self.messages().find(*uid).is_some_and(|(_, row)| row.flags & flags::SEEN == 0);
        let marks = marks && uids.iter().any(is_unseen);
        if marks && !items.contains(&Item::Flags) {
            items.push(Item::Flags);
        }
        let (need, left, ready, seen) = (fetch::need(&items), uids.into(), VecDeque::new(), Vec::new());
        let fetching = Fetching { left, items, need, load: SMALL_LOAD, ready, marks, seen, end: None };
        self.running = Some(Running { tag, name: "FETCH", job: Job::Fetch(fetching), refreshing: false });
    }

    /// Tells of flags as FETCH does, in portions; then a command ends.
    pub(super) fn tell_flags(&mut self, tag: String, uids: Vec<u32>, end: String) {
        self.fetch_these(tag, uids, vec![Item::Uid, Item::Flags, Item::ModSeq]);
        if let Some(Running { job: Job::Fetch(fetching), .. }) = &mut self.running {
            fetching.end = Some(end);
        }
    }

    /// Marks messages as seen: in the snapshot, as the client was told, and then in the world.
    fn mark_seen(&mut self, uids: Vec<u32>) {
        let Some(selected) = &mut self.selected else { return };
        let rows = uids.iter().filter_map(|uid| selected.messages.find(*uid)).map(|(_, row)| row);
        let rows: Vec<_> = rows.map(|row| MessageRow { flags: row.flags | flags::SEEN, ..row.clone() }).collect();
        selected.messages = selected.messages.with(rows, &[]);
        let (how, flags) = (FlagMode::Add, flags::SEEN);
        self.question = Some(Question::Flags { uids, how, flags, keywords: Vec::new(), unchanged_since: None });
    }

    /// Sends what is there, or asks for more.
    pub(super) fn fetch_on(&mut self, mut running: Running) {
        let Job::Fetch(fetching) = &mut running.job else { return };
        if let Some((uid, source)) = fetching.ready.pop_front() {
            match self.put_fetched(uid, &fetching.items, &source, fetching.marks) {
                Ok(true) => fetching.seen.push(uid),
                Ok(false) => {}
                Err(why) => {
                    // Those before it were sent.
                    (fetching.left, fetching.ready) = (VecDeque::new(), VecDeque::new());
                    fetching.end = Some(format!("NO {why}"));
                }
            }
        } else if !fetching.seen.is_empty() {
            self.mark_seen(std::mem::take(&mut fetching.seen));
        } else if fetching.left.is_empty() {
            return match fetching.end.take() {
                Some(end) => self.done(&running.tag, &end),
                None => self.finish_with_news(running),
            };
        } else {
            match fetching.need {
                Need::Row => {
                    for uid in fetching.left.drain(..fetching.left.len().min(PORTION)) {
                        // Nothing is refused that a row tells.
                        let _ = self.put_fetched(uid, &fetching.items, &Source::Row, false);
                    }
                }
                Need::Outline => {
                    let uids = fetching.left.iter().copied().take(OUTLINES).collect();
                    self.question = Some(Question::Outlines(uids));
                }
                Need::Text => self.question = Some(self.texts(fetching)),
            }
        }
        self.running = Some(running);
    }

    fn texts(&self, fetching: &mut Fetching) -> Question {
        let size = |uid: &u32| self.messages().find(*uid).map_or(0, |(_, row)| row.size);
        let now = load(fetching.left.iter(), fetching.load, size);
        fetching.load = (fetching.load * 2).min(LARGE_LOAD);
        let ahead = load(fetching.left.iter().skip(now.0.len()), fetching.load, size);
        Question::Texts { now, ahead }
    }

    /// Writes the response for a message, if it is still there. Says whether it is to be marked as seen by that.
    fn put_fetched(
        &mut self,
        uid: u32,
        items: &[Item<'static>],
        source: &Source,
        marks: bool,
    ) -> Result<bool, fetch::Refusal> {
        let Some((index, row)) = self.messages().find(uid) else { return Ok(false) };
        let (mut row, marks) = (self.shown(row), marks && row.flags & flags::SEEN == 0);
        if marks {
            row.to_mut().flags |= flags::SEEN;
        }
        let response = fetch::response(index + 1, &row, items, source)?;
        self.output.extend(response.finish());
        Ok(marks)
    }

    pub(super) fn fetched(&mut self, mut running: Running, answer: Answer) {
        let Job::Fetch(fetching) = &mut running.job else { return };
        // What is missing went in the meantime: RFC 2180 section 4.1.3 lets it be left out.
        let count = match answer {
            Answer::Outlines(count, found) => {
                fetching.ready.extend(found.into_iter().map(|(uid, outline)| (uid, Source::Outline(outline))));
                count
            }
            Answer::Texts(count, found) => {
                fetching.ready.extend(found.into_iter().map(|(uid, text)| (uid, Source::Text(text))));
                count
            }
            // What was sent is marked as seen.
            Answer::Done => 0,
            _ => return self.done(&running.tag, "NO [SERVERBUG] an answer did not fit its question"),
        };
        fetching.left.drain(..count.min(fetching.left.len()));
        self.running = Some(running);
    }
}

/// The first messages, up to so many bytes; at least one, if there is any.
fn load<'a>(uids: impl Iterator<Item = &'a u32>, most: u64, size: impl Fn(&u32) -> u64) -> Load {
    let (mut load, mut whole) = (Load::default(), 0);
    for uid in uids.take(TEXTS) {
        let size = size(uid);
        whole += size;
        if !load.0.is_empty() && whole > most {
            break;
        }
        load.0.push((*uid, size));
    }
    load
}
