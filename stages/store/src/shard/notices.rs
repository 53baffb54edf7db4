//! Who waits for changes of a mailbox is told of each after its commit.
//!
//! Which mailboxes a batch changed is noted by the database itself, wherever MODSEQ is raised: nobody who writes a change
//! can forget to say so. A notice says only that there is something to look at; so one that waits and many are the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::watch;

/// Mailboxes that are watched, of one shard. There are no more than readers who wait, or twice as many for a moment.
#[derive(Clone, Default)]
pub(crate) struct Notices(Arc<Mutex<HashMap<i64, watch::Sender<()>>>>);

/// Sees the changes of one mailbox.
pub(crate) type Watch = watch::Receiver<()>;

impl Notices {
    /// Watches a mailbox. The first notice is there at once: what has changed before is not known.
    pub(crate) fn watch(&self, mailbox: i64) -> Watch {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.len() == watched.capacity() {
            watched.retain(|_, sender| sender.receiver_count() > 0);
        }
        let mut watch = watched.entry(mailbox).or_insert_with(|| watch::channel(()).0).subscribe();
        watch.mark_changed();
        watch
    }

    pub(super) fn tell(&self, changed: &[i64]) {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in changed.iter().filter_map(|mailbox| watched.get(mailbox)) {
            sender.send_replace(());
        }
    }
}

/// From now on this connection notes which mailboxes it changes, in memory.
pub(super) fn note(writer: &Connection) -> rusqlite::Result<()> {
    writer.execute_batch(
        "PRAGMA temp_store = MEMORY;
         CREATE TEMP TABLE changed (mailbox INTEGER PRIMARY KEY);
         CREATE TEMP TRIGGER changes AFTER UPDATE OF modseq ON main.mailboxes BEGIN
             INSERT OR IGNORE INTO changed VALUES (new.id);
         END;
         CREATE TEMP TRIGGER removals AFTER DELETE ON main.mailboxes BEGIN
             INSERT OR IGNORE INTO changed VALUES (old.id);
         END;",
    )
}

/// The mailboxes that were changed since this was asked last.
pub(super) fn changed(writer: &Connection) -> rusqlite::Result<Vec<i64>> {
    writer.prepare_cached("DELETE FROM changed RETURNING mailbox")?.query_map([], |row| row.get(0))?.collect()
}
