//! What of the gate can be configured.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use runtime::config::Section;
use runtime::{breaker, dns};

/// One DNS list.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// Its zone.
    pub zone: String,
    /// What its word weighs.
    pub weight: f64,
    /// The answers that count, each a range of addresses; empty for all.
    pub codes: Vec<(Ipv4Addr, Ipv4Addr)>,
}

/// The section `stages.gate`, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens, for the world.
    pub listen: Vec<SocketAddr>,
    /// The accept nodes.
    pub accept: Vec<SocketAddr>,
    /// The lists.
    pub lists: Vec<List>,
    /// A client whose listings weigh this much is refused.
    pub threshold: f64,
    /// The lists have to answer within that.
    pub deadline: Duration,
    /// When a list is left alone.
    pub silence: breaker::Settings,
    /// The name server; none for the system's.
    pub resolver: Option<SocketAddr>,
    /// Whether clients with loopback and private addresses are looked up.
    pub ask_private: bool,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub per_address: usize,
    /// A connection on which nothing moves for so long is closed.
    pub idle: Duration,
}

impl Config {
    /// Reads the section.
    pub fn read(mut section: Section) -> Self {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let resolver = dns::read(&mut section);
        let config = Self {
            listen: section.addresses("listen", &["127.0.0.1:2525"], "Where it listens, for the world."),
            accept: section.addresses(
                "accept",
                &["127.0.0.1:2526"],
                "The accept nodes; connections go to them in turn.",
            ),
            lists: section.sections("lists").into_iter().map(list).collect(),
            threshold: section.number(
                "threshold",
                1.0,
                0.1..=1000.0,
                "A client whose listings weigh this much together is refused.",
            ),
            deadline: section
                .span(
                    "deadline",
                    "2s",
                    "10ms"..="30s",
                    "The lists have to answer within that; one that does not counts as unknown.",
                )
                .0,
            silence: breaker::Settings::read(&mut section),
            resolver,
            ask_private: section.switch(
                "ask_private",
                "false",
                "Whether clients with loopback and private addresses are looked up; no list knows them.",
            ),
            connections: count(section.count(
                "connections",
                4000,
                1..=1_000_000,
                "Connections at once; each takes two sockets, three more for each list while it is asked, and some 20 \
                 KiB.",
            )),
            per_address: count(section.count(
                "per_address",
                50,
                1..=1_000_000,
                "Connections at once from one address. Large senders use some 20.",
            )),
            idle: section
                .span(
                    "idle",
                    "10min",
                    "1s"..="1h",
                    "A connection on which nothing moves for so long is closed. Above accept's own limit.",
                )
                .0,
        };
        if config.accept.is_empty() {
            section.wrong("accept", "at least one accept node is needed");
        }
        section.finish();
        config
    }
}

fn list(mut section: Section) -> List {
    let zone = section.text("zone", "", "The list's zone, like bl.example.org.");
    if zone.is_empty() {
        section.wrong("zone", "the zone of a list is missing");
    }
    let weight =
        section.number("weight", 1.0, -1000.0..=1000.0, "What its word weighs; a negative one speaks for the client.");
    let codes = section.texts(
        "codes",
        &[],
        "The answers that count: addresses, or ranges like 127.0.0.2-127.0.0.11. None is all.",
    );
    let mut ranges = Vec::new();
    for text in &codes {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        match (from.trim().parse::<Ipv4Addr>(), to.trim().parse::<Ipv4Addr>()) {
            (Ok(from), Ok(to)) if from <= to => ranges.push((from, to)),
            _ => section.wrong("codes", format_args!("{text:?} is neither an IPv4 address nor a range of them")),
        }
    }
    section.finish();
    List { zone, weight, codes: ranges }
}
