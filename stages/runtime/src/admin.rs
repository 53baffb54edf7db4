//! The admin HTTP server: `/live`, `/ready`, `/metrics`.
//!
//! `/live` answers as long as the process runs. `/ready` answers 200 when every part has reported that it is at work,
//! and 503 with the names of those that are not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::tasks::Tasks;

/// Which parts of the process are at work. Shared by all of them.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

impl Readiness {
    /// Says that `part` is not at work, and why.
    pub fn waiting(&self, part: &'static str, why: impl Into<String>) {
        self.set(part, Err(why.into()));
    }

    /// Says that `part` is at work.
    pub fn ready(&self, part: &'static str) {
        self.set(part, Ok(()));
    }

    fn set(&self, part: &'static str, state: Result<(), String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part, state);
    }

    /// The parts that are not at work, a line each.
    pub fn missing(&self) -> Vec<String> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter_map(|(part, state)| state.as_ref().err().map(|why| format!("{part}: {why}"))).collect()
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Readiness,
    metrics: PrometheusHandle,
}

/// Binds the address, so that a port that is taken is told at start.
///
/// # Errors
/// When the address cannot be had.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves until the shutdown.
///
/// # Errors
/// When the server fails.
pub async fn run(
    socket: TcpListener,
    readiness: Readiness,
    metrics: PrometheusHandle,
    tasks: Tasks,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/live", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(|State(shared): State<Shared>| async move { shared.metrics.render() }))
        .with_state(Shared { readiness, metrics });
    axum::serve(socket, router).with_graceful_shutdown(async move { tasks.stopping().await }).await?;
    Ok(())
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    let missing = shared.readiness.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let mut text = String::new();
    for part in missing {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "waiting for {part}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_must_be_at_work() {
        let readiness = Readiness::default();
        readiness.waiting("broker", "not connected");
        readiness.waiting("store", "opening");
        readiness.ready("store");
        assert_eq!(readiness.missing(), ["broker: not connected"]);
        readiness.ready("broker");
        assert!(readiness.missing().is_empty());
    }
}
