//! What takes long, or may block, beside the tasks that are served meanwhile.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Whether there is a place aside: a runtime of one thread has none.
pub fn is_there() -> bool {
    Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// Does what takes long where others do not wait for it, if there is such a place.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    if is_there() { tokio::task::block_in_place(work) } else { work() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn nobody_waits_for_what_takes_long() {
        let (say, heard) = std::sync::mpsc::sync_channel(1);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            aside(|| {
                begun.send(()).unwrap();
                heard.recv_timeout(Duration::from_secs(30)).unwrap();
            });
        });
        tasks.spawn(async move {
            has_begun.await.unwrap();
            say.send(()).unwrap();
        });
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
}
