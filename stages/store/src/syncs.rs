//! Wakes the writers of shards to which nothing comes, so that each syncs in time what it has appended and not synced.
//! A disk that could not keep it is noticed by that, and what it has lost is written again (see `shard/redo.rs`).

use std::time::Duration;

use runtime::tasks::Tasks;

use crate::node::Node;
use crate::shard::Shard;

/// Well below what may stay unsynced. A writer with nothing to do costs no write by that.
const LOOK: Duration = Duration::from_secs(15);

/// Wakes the writers again and again, until the shutdown.
pub(crate) async fn run(node: Node, tasks: Tasks) {
    loop {
        tokio::select! {
            () = tasks.stopping() => return,
            () = tokio::time::sleep(LOOK) => node.shards().iter().for_each(Shard::wake),
        }
    }
}
