//! Messages of the selected mailbox: fetching, flags, searching, expunging.

use super::{ImapSession, Job, Mode, Running, UidForm};
use crate::imap::question::{Answer, FlagMode, MessageRow, Question, flags};
use crate::imap::{fetch, search};
use imap_types::command::CommandBody;
use imap_types::fetch::MessageDataItemName as Item;
use imap_types::flag::{Flag, StoreResponse, StoreType};
use imap_types::search::SearchKey;
use imap_types::sequence::SequenceSet;
use std::collections::VecDeque;

impl ImapSession {
    pub(super) fn in_mailbox(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            CommandBody::Fetch { sequence_set, macro_or_item_names, uid, .. } => {
                let mut items = fetch::items(macro_or_item_names);
                if uid && !items.contains(&Item::Uid) {
                    items.insert(0, Item::Uid);
                }
                self.fetch(tag, &sequence_set, items, form(uid));
            }
            CommandBody::Store { sequence_set, kind, response, flags, uid, .. } => {
                self.store(tag, &sequence_set, kind, response, &flags, form(uid));
            }
            CommandBody::Search { criteria, uid, .. } => {
                let key = Box::new(SearchKey::And(criteria));
                let left = self.messages().iter().map(|row| row.uid).collect();
                self.running = Some(Running {
                    tag,
                    name: "SEARCH",
                    job: Job::Search { key, left, found: Vec::new(), uid: form(uid) },
                    refreshing: false,
                });
                self.go_on();
            }
            CommandBody::Expunge | CommandBody::Close => self.expunge(tag, matches!(body, CommandBody::Expunge)),
            CommandBody::Unselect => {
                self.selected = None;
                self.done(&tag, "OK UNSELECT done");
            }
            _ => self.done(&tag, "NO [CANNOT] this command is not supported"),
        }
    }

    pub(super) fn messages(&self) -> &[MessageRow] {
        self.selected.as_ref().map_or(&[], |selected| &selected.messages)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.selected.as_ref().is_none_or(|selected| selected.mode == Mode::ReadOnly)
    }

    /// The UIDs of a set, of sequence numbers or UIDs.
    pub(super) fn chosen(&self, set: &SequenceSet, form: UidForm) -> Vec<u32> {
        let messages = self.messages();
        let last = match form {
            UidForm::Uid => messages.last().map_or(0, |row| row.uid),
            UidForm::Number => u32::try_from(messages.len()).unwrap_or(u32::MAX),
        };
        let is_chosen = |number: u32, row: &MessageRow| match form {
            UidForm::Uid => search::contains(set, row.uid, last),
            UidForm::Number => search::contains(set, number, last),
        };
        (1..).zip(messages).filter(|(number, row)| is_chosen(*number, row)).map(|(_, row)| row.uid).collect()
    }

    pub(super) fn fetch(&mut self, tag: String, set: &SequenceSet, mut items: Vec<Item<'static>>, form: UidForm) {
        if !items.iter().all(fetch::is_known) {
            return self.done(&tag, "NO [CANNOT] an item of FETCH is not supported");
        }
        let uids = self.chosen(set, form);
        let left: VecDeque<u32> = uids.iter().copied().collect();
        let marks = items.iter().any(fetch::marks_seen) && !self.is_read_only();
        let unseen: Vec<u32> = self
            .messages()
            .iter()
            .filter(|row| row.flags & flags::SEEN == 0 && uids.contains(&row.uid))
            .map(|row| row.uid)
            .collect();
        let mark = marks && !unseen.is_empty();
        if mark && !items.contains(&Item::Flags) {
            items.push(Item::Flags);
        }
        self.running = Some(Running { tag, name: "FETCH", job: Job::Fetch { left, items }, refreshing: false });
        if mark {
            if let Some(selected) = &mut self.selected {
                selected
                    .messages
                    .iter_mut()
                    .filter(|row| unseen.contains(&row.uid))
                    .for_each(|row| row.flags |= flags::SEEN);
            }
            self.question =
                Some(Question::Flags { uids: unseen, how: FlagMode::Add, flags: flags::SEEN, keywords: Vec::new() });
        } else {
            self.go_on();
        }
    }

    pub(super) fn store(
        &mut self,
        tag: String,
        set: &SequenceSet,
        kind: StoreType,
        response: StoreResponse,
        list: &[Flag<'_>],
        form: UidForm,
    ) {
        if self.is_read_only() {
            return self.done(&tag, "NO [READ-ONLY] the mailbox was opened with EXAMINE");
        }
        let (mut bits, mut keywords) = (0, Vec::new());
        for flag in list {
            match flag {
                Flag::Seen => bits |= flags::SEEN,
                Flag::Answered => bits |= flags::ANSWERED,
                Flag::Flagged => bits |= flags::FLAGGED,
                Flag::Deleted => bits |= flags::DELETED,
                Flag::Draft => bits |= flags::DRAFT,
                Flag::Keyword(word) => keywords.push(word.as_ref().to_owned()),
                Flag::Extension(_) => return self.mistake(&tag, "this system flag is not known"),
            }
        }
        let how = match kind {
            StoreType::Replace => FlagMode::Set,
            StoreType::Add => FlagMode::Add,
            StoreType::Remove => FlagMode::Remove,
        };
        let uids = self.chosen(set, form);
        let job = Job::Store { told: uids.clone(), uid: form, silent: response == StoreResponse::Silent };
        self.ask(tag, "STORE", Question::Flags { uids, how, flags: bits, keywords }, job);
    }

    pub(super) fn expunge(&mut self, tag: String, tell: bool) {
        let deleted = self.messages().iter().filter(|row| row.flags & flags::DELETED != 0).map(|row| row.uid).collect();
        match (self.is_read_only(), tell) {
            (true, true) => self.done(&tag, "NO [READ-ONLY] the mailbox was opened with EXAMINE"),
            (true, false) => {
                self.selected = None;
                self.done(&tag, "OK CLOSE done");
            }
            (false, _) => {
                self.ask(tag, if tell { "EXPUNGE" } else { "CLOSE" }, Question::Expunge(deleted), Job::Expunge { tell })
            }
        }
    }

    pub(super) fn number(&self, uid: u32) -> Option<u32> {
        let at = self.messages().binary_search_by_key(&uid, |row| row.uid).ok()?;
        u32::try_from(at + 1).ok()
    }

    /// Says whether all messages have been fetched; else a question has been put.
    pub(super) fn fetch_next(&mut self, left: &mut VecDeque<u32>, items: &[Item<'static>]) -> bool {
        if !items.iter().any(fetch::needs_text) {
            for uid in left.drain(..) {
                self.put_fetched(uid, items, None);
            }
        }
        match left.front() {
            Some(uid) => {
                self.question = Some(Question::Text(*uid));
                false
            }
            None => true,
        }
    }

    pub(super) fn put_fetched(&mut self, uid: u32, items: &[Item<'static>], text: Option<&[u8]>) {
        let Some(number) = self.number(uid) else { return };
        let row = &self.messages()[number as usize - 1];
        let response = fetch::response(number as usize, row, items, text).freeze();
        self.put(response);
    }

    pub(super) fn search_next(
        &mut self,
        key: &SearchKey<'static>,
        left: &mut VecDeque<u32>,
        found: &mut Vec<u32>,
    ) -> bool {
        if !search::needs_text(key) {
            for uid in left.drain(..) {
                if self.meets(key, uid, None) {
                    found.push(uid);
                }
            }
        }
        match left.front() {
            Some(uid) => {
                self.question = Some(Question::Text(*uid));
                false
            }
            None => true,
        }
    }

    pub(super) fn meets(&self, key: &SearchKey<'static>, uid: u32, text: Option<&[u8]>) -> bool {
        let messages = self.messages();
        let last = (u32::try_from(messages.len()).unwrap_or(u32::MAX), messages.last().map_or(0, |row| row.uid));
        let Some(number) = self.number(uid) else { return false };
        let candidate = search::Candidate { row: &messages[number as usize - 1], number, text, last };
        search::meets(key, &candidate).unwrap_or(false)
    }

    pub(super) fn answered_of_messages(&mut self, mut running: Running, answer: Answer) {
        match (&mut running.job, answer) {
            (Job::Fetch { left, items }, Answer::Text(text)) => {
                if let Some(uid) = left.pop_front() {
                    self.put_fetched(uid, items, Some(&text));
                }
                self.running = Some(running);
                self.go_on();
            }
            (Job::Search { key, left, found, .. }, Answer::Text(text)) => {
                if let Some(uid) = left.pop_front().filter(|uid| self.meets(key, *uid, Some(&text))) {
                    found.push(uid);
                }
                self.running = Some(running);
                self.go_on();
            }
            // The message went in the meantime: RFC 2180 section 4.1.3 lets it be left out.
            (Job::Fetch { left, .. } | Job::Search { left, .. }, Answer::Refused) => {
                left.pop_front();
                self.running = Some(running);
                self.go_on();
            }
            // The messages were marked as seen; now they are fetched.
            (Job::Fetch { .. }, Answer::Done) => {
                self.running = Some(running);
                self.go_on();
            }
            (Job::Store { .. } | Job::Expunge { tell: true }, Answer::Done) => {
                let Running { tag, name, job, .. } = running;
                self.refresh(tag, name, job);
            }
            (Job::Expunge { tell: false }, Answer::Done) => {
                self.selected = None;
                self.finish(&running);
            }
            (_, _) => self.done(&running.tag, "NO [SERVERBUG] an answer did not fit its question"),
        }
    }
}

fn form(uid: bool) -> UidForm {
    if uid { UidForm::Uid } else { UidForm::Number }
}
