//! Who waits for changes of a mailbox is told of each after its commit.
//!
//! Which mailboxes a batch changed is noted by the database itself, wherever MODSEQ is raised: nobody who writes a
//! change can forget to say so. A notice says only that there is something to look at; so one that waits and many are
//! the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Row};
use tokio::sync::watch;

use super::recent::Recent;

/// What is made known of the changes of a shard.
#[derive(Clone, Default)]
pub(crate) struct Notices {
    /// Mailboxes that are watched. There are no more than readers who wait, or twice as many for a moment.
    watched: Arc<Mutex<HashMap<i64, watch::Sender<()>>>>,
    pub(crate) recent: Recent,
}

/// A mailbox that a batch changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed {
    pub(super) mailbox: i64,
    /// UIDNEXT before the batch, and after it; none if it is gone.
    pub(super) uidnext: (i64, Option<i64>),
}

/// Sees the changes of one mailbox.
pub(crate) type Watch = watch::Receiver<()>;

impl Notices {
    /// Watches a mailbox. The first notice is there at once: what has changed before is not known.
    pub(crate) fn watch(&self, mailbox: i64) -> Watch {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.len() == watched.capacity() {
            watched.retain(|_, sender| sender.receiver_count() > 0);
        }
        let mut watch = watched.entry(mailbox).or_insert_with(|| watch::channel(()).0).subscribe();
        watch.mark_changed();
        watch
    }

    pub(super) fn tell(&self, changed: &[Changed]) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in changed.iter().filter_map(|changed| watched.get(&changed.mailbox)) {
            sender.send_replace(());
        }
    }
}

/// From now on this connection notes which mailboxes it changes, in memory.
pub(super) fn note(writer: &Connection) -> rusqlite::Result<()> {
    writer.execute_batch(
        "PRAGMA temp_store = MEMORY;
         CREATE TEMP TABLE changed (mailbox INTEGER PRIMARY KEY, uidnext INTEGER NOT NULL);
         CREATE TEMP TRIGGER changes AFTER UPDATE OF modseq ON main.mailboxes BEGIN
             INSERT OR IGNORE INTO changed VALUES (new.id, old.uidnext);
         END;
         CREATE TEMP TRIGGER removals AFTER DELETE ON main.mailboxes BEGIN
             INSERT OR IGNORE INTO changed VALUES (old.id, old.uidnext);
         END;",
    )
}

/// The mailboxes that were changed since this was asked last.
pub(super) fn changed(writer: &Connection) -> rusqlite::Result<Vec<Changed>> {
    let take = "DELETE FROM changed RETURNING mailbox, uidnext,
         (SELECT mailboxes.uidnext FROM mailboxes WHERE mailboxes.id = changed.mailbox)";
    let read = |row: &Row<'_>| Ok(Changed { mailbox: row.get(0)?, uidnext: (row.get(1)?, row.get(2)?) });
    writer.prepare_cached(take)?.query_map([], read)?.collect()
}
