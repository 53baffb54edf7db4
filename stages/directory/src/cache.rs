//! What a process remembers of the directory. Entries age: fresh ones are served, old ones only while the master is
//! away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache as Quick;

use crate::admin::Change;
use crate::master::Entry;
use crate::{Config, Unsure};

/// What an entry costs beside its strings.
const OVERHEAD: u64 = 250;

#[derive(Clone)]
struct Known {
    entry: Entry,
    at: Instant,
    era: u64,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<String, Known> for Weigh {
    fn weight(&self, key: &String, known: &Known) -> u64 {
        let inner = match &known.entry {
            Entry::Absent => 0,
            Entry::Domain(domain) => domain.alias_of.len() + domain.catch_all.len(),
            Entry::Account(account) => {
                account.address.as_str().len() + account.password.reveal().len() + account.store.len() + 100
            }
            Entry::Alias(targets) => targets.iter().map(|target| target.as_str().len() + 40).sum(),
        };
        (key.len() + inner) as u64 + OVERHEAD
    }
}

pub(crate) struct Cache {
    known: Quick<String, Known, Weigh>,
    /// Entries of an earlier era are not fresh any more.
    era: AtomicU64,
    /// How many changes were announced.
    changes: AtomicU64,
    fresh_for: Duration,
    absent_for: Duration,
    stale_for: Duration,
}

impl Cache {
    pub(crate) fn new(config: &Config) -> Self {
        let items = usize::try_from(config.cache.0 / 300).unwrap_or(usize::MAX).max(16);
        Self {
            known: Quick::with_weighter(items, config.cache.0, Weigh),
            era: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            fresh_for: config.fresh_for,
            absent_for: config.absent_for,
            stale_for: config.stale_for,
        }
    }

    /// The entry under this key: a fresh one, else the master's, else an old one.
    pub(crate) async fn get(
        &self,
        key: String,
        ask: impl Future<Output = Result<Entry, Unsure>>,
    ) -> Result<Entry, Unsure> {
        let known = self.known.get(&key);
        if let Some(known) = &known
            && self.is_fresh(known)
        {
            return Ok(known.entry.clone());
        }
        let era = self.era.load(Ordering::Acquire);
        let changes = self.changes.load(Ordering::Acquire);
        match ask.await {
            Ok(entry) => {
                self.known.insert(key.clone(), Known { entry: entry.clone(), at: Instant::now(), era });
                // What was asked before a change came is not remembered behind it.
                if self.changes.load(Ordering::Acquire) != changes {
                    self.known.remove(&key);
                }
                Ok(entry)
            }
            Err(unsure) => match known {
                // An absence is not served once it is old: it may be over, and 550 would be final.
                Some(known) if known.entry != Entry::Absent && known.at.elapsed() < self.stale_for => {
                    tracing::debug!(key, %unsure, "serving what was known");
                    Ok(known.entry)
                }
                _ => Err(unsure),
            },
        }
    }

    /// The entry that is remembered, even if it is not fresh any more, as long as no change of it may have been missed.
    /// Ten times as long: an announcement may be lost that nobody knows of.
    pub(crate) fn remembered(&self, key: &str) -> Option<Entry> {
        let known = self.known.get(key)?;
        let is_of_now = known.era == self.era.load(Ordering::Acquire) && known.at.elapsed() < self.remembered_for();
        is_of_now.then_some(known.entry)
    }

    /// For how long a change may stay unheard that was not announced.
    pub(crate) fn remembered_for(&self) -> Duration {
        self.stale_for.min(self.fresh_for * 10)
    }

    fn is_fresh(&self, known: &Known) -> bool {
        let limit = if known.entry == Entry::Absent { self.absent_for } else { self.fresh_for };
        known.era == self.era.load(Ordering::Acquire) && known.at.elapsed() < limit
    }

    pub(crate) fn forget(&self, change: &Change) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.known.remove(change.key());
    }

    pub(crate) fn age_all(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
    }
}
