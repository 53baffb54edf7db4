//! What of scoring can be configured.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use runtime::config::Section;
use runtime::{breaker, dns, worker};

use crate::rules;

/// The section `stages.score`, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The worker loop.
    pub work: worker::Config,
    /// The name server; none for the system's.
    pub resolver: Option<SocketAddr>,
    /// All look-ups for one mail have to be answered within that.
    pub deadline: Duration,
    /// When the name server is left alone.
    pub silence: breaker::Settings,
    /// Where mail goes by its score.
    pub thresholds: Thresholds,
    /// The points of every rule.
    pub points: Points,
}

/// Where mail goes by its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Into Junk from here on.
    pub junk: f64,
    /// Refused from here on.
    pub reject: f64,
}

/// The points of every rule by its symbol, as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Points(BTreeMap<&'static str, f64>);

impl Default for Points {
    fn default() -> Self {
        Self(rules::all().map(|rule| (rule.name, rule.points)).collect())
    }
}

impl Points {
    /// What a symbol weighs.
    pub fn of(&self, symbol: &str) -> f64 {
        self.0.get(symbol).copied().unwrap_or_default()
    }
}

impl Config {
    /// Reads the section.
    pub fn read(mut section: Section) -> Self {
        let junk = section.number(
            "junk",
            6.0,
            0.1..=1000.0,
            "From this score on a mail goes into Junk: two strong signs, or one and several weak ones.",
        );
        let reject = section.number(
            "reject",
            15.0,
            0.1..=1000.0,
            "From this score on a mail is refused in the session; once accepted it goes into the quarantine.",
        );
        if reject < junk {
            section.wrong("reject", format_args!("{reject} is below `junk`, {junk}: nothing would ever be junk"));
        }
        let config = Self {
            // They wait for DNS most of the time, and for the whole deadline when no name server answers.
            work: worker::Config::read(&mut section, 256),
            resolver: dns::read(&mut section),
            deadline: section
                .span(
                    "deadline",
                    "4s",
                    "10ms"..="1min",
                    "All DNS look-ups for a mail have to be answered within that; what is not counts as unknown. Below \
                     accept's verdict_wait.",
                )
                .0,
            silence: breaker::Settings::read(&mut section),
            thresholds: Thresholds { junk, reject },
            points: points(section.section("points")),
        };
        section.finish();
        config
    }
}

/// Every rule's points can be set by its symbol's name; 0 turns a rule off.
fn points(mut section: Section) -> Points {
    let points = rules::all()
        .map(|rule| (rule.name, section.number(rule.name, rule.points, -1000.0..=1000.0, rule.doc)))
        .collect();
    section.finish();
    Points(points)
}
