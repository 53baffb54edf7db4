//! Space comes back: a sealed pack that is mostly dead is rewritten.
//!
//! One pack after the other is looked at, of one shard after the other. What is alive in a mostly dead one is read and
//! verified here, beside the writer, and handed to it in small loads, which share its syncs with the deliveries; then
//! the rows of the dead go, and at last the file. What a crash leaves at each step stands in `shard/sweep.rs`. A
//! damaged record that a message needs is not carried and not removed: its pack stays, and the error names file and
//! offset. It is said again in each round: it can be mended by a mail of the same text, or by a backup.

use std::time::{Duration, Instant};

use runtime::tasks::Tasks;

use crate::node::Node;
use crate::shard::{Shard, Sweep, remove};

/// A pack is looked at so often: all of a node with a TiB within a day.
const LOOK: Duration = Duration::from_secs(10);
/// After each load there is a rest of so many times what it took: rewriting takes a quarter of a shard's time at most.
const REST: u32 = 3;

/// What became of a pack.
#[derive(Debug)]
pub(crate) enum Rewritten {
    /// Too much of it is alive.
    Lively,
    /// So many bytes have come back.
    Freed(u64),
    /// A record that a message needs is damaged: it stays.
    Damaged(anyhow::Error),
    /// Its file is gone, and so many bytes of it are needed.
    Gone(u64),
    /// The shutdown came first.
    Stopped,
}

/// Looks at packs until the shutdown; those of which less than `below` percent is alive are rewritten.
pub(crate) async fn run(node: Node, below: u64, tasks: Tasks) {
    let shards = node.shards();
    let mut behind = vec![0; shards.len()];
    for turn in (0..shards.len()).cycle() {
        if below == 0 || !rest(&tasks, LOOK).await {
            return tasks.stopping().await;
        }
        let found = shards[turn].reader.sealed(behind[turn]).await;
        let pack = found.unwrap_or_else(|error| {
            tracing::warn!(shard = turn, error = format!("{error:#}"), "its packs cannot be looked at");
            None
        });
        behind[turn] = pack.unwrap_or(0);
        let Some(pack) = pack else { continue };
        match rewrite(&shards[turn], pack, below, &tasks).await {
            Ok(Rewritten::Lively) => {}
            Ok(Rewritten::Freed(bytes)) => tracing::info!(shard = turn, pack, bytes, "rewrote a mostly dead pack"),
            Ok(Rewritten::Stopped) => return,
            Ok(Rewritten::Damaged(error)) => {
                tracing::error!(shard = turn, pack, error = format!("{error:#}"), "a mostly dead pack stays");
            }
            Ok(Rewritten::Gone(bytes)) => {
                tracing::error!(shard = turn, pack, bytes, "the file of a pack is gone, and mail with it");
            }
            Err(error) => tracing::warn!(
                shard = turn,
                pack,
                error = format!("{error:#}"),
                "a mostly dead pack cannot be rewritten yet"
            ),
        }
    }
}

/// False when the shutdown has begun.
async fn rest(tasks: &Tasks, span: Duration) -> bool {
    tokio::select! {
        () = tasks.stopping() => false,
        () = tokio::time::sleep(span) => true,
    }
}

/// Rewrites a sealed pack of which less than `below` percent is alive.
///
/// # Errors
/// When a load or the rows could not be written; what was moved until then has moved.
pub(crate) async fn rewrite(shard: &Shard, pack: i64, below: u64, tasks: &Tasks) -> anyhow::Result<Rewritten> {
    let (alive, whole) = match shard.reader.alive(pack).await? {
        (alive, Some(whole)) => (alive, whole),
        // Nobody needs it: what is left to do is to say so in the rows.
        (0, None) => (0, 0),
        (alive, None) => return Ok(Rewritten::Gone(alive)),
    };
    if whole > 0 && u128::from(alive) * 100 >= u128::from(whole) * u128::from(below) {
        return Ok(Rewritten::Lively);
    }
    let mut left = 0;
    loop {
        if let Some(ended) = carry(shard, pack, tasks).await? {
            return Ok(ended);
        }
        // Again and again, until there is nothing but what came alive again meanwhile: a mail of the same text did.
        loop {
            let begun = Instant::now();
            let before = std::mem::replace(&mut left, shard.sweep(Sweep::Clear(pack)).await?);
            if !rest(tasks, begun.elapsed() * REST).await {
                return Ok(Rewritten::Stopped);
            }
            if left == 0 || left == before {
                break;
            }
        }
        if left == 0 {
            break;
        }
    }
    let packs = shard.packs.clone();
    tokio::task::spawn_blocking(move || remove(&packs, pack)).await??;
    shard.sweep(Sweep::Removed(pack)).await?;
    Ok(Rewritten::Freed(whole.saturating_sub(alive)))
}

/// Moves what is alive; says so if that cannot be done to the end.
async fn carry(shard: &Shard, pack: i64, tasks: &Tasks) -> anyhow::Result<Option<Rewritten>> {
    let mut behind = 0;
    loop {
        let begun = Instant::now();
        let records = match shard.reader.records(pack, behind).await? {
            Ok(records) => records,
            Err(damage) => return Ok(Some(Rewritten::Damaged(damage))),
        };
        let Some(last) = records.last() else { return Ok(None) };
        behind = last.id;
        shard.sweep(Sweep::Carry(records)).await?;
        if !rest(tasks, begun.elapsed() * REST).await {
            return Ok(Some(Rewritten::Stopped));
        }
    }
}

#[cfg(test)]
mod tests;
