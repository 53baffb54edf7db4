//! Fills the text indexes of the shards, behind the delivery: it reads bodies that were stored, in small portions, and
//! rests longer than it works. What it has not come to yet is searched by reading; nothing waits for it.
//!
//! Behind the newest body of each shard it goes round once more, slowly: filters of bodies that are gone go, and bodies
//! that were passed over get theirs.

use std::time::{Duration, Instant};

use runtime::tasks::Tasks;

use crate::node::Node;
use crate::shard::{Index, Indexed, Shard};

/// New bodies are looked for so often. A mail is rarely searched for within that time, and then it is read.
const LOOK: Duration = Duration::from_secs(2);
/// After each portion there is a rest of so many times what it took: a quarter of a core's time at most.
const REST: u32 = 3;

/// What of mail is indexed.
#[derive(Debug, Clone, Copy)]
pub struct Indexing {
    /// Whether anything is.
    pub is_on: bool,
    /// A mail with more text than this is always read: its filter would let too much pass.
    pub most: usize,
}

/// Fills the indexes until the shutdown.
pub(crate) async fn run(node: Node, indexing: Indexing, tasks: Tasks) {
    for shard in node.shards() {
        let prepare = move |index: &Index| if indexing.is_on { index.open() } else { index.discard() };
        if let Err(error) = ask(shard, prepare).await {
            tracing::warn!(
                shard = shard.number,
                error = format!("{error:#}"),
                "there is no text index: texts are read"
            );
        }
    }
    if !indexing.is_on {
        return tasks.stopping().await;
    }
    let mut rounds = vec![0; node.shards().len()];
    loop {
        for (shard, round) in node.shards().iter().zip(&mut rounds) {
            if !fill(shard, indexing.most, &tasks).await {
                return;
            }
            match step(shard, *round, indexing.most).await {
                Some((done, took)) => {
                    *round = if done.is_end { 0 } else { done.behind };
                    if !rest(&tasks, took * REST).await {
                        return;
                    }
                }
                None => *round = 0,
            }
        }
        if !rest(&tasks, LOOK).await {
            return;
        }
    }
}

/// Asks an index on a thread where that may take a while: a search may have it for itself.
async fn ask<T: Send + 'static>(
    shard: &Shard,
    question: impl FnOnce(&Index) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let index = shard.reader.index.clone();
    tokio::task::spawn_blocking(move || question(&index)).await?
}

/// Indexes what is new in a shard. False when the shutdown has begun.
async fn fill(shard: &Shard, most: usize, tasks: &Tasks) -> bool {
    loop {
        let last = match ask(shard, Index::last).await {
            Ok(last) => last,
            Err(error) => {
                tracing::warn!(shard = shard.number, error = format!("{error:#}"), "a text index does not answer");
                return true;
            }
        };
        let Some((done, took)) = step(shard, last, most).await else { return true };
        if !rest(tasks, took * REST).await {
            return false;
        }
        // Where nothing got a filter, the next portion would be the same.
        if done.is_end || done.filters == 0 {
            return true;
        }
    }
}

/// One portion, and how long it took; none if it failed.
async fn step(shard: &Shard, behind: i64, most: usize) -> Option<(Indexed, Duration)> {
    let begun = Instant::now();
    match shard.reader.index_portion(behind, most).await {
        Ok(done) => Some((done, begun.elapsed())),
        Err(error) => {
            tracing::warn!(shard = shard.number, error = format!("{error:#}"), "a text index is not filled for now");
            None
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::mpsc::sync_channel;

    use runtime::config::{Section, Sheet};

    use super::*;

    /// All of a node's connections are served by the threads on which this runs.
    #[tokio::test]
    async fn an_index_that_is_in_use_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let section = Section::root(serde_json::json!({"shards": 1}), Rc::new(RefCell::new(Sheet::default())));
        let node = Node::open(&crate::Config::read(section, folder.path()), "s1").unwrap();
        let index = node.shards()[0].reader.index.clone();
        index.open().unwrap();
        let (begun, begin) = tokio::sync::oneshot::channel();
        let (release, wait) = sync_channel::<()>(1);
        let (mut begun, body) = (Some(begun), (1, [1; 32]));
        let search = std::thread::spawn(move || {
            let mut released = Ok(());
            index.look([body].into_iter(), |_| {
                begun.take().unwrap().send(()).unwrap();
                released = wait.recv_timeout(Duration::from_secs(10));
            });
            released
        });
        begin.await.unwrap();
        let tasks = Tasks::default();
        let indexing = Indexing { is_on: true, most: 1 };
        tasks.spawn("indexing", run(node, indexing, tasks.clone()));
        tokio::task::yield_now().await;
        release.send(()).unwrap();
        assert_eq!(search.join().unwrap(), Ok(()));
        tasks.stop();
    }
}
