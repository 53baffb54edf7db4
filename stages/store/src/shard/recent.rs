//! Messages of which no session was told yet: they are \Recent for the first one that reads and writes their mailbox
//! (RFC 3501 section 2.3.2).
//!
//! This is known in memory alone. What a SELECT takes would else be a write, synced, for which deliveries wait; and all
//! that a client does with it is to show mail as new that it has not shown before. So what came before the process was
//! started is recent for nobody, although the RFC would rather have it recent for everybody: mail of years would be new
//! after each restart.
//!
//! A mailbox is noted from the batch that brings it a message until a session takes that. New messages are noted before
//! their rows are committed: whoever sees them finds them here. Of a batch that fails a note is left, of UIDs that
//! nobody has; the messages that get them will be recent, as they should be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::notices::Changed;
use super::reader::Reader;

/// Mailboxes that are noted: half a MB. Beyond it all is forgotten, and nothing that was there is recent any more:
/// those that are read fill it less than those that nobody opens.
const MOST: usize = 20_000;

/// The mailboxes of a shard that have messages of which no session was told.
#[derive(Clone, Default)]
pub(crate) struct Recent(Arc<Mutex<HashMap<i64, Stretch>>>);

/// From a UID up to another, which is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    from: u32,
    to: u32,
}

/// What is done with messages of which no session was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// They are this session's.
    Take,
    /// They stay what they are.
    Look,
}

impl Recent {
    /// Notes what is about to be committed.
    pub(super) fn note(&self, changed: &[Changed]) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Changed { mailbox, uidnext: (before, after) } in changed {
            let (from, Some(to)) = (number(*before), after.map(number)) else {
                noted.remove(mailbox);
                continue;
            };
            if from >= to {
                continue;
            }
            if let Some(stretch) = noted.get_mut(mailbox) {
                stretch.to = to.max(stretch.to);
                continue;
            }
            if noted.len() >= MOST {
                noted.clear();
            }
            noted.insert(*mailbox, Stretch { from, to });
        }
    }

    /// The first UID below this UIDNEXT of those of which no session was told; UIDNEXT if there are none.
    pub(crate) fn first(&self, mailbox: i64, uidnext: u32, claim: Claim) -> u32 {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stretch) = noted.get_mut(&mailbox) else { return uidnext };
        let first = stretch.from.min(uidnext);
        if claim == Claim::Take {
            stretch.from = uidnext.max(stretch.from);
            if stretch.from >= stretch.to {
                noted.remove(&mailbox);
            }
        }
        first
    }

    /// As a restart does.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Those of these mailboxes that are noted, with their first UID.
    fn among(&self, mailboxes: impl Iterator<Item = i64>) -> Vec<(i64, u32)> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.filter_map(|mailbox| Some((mailbox, noted.get(&mailbox)?.from))).collect()
    }
}

impl Reader {
    /// How many messages are recent in those of these mailboxes that have any. Each comes with its UIDNEXT.
    pub(crate) async fn recent(
        &self,
        recent: &Recent,
        mailboxes: HashMap<i64, i64>,
    ) -> anyhow::Result<HashMap<i64, u64>> {
        let noted = recent.among(mailboxes.keys().copied());
        if noted.is_empty() {
            return Ok(HashMap::new());
        }
        self.ask(move |connection: &Connection, _| {
            let count = "SELECT count(*) FROM messages WHERE mailbox = ? AND uid >= ? AND uid < ?";
            let mut count = connection.prepare_cached(count)?;
            let count = |(mailbox, from): (i64, u32)| {
                let uidnext = mailboxes.get(&mailbox).copied().unwrap_or(0);
                let messages: i64 = count.query_row([mailbox, from.into(), uidnext], |row| row.get(0))?;
                Ok((mailbox, messages.unsigned_abs()))
            };
            noted.into_iter().map(count).collect()
        })
        .await
    }
}

fn number(uid: i64) -> u32 {
    u32::try_from(uid).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brought(mailbox: i64, before: i64, after: i64) -> [Changed; 1] {
        [Changed { mailbox, uidnext: (before, Some(after)) }]
    }

    #[test]
    fn what_is_noted_is_taken_once() {
        let recent = Recent::default();
        assert_eq!(recent.first(1, 5, Claim::Take), 5, "what was there before");
        recent.note(&brought(1, 5, 7));
        recent.note(&brought(1, 7, 7));
        recent.note(&brought(1, 7, 8));
        for (uidnext, claim, want) in [
            (5, Claim::Take, 5),
            (8, Claim::Look, 5),
            // A session that looked before the last of them came.
            (7, Claim::Take, 5),
            (6, Claim::Take, 6),
            (8, Claim::Look, 7),
            (8, Claim::Take, 7),
            (8, Claim::Take, 8),
        ] {
            assert_eq!(recent.first(1, uidnext, claim), want, "{uidnext} {claim:?}");
        }
        assert!(recent.among([1].into_iter()).is_empty());
    }

    #[test]
    fn a_mailbox_that_is_gone_is_not_noted() {
        let recent = Recent::default();
        recent.note(&brought(1, 5, 7));
        recent.note(&[Changed { mailbox: 1, uidnext: (7, None) }]);
        assert!(recent.among([1].into_iter()).is_empty());
    }

    #[test]
    fn mailboxes_that_nobody_opens_take_no_more_room() {
        let recent = Recent::default();
        for mailbox in 0..i64::try_from(MOST).unwrap_or(i64::MAX) + 1 {
            recent.note(&brought(mailbox, 1, 2));
        }
        assert_eq!(recent.among(0..100_000).len(), 1);
    }
}
