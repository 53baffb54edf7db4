//! A store node: its shards, and which account lives in which.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures::future::select_all;
use runtime::tasks::Tasks;
use serde::{Deserialize, Serialize};
use wire::imap::View;

use crate::config::Config;
use crate::shard::{Change, Delivery, Kept, Settings, Shard, StoreError};
use crate::views::{Views, Which};

/// The form of the folder that this program knows.
const FORMAT: u32 = 1;

/// What the folder says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    format: u32,
    node: String,
    shards: u32,
}

/// The storage of a node.
#[derive(Clone)]
pub struct Node {
    name: String,
    shards: Vec<Shard>,
    pub(crate) views: Views,
}

impl Node {
    /// Opens the folder of a node, and makes it on the first occasion.
    ///
    /// # Errors
    /// When it cannot be opened, belongs to another node, has another number of shards, or is in use.
    pub fn open(config: &Config, node: &str) -> anyhow::Result<Self> {
        let folder = &config.folder;
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let lock = fs::File::create(folder.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!("the store in {} is in use by another process; every store node needs its own", folder.display());
        }
        let lock = Arc::new(lock);
        check_meta(folder, node, config.shards)?;
        let open = |number: u32| {
            let shard = shard_folder(folder, number);
            let pack = i64::try_from(config.pack.0).unwrap_or(i64::MAX);
            let delivered_for = config.delivered_for;
            let settings = Settings { folder: shard, number, batch: config.batch, pack, delivered_for };
            Shard::open(settings, Arc::clone(&lock))
        };
        let shards = (0..config.shards).map(open).collect::<anyhow::Result<_>>()?;
        Ok(Self { name: node.to_owned(), shards, views: Views::new(config.views) })
    }

    /// Its name, which the accounts that live on it carry.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its shards, in their order.
    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shard of an account. Accounts are numbered by the millisecond in which they are made, so they
    /// spread evenly.
    pub(crate) fn shard(&self, account: i64) -> &Shard {
        let count = self.shards.len();
        &self.shards[usize::try_from(account.unsigned_abs()).unwrap_or(0) % count]
    }

    /// Stores one mail for one mailbox, once. Resolves when that is synced.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn deliver(&self, delivery: Delivery) -> Result<Kept, StoreError> {
        self.shard(delivery.account).deliver(delivery).await
    }

    /// Resolves with an error when the writer of a shard has ended, by a defect: without it the mail of its accounts
    /// would wait in vain, and its readers could change nothing. The process ends; started again, it has all its
    /// shards.
    ///
    /// # Errors
    /// When a writer has ended.
    pub(crate) async fn watch(self, tasks: Tasks) -> anyhow::Result<()> {
        let ended = self.shards.iter().enumerate().map(|(number, shard)| {
            Box::pin(async move {
                shard.ended().await;
                number
            })
        });
        tokio::select! {
            () = tasks.stopping() => Ok(()),
            (number, ..) = select_all(ended) => bail!("the writer of shard {number} has ended"),
        }
    }

    /// A mailbox as it is, and its number; none if there is none of that name.
    pub(crate) async fn view(&self, account: i64, name: &str) -> anyhow::Result<Option<(i64, View)>> {
        self.views.look(self.shard(account), Which::Named(account, name.to_owned())).await
    }

    /// A mailbox that was looked at before, as it is now; none if it is gone.
    pub(crate) async fn view_again(&self, account: i64, mailbox: i64) -> anyhow::Result<Option<View>> {
        let found = self.views.look(self.shard(account), Which::Numbered(mailbox)).await?;
        Ok(found.map(|(_, view)| view))
    }

    /// Carries out a change of an account's mail. Resolves when that is synced; gives how many messages changed.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn change(&self, account: i64, change: Change) -> Result<u64, StoreError> {
        self.shard(account).change(change).await
    }
}

fn check_meta(folder: &Path, node: &str, shards: u32) -> anyhow::Result<()> {
    let path = folder.join("meta.json");
    if !path.exists() {
        let meta = serde_json::to_vec(&Meta { format: FORMAT, node: node.to_owned(), shards })?;
        let new = folder.join("meta.json.new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&meta)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        return Ok(fs::File::open(folder)?.sync_all()?);
    }
    let meta = meta(&path)?;
    if meta.format != FORMAT {
        bail!("{} is of format {}; this program knows {FORMAT}", folder.display(), meta.format);
    }
    if meta.node != node {
        bail!("{} belongs to the store node {}, this one is {node}", folder.display(), meta.node);
    }
    if meta.shards != shards {
        bail!("{} has {} shards, stages.store.shards is {shards}: it cannot be changed", folder.display(), meta.shards);
    }
    Ok(())
}

fn meta(path: &Path) -> anyhow::Result<Meta> {
    let named = || format!("reading {}", path.display());
    serde_json::from_slice(&fs::read(path).with_context(named)?).with_context(named)
}

fn shard_folder(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("shard-{number:03}"))
}

/// The folders of the shards that a node's folder has.
pub(crate) fn shard_folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let meta = meta(&folder.join("meta.json"))?;
    Ok((0..meta.shards).map(|number| shard_folder(folder, number)).collect())
}

#[cfg(test)]
mod tests;
