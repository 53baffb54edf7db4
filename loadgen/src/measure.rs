//! What is measured while mail is sent: latencies, counts, and both second by second.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::slowest::{Slow, Slowest};

/// Digits of a latency that are kept: one in a thousand.
const DIGITS: u8 = 3;
/// Longer latencies count as this: a day, in microseconds.
const LONGEST: u64 = 86_400_000_000;

/// Latencies of one kind, in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1, LONGEST, DIGITS)
                .expect("a day with three digits is what a histogram can hold"),
        )
    }
}

impl Latency {
    /// Notes one.
    pub(crate) fn note(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many were noted.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds: that of so many of a hundred.
    pub(crate) fn percentile(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1000.0
    }

    /// p50, p95, p99, p99.9 and the longest, in milliseconds.
    pub(crate) fn figures(&self) -> [f64; 5] {
        let [p50, p95, p99, p999] = [50.0, 95.0, 99.0, 99.9].map(|percentile| self.percentile(percentile));
        [p50, p95, p99, p999, self.0.max() as f64 / 1000.0]
    }

    fn to_json(&self) -> Value {
        let [p50, p95, p99, p999, max] = self.figures();
        let count = self.count();
        json!({"count": count, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "p999_ms": p999, "max_ms": max})
    }
}

/// What happened in one second.
#[derive(Debug, Clone, Default)]
pub(crate) struct Second {
    /// Mails that were kept.
    pub(crate) kept: u64,
    /// Mails that were refused, for any of their recipients.
    pub(crate) refused: u64,
    /// Attempts that are to be made again.
    pub(crate) deferred: u64,
    /// Of the mails that were kept, in milliseconds.
    latencies: Vec<u32>,
}

impl Second {
    /// The latency of so many of a hundred mails, in milliseconds.
    pub(crate) fn percentile(&self, percentile: f64) -> Option<u32> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = ((sorted.len() as f64 * percentile / 100.0) as usize).min(sorted.len().checked_sub(1)?);
        sorted.get(at).copied()
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// Mails that were begun.
    pub(crate) begun: u64,
    /// Of these, given up: no final word for one of the recipients at least.
    pub(crate) given_up: u64,
    /// Copies that were kept for somebody who is watched, and never seen there.
    pub(crate) unseen: usize,
    /// To a connection on which mail can be sent.
    pub(crate) connect: Latency,
    /// From when a mail was due to when it was begun: connections that were not free.
    pub(crate) late: Latency,
    /// From when a mail was due to its 250, all attempts included.
    pub(crate) to_250: Latency,
    /// The same to its final word, whichever it is.
    pub(crate) to_answer: Latency,
    /// Those that waited longest for it, or had none.
    pub(crate) slow_answers: Slowest,
    /// From when a mail was due until a reader saw it.
    pub(crate) to_mailbox: Latency,
    /// Those that were longest on their way.
    pub(crate) slow_mails: Slowest,
    /// Second by second.
    pub(crate) seconds: BTreeMap<u64, Second>,
    /// Bytes of the mails that were kept.
    pub(crate) bytes: u64,
    /// When the last mail was kept.
    pub(crate) last: Duration,
}

/// The same, shared.
#[derive(Debug, Default)]
pub(crate) struct Measure(Mutex<Measured>);

impl Measure {
    /// Notes something.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Measured)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All that was noted so far.
    pub(crate) fn so_far(&self) -> Measured {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kept, refused and deferred so far, and kept in the last whole second before `now`.
    pub(crate) fn counts(&self, now: Duration) -> (u64, u64, u64, u64) {
        let measured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, refused, deferred) = measured.counts();
        let last = now.as_secs().checked_sub(1).and_then(|second| measured.seconds.get(&second));
        (kept, refused, deferred, last.map_or(0, |second| second.kept))
    }
}

impl Measured {
    /// A mail was kept, `after` the start.
    pub(crate) fn kept(&mut self, after: Duration, latency: Duration, bytes: usize) {
        self.to_250.note(latency);
        self.bytes += bytes as u64;
        self.last = self.last.max(after);
        let second = self.second(after);
        second.kept += 1;
        second.latencies.push(u32::try_from(latency.as_millis()).unwrap_or(u32::MAX));
    }

    /// A mail has its final word.
    pub(crate) fn answered(&mut self, latency: Duration, slow: impl FnOnce() -> Slow) {
        self.to_answer.note(latency);
        self.slow_answers.note(latency, slow);
    }

    /// A reader has seen a mail.
    pub(crate) fn seen(&mut self, latency: Duration, slow: impl FnOnce() -> Slow) {
        self.to_mailbox.note(latency);
        self.slow_mails.note(latency, slow);
    }

    /// What happens in this second.
    pub(crate) fn second(&mut self, after: Duration) -> &mut Second {
        self.seconds.entry(after.as_secs()).or_default()
    }

    /// Kept, refused, deferred.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let sum = |count: fn(&Second) -> u64| self.seconds.values().map(count).sum();
        (sum(|second| second.kept), sum(|second| second.refused), sum(|second| second.deferred))
    }

    /// Mails that were kept each second, from the start to the last of them.
    pub(crate) fn rate(&self) -> f64 {
        self.counts().0 as f64 / self.last.as_secs_f64().max(0.001)
    }

    /// For machines.
    pub(crate) fn to_json(&self) -> Value {
        let (kept, refused, deferred) = self.counts();
        let end = self.seconds.keys().last().map_or(0, |last| last + 1);
        let each = |second| self.seconds.get(&second).cloned().unwrap_or_default();
        let by_second: Vec<_> =
            (0..end).map(|second| json!([each(second).kept, each(second).percentile(99.0)])).collect();
        json!({
            "mails": self.begun, "given_up": self.given_up, "unseen": self.unseen, "kept": kept, "refused": refused,
            "deferred": deferred, "seconds": self.last.as_secs_f64(),
            "rate": self.rate(), "bytes": self.bytes,
            "to_answer": self.to_answer.to_json(), "slowest_to_answer": self.slow_answers.to_json(),
            "slowest_to_mailbox": self.slow_mails.to_json(),
            "connect": self.connect.to_json(), "late": self.late.to_json(), "to_250": self.to_250.to_json(),
            "to_mailbox": self.to_mailbox.to_json(), "kept_and_p99_ms_by_second": by_second,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_told() {
        let mut measured = Measured::default();
        for number in 0..100 {
            measured.kept(Duration::from_millis(20 * number), Duration::from_millis(number + 1), 10);
        }
        measured.second(Duration::from_secs(5)).refused += 1;
        let [p50, p95, p99, p999, max] = measured.to_250.figures();
        let near = |value: f64, want: f64| (value - want).abs() <= want / 500.0;
        assert!(near(p50, 50.0) && near(p95, 95.0) && near(p99, 99.0) && near(max, 100.0), "{p50} {p95} {p99} {max}");
        assert!(near(p999, 100.0), "{p999}");
        assert_eq!((measured.counts(), measured.bytes), ((100, 1, 0), 1000));
        assert!((measured.rate() - 100.0 / 1.98).abs() < 0.001);
        let told = measured.to_json();
        assert_eq!(told["kept_and_p99_ms_by_second"].as_array().map(Vec::len), Some(6));
        assert_eq!(told["kept_and_p99_ms_by_second"][0], json!([50, 50]));
        assert_eq!(told["kept_and_p99_ms_by_second"][3], json!([0, null]));
    }
}
