//! What was changed in the directory, for those who hold an account for longer than a question: they hear of it, and
//! look again. A change that was announced and not heard is made up for: from time to time they are to look at
//! everything.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

use crate::Directory;
use crate::admin::Change;
use crate::master::{Account, Status};

/// Changes that may wait for whoever listens. Of more at once everything is looked at, which is no more work.
pub(crate) const WAITING: usize = 1024;

/// Everything is looked at no more often than that, however short entries are fresh.
const SELDOM: Duration = Duration::from_secs(1);

/// What may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The account of this address.
    Account(String),
    /// Any of them.
    Any,
}

/// An ear for changes.
pub struct Changes {
    heard: broadcast::Receiver<Option<Change>>,
    every: Duration,
    next: Instant,
    /// As long as this is there, there is somebody to hear.
    _directory: Directory,
}

impl Directory {
    /// An ear for the changes from now on.
    pub fn changes(&self) -> Changes {
        let every = self.inner.cache.remembered_for().max(SELDOM);
        let (heard, next) = (self.inner.changes.subscribe(), Instant::now() + every);
        Changes { heard, every, next, _directory: self.clone() }
    }

    /// Tells those who listen; if nobody does, nobody has to know.
    pub(crate) fn tell(&self, change: Option<Change>) {
        let _ = self.inner.changes.send(change);
    }
}

impl Changes {
    /// The next change.
    pub async fn next(&mut self) -> Changed {
        loop {
            match tokio::time::timeout_at(self.next, self.heard.recv()).await {
                Ok(Ok(Some(change))) => match change.address_of() {
                    Some(address) => return Changed::Account(address.to_owned()),
                    None => continue,
                },
                Ok(Err(RecvError::Closed)) => return pending().await,
                Ok(Ok(None) | Err(RecvError::Lagged(_))) | Err(_) => {}
            }
            self.next = Instant::now() + self.every;
            return Changed::Any;
        }
    }
}

impl Account {
    /// Whether those who have logged in to it may stay, now that it is so; none is one that is gone.
    pub fn still_lets_in(&self, now: Option<&Arc<Self>>) -> bool {
        let is_same = |now: &Self| (now.id, &now.password, &now.store) == (self.id, &self.password, &self.store);
        now.is_some_and(|now| now.status == Status::Active && is_same(now))
    }
}
