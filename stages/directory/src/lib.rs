//! Who exists and where they live: accounts, aliases and domains, with caches that outlive the master.
//!
//! Every stage asks through a cache with a bound in bytes. When the master does not answer in time, what was known
//! before is served for a while; about what was never known, the answer is [`Unsure`], and the mail waits or its sender
//! is told to come again. An unknown recipient and an absent master are never taken for each other.

mod address;
mod admin;
mod cache;
mod changes;
pub mod config;
mod first_run;
mod given;
pub mod import;
mod login;
mod master;
mod numbers;
mod resolve;
mod spelling;

pub use address::Address;
pub use admin::{Change, NewAccount};
pub use changes::{Changed, Changes};
pub use config::Config;
pub use given::HASH_MOST;
pub use master::{Account, Kind, Status};
pub use resolve::{Expansion, Problem, Receives, Target};

use std::sync::Arc;

use tokio::sync::broadcast;

use cache::Cache;
use login::Logins;
use master::{Master, Missing};

/// The master did not answer, and nothing is known from before.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the directory cannot say: {0}")]
pub struct Unsure(pub String);

/// A handle on the directory, shared by everything in the process.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    master: Master,
    cache: Cache,
    logins: Logins,
    /// What was changed; none is what nobody can name.
    changes: broadcast::Sender<Option<Change>>,
}

impl Directory {
    /// Opens the master, makes it if it is not there, and brings its tables up to date.
    ///
    /// # Errors
    /// When the master cannot be opened, or is of a newer version.
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        Self::open_master(config, Missing::Make).await
    }

    /// The same, but a master that is not there is away, and is not made anew in its place.
    ///
    /// # Errors
    /// When the master is not there, cannot be opened, or is of a newer version.
    pub async fn open_existing(config: Config) -> anyhow::Result<Self> {
        Self::open_master(config, Missing::Refuse).await
    }

    async fn open_master(config: Config, missing: Missing) -> anyhow::Result<Self> {
        let master = Master::open(&config, missing).await?;
        let cache = Cache::new(&config);
        let logins = Logins::new(&config);
        let (changes, _) = broadcast::channel(changes::WAITING);
        Ok(Self { inner: Arc::new(Inner { config, master, cache, logins, changes }) })
    }

    /// Somebody changed this entry: it is looked up anew.
    pub fn forget(&self, change: &Change) {
        self.inner.cache.forget(change);
        self.tell(Some(change.clone()));
    }

    /// Changes may have been missed: everything is looked up anew. What is known still serves while the master is away.
    pub fn forget_all(&self) {
        self.inner.cache.age_all();
        self.tell(None);
    }
}

#[cfg(test)]
mod tests;
