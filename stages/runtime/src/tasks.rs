//! Background work with a name, and the one shutdown that all of it hears.
//!
//! Everything that runs beside a request is started here. Shutdown has two steps: *stopping* (take on nothing new,
//! finish what was begun) and, when the grace period is over, the end of the process. A task that panics is reported; a
//! vital one takes the process with it, since half a program serves nobody.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks, and tells them when to stop.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    stopping: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// Runs `work` beside the rest. It is waited for at shutdown.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.tracker.spawn(work);
        self.tracker.spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(task = name, "a task panicked");
            }
        });
    }

    /// Runs `work`, without which the program is of no use: when it ends before a shutdown, by an error or a panic, the
    /// program stops.
    pub fn spawn_vital(&self, name: &'static str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let task = self.tracker.spawn(work);
        let stopping = self.stopping.clone();
        self.tracker.spawn(async move {
            let ended = task.await;
            if stopping.is_cancelled() {
                return;
            }
            match ended {
                Ok(Ok(())) => tracing::error!(task = name, "ended although it must not; stopping"),
                Ok(Err(error)) => tracing::error!(task = name, error = format!("{error:#}"), "failed; stopping"),
                Err(_) => tracing::error!(task = name, "panicked; stopping"),
            }
            stopping.cancel();
        });
    }

    /// Begins the shutdown.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether the shutdown has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Resolves when the shutdown begins.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Waits until every task has ended, at most `grace`. Says whether they all did.
    pub async fn finished(&self, grace: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}

/// Resolves at SIGTERM or SIGINT. The process listens for them from the call on: what comes before the first poll
/// counts.
///
/// # Errors
/// When the process may not listen for signals.
pub fn termination() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_what_was_begun() {
        let tasks = Tasks::default();
        let inner = tasks.clone();
        tasks.spawn("waits", async move { inner.stopping().await });
        assert!(!tasks.finished(Duration::from_millis(10)).await);
        tasks.stop();
        assert!(tasks.finished(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_signal_before_it_is_waited_for_counts() {
        let signalled = termination().unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        signalled.await;
    }

    #[tokio::test]
    async fn a_vital_task_that_ends_stops_the_program() {
        let tasks = Tasks::default();
        tasks.spawn_vital("fails", async { anyhow::bail!("no") });
        tasks.stopping().await;
        let tasks = Tasks::default();
        tasks.spawn_vital("panics", async { panic!("no") });
        tasks.stopping().await;
    }
}
