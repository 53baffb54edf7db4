//! Messages of the selected mailbox: flags, expunging.

use super::ImapSession;
use super::flags::{Given, given, too_much};
use super::job::{Job, Mode, Running, UidForm};
use crate::imap::question::{Answer, CopyMode, FlagMode, Keywords, Question, flags};
use crate::imap::rows::Rows;
use crate::imap::{fetch, set::Set};
use imap_types::command::{CommandBody, StoreModifier};
use imap_types::fetch::MessageDataItemName as Item;
use imap_types::flag::{Flag, StoreResponse, StoreType};
use imap_types::sequence::SequenceSet;
use std::sync::LazyLock;

/// What is there when no mailbox is selected.
static NONE: LazyLock<Rows> = LazyLock::new(Rows::default);

impl ImapSession {
    pub(super) fn in_mailbox(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            CommandBody::Fetch { sequence_set, macro_or_item_names, uid, modifiers } => {
                let mut items = fetch::items(macro_or_item_names);
                if uid && !items.contains(&Item::Uid) {
                    items.insert(0, Item::Uid);
                }
                self.fetch_since(tag, sequence_set, items, form(uid), &modifiers);
            }
            CommandBody::Store { sequence_set, kind, response, flags, uid, modifiers } => {
                let since = modifiers.first().map(|StoreModifier::UnchangedSince(modseq)| *modseq);
                self.store(tag, &sequence_set, (kind, response), &flags, form(uid), since);
            }
            CommandBody::Search { .. } | CommandBody::Sort { .. } | CommandBody::Thread { .. } => {
                self.in_search(tag, body)
            }
            CommandBody::Expunge | CommandBody::Close => self.expunge(tag, matches!(body, CommandBody::Expunge)),
            CommandBody::ExpungeUid { sequence_set } => self.expunge_uids(tag, &sequence_set),
            CommandBody::Copy { sequence_set, mailbox, uid } => {
                self.copy(tag, &sequence_set, &mailbox, form(uid), CopyMode::Copy);
            }
            CommandBody::Move { sequence_set, mailbox, uid } => {
                self.copy(tag, &sequence_set, &mailbox, form(uid), CopyMode::Move);
            }
            CommandBody::Unselect => {
                self.selected = None;
                self.done(&tag, "OK UNSELECT done");
            }
            _ => self.done(&tag, "NO [CANNOT] this command is not supported"),
        }
    }

    pub(super) fn messages(&self) -> &Rows {
        self.selected.as_ref().map_or(&NONE, |selected| &selected.messages)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.selected.as_ref().is_none_or(|selected| selected.mode == Mode::ReadOnly)
    }

    /// The highest sequence number and the highest UID.
    pub(super) fn last(&self) -> (u32, u32) {
        let messages = self.messages();
        (u32::try_from(messages.len()).unwrap_or(u32::MAX), messages.last().map_or(0, |row| row.uid))
    }

    /// The UIDs of a set, of sequence numbers or UIDs, in order.
    pub(super) fn chosen(&self, set: &SequenceSet, form: UidForm) -> Vec<u32> {
        let messages = self.messages();
        let (last, last_uid) = self.last();
        let set = Set::new(set, if form == UidForm::Uid { last_uid } else { last });
        let index = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let indices = |(first, last): (u32, u32)| match form {
            UidForm::Number => (index(first.saturating_sub(1)), index(last).min(messages.len())),
            UidForm::Uid => {
                (messages.lower(first), last.checked_add(1).map_or(messages.len(), |next| messages.lower(next)))
            }
        };
        set.ranges().map(indices).flat_map(|(from, to)| messages.between(from, to)).map(|row| row.uid).collect()
    }

    pub(super) fn store(
        &mut self,
        tag: String,
        set: &SequenceSet,
        (kind, response): (StoreType, StoreResponse),
        list: &[Flag<'_>],
        form: UidForm,
        unchanged_since: Option<u64>,
    ) {
        if self.is_read_only() {
            return self.done(&tag, "NO [READ-ONLY] the mailbox was opened with EXAMINE");
        }
        let Given { flags, keywords, has_unknown } = given(list);
        if has_unknown {
            return self.mistake(&tag, "this system flag is not known");
        }
        if let Some(why) = too_much(&keywords, self.limits.keywords) {
            return self.done(&tag, &why);
        }
        let how = match kind {
            StoreType::Replace => FlagMode::Set,
            StoreType::Add => FlagMode::Add,
            StoreType::Remove => FlagMode::Remove,
        };
        let uids = self.chosen(set, form);
        self.asked_modseq(unchanged_since.is_some());
        let silent = response == StoreResponse::Silent;
        let job = Job::Store { told: uids.clone(), uid: form, silent, modified: Vec::new() };
        self.ask(tag, "STORE", Question::Flags { uids, how, flags, keywords, unchanged_since }, job);
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
        let (at, _) = self.messages().find(uid)?;
        u32::try_from(at + 1).ok()
    }

    pub(super) fn answered_of_messages(&mut self, mut running: Running, answer: Answer) {
        match (&mut running.job, answer) {
            (Job::Search(_), answer) => self.answered_of_search(running, answer),
            (Job::Fetch(_), answer) => self.fetched(running, answer),
            (Job::Store { .. }, Answer::Refused) => {
                let Keywords { most, together, .. } = self.limits.keywords;
                let why = format!("NO [LIMIT] a message has at most {most} keywords, {together} bytes in all");
                self.done(&running.tag, &why);
            }
            (Job::Store { told, modified, .. }, Answer::Modified(uids)) => {
                // They come in order. Of a whole mailbox there are very many.
                told.retain(|uid| uids.binary_search(uid).is_err());
                *modified = uids;
                let Running { tag, name, job, .. } = running;
                self.refresh(tag, name, job);
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

pub(super) fn form(uid: bool) -> UidForm {
    if uid { UidForm::Uid } else { UidForm::Number }
}
