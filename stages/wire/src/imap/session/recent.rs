//! \Recent (RFC 3501 section 2.3.2): the messages of which this session is the first to be told.
//!
//! Which these are the world says with each view; here they are remembered for as long as the mailbox is selected. They
//! are no part of the messages' rows, which sessions share, and no change of them in the sense of CONDSTORE. IMAP4rev2
//! has done away with all of it (RFC 9051 appendix E): such a session takes none and is told of none.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::ImapSession;
use super::job::{Mode, Selected};
use crate::imap::question::{MessageRow, Question, View, flags};
use crate::imap::rows::Rows;

/// Stretches of UIDs that are remembered. A session has many only if another one was told of what came in between,
/// again and again; then its oldest messages are recent no more.
const STRETCHES: usize = 1000;

/// The messages of a selected mailbox that are recent.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// In order; each from a UID up to another, which is not in it.
    stretches: VecDeque<(u32, u32)>,
    /// How many messages the client was told of.
    told: usize,
}

impl Recent {
    /// What the first view of a mailbox says, of which the client is told at once.
    pub(super) fn of(view: &View) -> Self {
        let mut recent = Self::default();
        recent.take(view);
        recent.told = recent.count(&view.messages);
        recent
    }

    /// Takes what a view says.
    pub(super) fn take(&mut self, view: &View) {
        let (from, to) = (view.recent, view.uidnext);
        if from >= to {
            return;
        }
        match self.stretches.back_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => self.stretches.push_back((from, to)),
        }
        if self.stretches.len() > STRETCHES {
            self.stretches.pop_front();
        }
    }

    pub(super) fn line(&self) -> String {
        format!("* {} RECENT\r\n", self.told)
    }

    fn has(&self, uid: u32) -> bool {
        let at = self.stretches.partition_point(|(_, to)| *to <= uid);
        self.stretches.get(at).is_some_and(|(from, _)| *from <= uid)
    }

    fn count(&self, messages: &Rows) -> usize {
        self.stretches.iter().map(|(from, to)| messages.lower(*to) - messages.lower(*from)).sum()
    }
}

impl ImapSession {
    /// How a mailbox is looked at that is opened.
    pub(super) fn look(&self, name: String, mode: Mode) -> Question {
        if mode == Mode::ReadWrite && !self.tells.rev2 { Question::Select(name) } else { Question::View(name) }
    }

    /// A message as this client sees it.
    pub(super) fn shown<'a>(&self, row: &'a MessageRow) -> Cow<'a, MessageRow> {
        let is_recent = |selected: &Selected| selected.recent.has(row.uid);
        if self.tells.rev2 || !self.selected.as_ref().is_some_and(is_recent) {
            return Cow::Borrowed(row);
        }
        Cow::Owned(MessageRow { flags: row.flags | flags::RECENT, ..row.clone() })
    }

    /// Tells how many are recent, if that is not what the client was told.
    pub(super) fn put_recent(&mut self) {
        if self.tells.rev2 {
            return;
        }
        let Some(selected) = &mut self.selected else { return };
        let count = selected.recent.count(&selected.messages);
        if std::mem::replace(&mut selected.recent.told, count) != count {
            let line = selected.recent.line();
            self.put(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn view(recent: u32, uidnext: u32) -> View {
        View { uidvalidity: 1, uidnext, modseq: 1, messages: Rows::default(), recent }
    }

    #[test]
    fn what_views_say_is_remembered() {
        let row = |uid| MessageRow { uid, flags: 0, keywords: Arc::default(), size: 1, received: 0, modseq: 1 };
        let messages: Rows = [1, 3, 4, 6, 8, 9].map(row).into_iter().collect();
        for (views, want) in [
            (&[][..], &[][..]),
            (&[(10, 10)], &[]),
            (&[(3, 7)], &[3, 4, 6]),
            (&[(3, 4), (4, 7)], &[3, 4, 6]),
            // Another session was told of 6.
            (&[(3, 5), (7, 7), (8, 10)], &[3, 4, 8, 9]),
            // Who only looks is told of the same again.
            (&[(3, 5), (3, 7), (10, 10)], &[3, 4, 6]),
        ] {
            let mut recent = Recent::default();
            views.iter().for_each(|(from, to)| recent.take(&view(*from, *to)));
            let uids: Vec<u32> = messages.iter().map(|row| row.uid).filter(|uid| recent.has(*uid)).collect();
            assert_eq!(uids, want, "{views:?}");
            assert_eq!(recent.count(&messages), want.len(), "{views:?}");
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut recent = Recent::default();
        (1..5000).for_each(|uid| recent.take(&view(2 * uid, 2 * uid + 1)));
        assert_eq!(recent.stretches.len(), STRETCHES);
        assert!(recent.has(9998) && !recent.has(9997) && !recent.has(2));
    }
}
