//! The few mails that took longest. A stall of seconds that meets one mail in a thousand is in no percentile: they are
//! told by name, so that somebody looks into the chain's log at that moment.

use std::time::Duration;

use serde_json::{Value, json};

/// Mails that are told.
const MOST: usize = 5;

/// A mail that was waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slow {
    /// How long, from when it was due.
    pub(crate) latency: Duration,
    /// When it was due, after the start of the run.
    pub(crate) due: Duration,
    /// The same by the wall clock, in milliseconds since 1970.
    pub(crate) at: u64,
    /// Its mark.
    pub(crate) mail: String,
    /// What it was waited for.
    pub(crate) answer: String,
}

/// The slowest so far, the longest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slowest(Vec<Slow>);

impl Slowest {
    /// Notes one, if it is among them.
    pub(crate) fn note(&mut self, latency: Duration, slow: impl FnOnce() -> Slow) {
        if self.0.len() < MOST || self.0.last().is_some_and(|last| last.latency < latency) {
            self.0.push(slow());
            self.0.sort_unstable_by(|one, other| other.cmp(one));
            self.0.truncate(MOST);
        }
    }

    /// For machines.
    pub(crate) fn to_json(&self) -> Value {
        let told = self.0.iter().map(|slow| {
            json!({
                "ms": slow.latency.as_secs_f64() * 1000.0, "due_s": slow.due.as_secs_f64(), "due": stamp(slow.at),
                "mail": slow.mail, "answer": slow.answer,
            })
        });
        Value::Array(told.collect())
    }

    /// For people, a line for each.
    pub(crate) fn to_text(&self) -> String {
        let line = |slow: &Slow| {
            let (ms, due, at) = (slow.latency.as_secs_f64() * 1000.0, slow.due.as_secs_f64(), stamp(slow.at));
            format!("  {ms:>10.1}  due {at} ({due:.3} s after the start), {}: {}\n", slow.mail, slow.answer)
        };
        self.0.iter().map(line).collect()
    }
}

/// As a log has it, in UTC.
fn stamp(at: u64) -> String {
    let second = mail_parser::DateTime::from_timestamp(i64::try_from(at / 1000).unwrap_or(i64::MAX)).to_rfc3339();
    format!("{}.{:03}Z", second.trim_end_matches('Z'), at % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_are_kept() {
        let mut slowest = Slowest::default();
        for ms in [5, 1, 8000, 3, 2, 9, 4, 9] {
            let latency = Duration::from_millis(ms);
            let (mail, answer) = (format!("r.{ms}"), "250 kept".to_owned());
            slowest.note(latency, || Slow {
                latency,
                due: Duration::from_millis(1500),
                at: 1_700_000_000_042,
                mail,
                answer,
            });
        }
        let told = slowest.to_json();
        let times: Vec<_> = told.as_array().into_iter().flatten().filter_map(|slow| slow["ms"].as_f64()).collect();
        assert_eq!(times, [8000.0, 9.0, 9.0, 5.0, 4.0]);
        assert_eq!(told[0]["due"], "2023-11-14T22:13:20.042Z");
        let text = slowest.to_text();
        let first = "      8000.0  due 2023-11-14T22:13:20.042Z (1.500 s after the start), r.8000: 250 kept\n";
        assert!(text.starts_with(first) && text.lines().count() == MOST, "{text}");
    }
}
