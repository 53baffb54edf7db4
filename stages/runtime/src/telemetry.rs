//! Logs and metrics. Every metric has its name here and nowhere else.
//!
//! Names are `chainmail_<thing>_<unit>[_total]`; labels come from fixed sets, never from mail. A part of the figures is
//! also kept for `chainmail status`, which asks the processes themselves.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};

use crate::config::Section;

/// What of logging can be configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// `text` or `json`.
    pub format: &'static str,
    /// A filter as `tracing-subscriber` knows it.
    pub filter: String,
}

impl Config {
    /// Reads the section `log`.
    pub fn read(section: &mut Section) -> Self {
        Self {
            format: section.choice("format", &["text", "json"], "How log lines are written to standard error."),
            filter: section.text(
                "filter",
                "info",
                "Which lines: a level, or levels by module, like `info,accept=debug`.",
            ),
        }
    }
}

/// Sets up logging for the process.
///
/// # Errors
/// When the filter cannot be read, or logging was set up before.
pub fn set_up_logging(config: &Config) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = if config.format == "json" { lines.json().try_init() } else { lines.with_ansi(false).try_init() };
    done.map_err(|error| anyhow::anyhow!("logging: {error}"))
}

/// Sets up the metrics of the process and gives what renders them for Prometheus.
///
/// # Errors
/// When a recorder was installed before.
pub fn set_up_metrics() -> anyhow::Result<PrometheusHandle> {
    // From a tenth of a millisecond to a minute: a stage's work and a verdict's wait lie within.
    let buckets = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 8.0, 20.0, 60.0];
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &buckets)?;
    Ok(builder.install_recorder()?)
}

/// One stage's figures in one process, for `chainmail status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct StageFigures {
    /// Messages that can be worked on at once.
    pub workers: u64,
    /// Messages settled since the process began.
    pub settled: u64,
    /// Those that were given back, buried, or whose steps failed.
    pub failures: u64,
}

static FIGURES: LazyLock<Mutex<BTreeMap<String, StageFigures>>> = LazyLock::new(Mutex::default);

fn figures(stage: &str, change: impl FnOnce(&mut StageFigures)) {
    let mut all = FIGURES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(figures) = all.get_mut(stage) {
        change(figures);
    } else {
        change(all.entry(stage.to_owned()).or_default());
    }
}

/// The figures of every stage in this process.
pub fn stage_figures() -> BTreeMap<String, StageFigures> {
    FIGURES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A stage has this many workers in this process.
pub fn workers(stage: &str, count: usize) {
    gauge!("chainmail_workers", "stage" => stage.to_owned()).set(count as f64);
    figures(stage, |figures| figures.workers = count as u64);
}

/// A message was settled.
pub fn settled(stage: &str, outcome: &'static str, took: Duration) {
    histogram!("chainmail_stage_seconds", "stage" => stage.to_owned(), "outcome" => outcome).record(took);
    figures(stage, |figures| {
        figures.settled += 1;
        figures.failures += u64::from(matches!(outcome, "later" | "bury" | "undone"));
    });
}

/// Mail waits for longer than it should, or was given up.
pub fn alarm(stage: &str) {
    counter!("chainmail_alarms_total", "stage" => stage.to_owned()).increment(1);
}

/// A consumer was bound anew.
pub fn rebound(stream: &str) {
    counter!("chainmail_rebinds_total", "stream" => stream.to_owned()).increment(1);
}

/// The watchdog found a consumer with pending messages that got none.
pub fn watchdog(stream: &str) {
    counter!("chainmail_watchdog_total", "stream" => stream.to_owned()).increment(1);
}

/// The broker that `run all` has as its child was started again, because its streams took nothing.
pub fn broker_restarted() {
    counter!("chainmail_broker_restarts_total").increment(1);
}

/// A name server or a DNS list of the configuration is silent and left alone, or answers again.
pub fn dns_silent(whom: &str, is_silent: bool) {
    gauge!("chainmail_dns_silent", "of" => whom.to_owned()).set(f64::from(u8::from(is_silent)));
}

/// A body was fetched from the broker instead of the cache.
pub fn body_fetched() {
    counter!("chainmail_bodies_fetched_total").increment(1);
}

/// So many connections are open on a listener.
pub fn connections(listener: &'static str, open: usize) {
    gauge!("chainmail_connections", "listener" => listener).set(open as f64);
}

/// A connection was turned away, because of a limit.
pub fn turned_away(listener: &'static str, limit: &'static str) {
    counter!("chainmail_turned_away_total", "listener" => listener, "limit" => limit).increment(1);
}

/// The sender of a mail got its final reply after this time in the session.
pub fn answered(reply: &'static str, took: Duration) {
    histogram!("chainmail_verdict_seconds", "reply" => reply).record(took);
}

/// The journal's mails and bytes.
pub fn journal(mails: u64, bytes: u64) {
    gauge!("chainmail_journal_mails").set(mails as f64);
    gauge!("chainmail_journal_bytes").set(bytes as f64);
}

/// Mails were sent round again out of the journal.
pub fn refilled(count: usize) {
    counter!("chainmail_refills_total").increment(count as u64);
}

/// A second copy of a mail was recognised, whose sender had not heard the first 250.
pub fn recognised() {
    counter!("chainmail_resent_recognised_total").increment(1);
}

/// Somebody logged in, or tried to.
pub fn login(protocol: &'static str, result: &'static str) {
    counter!("chainmail_logins_total", "protocol" => protocol, "result" => result).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_from_successes() {
        workers("t-stage", 4);
        settled("t-stage", "pass", Duration::ZERO);
        settled("t-stage", "later", Duration::ZERO);
        let want = StageFigures { workers: 4, settled: 2, failures: 1 };
        assert_eq!(stage_figures().get("t-stage"), Some(&want));
    }
}
