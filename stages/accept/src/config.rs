//! What of accepting can be configured.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use runtime::config::{ByteSize, Section};
use wire::smtp::Limits;

use crate::journal;

/// The section `stages.accept`, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens, for the gate.
    pub listen: Vec<SocketAddr>,
    /// The gates: they tell who the client is by the PROXY protocol. Nobody else is served.
    pub gates: Vec<IpAddr>,
    /// The limits of a dialogue.
    pub limits: Limits,
    /// Connections at once.
    pub connections: usize,
    /// How long a client may say nothing.
    pub idle: Duration,
    /// How long a connection may last.
    pub life: Duration,
    /// Bytes of all bodies that are in memory on their way into the journal.
    pub memory: ByteSize,
    /// How long a sender is kept waiting for the chain's verdict.
    pub verdict_wait: Duration,
    /// The journal.
    pub journal: journal::Config,
}

impl Config {
    /// Reads the section.
    pub fn read(mut section: Section, var: &Path) -> Self {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let gates = section.texts(
            "gates",
            &["127.0.0.1", "::1"],
            "Addresses of the gates. They tell by the PROXY protocol who the client is; nobody else is served, but for \
             a gate in the same process.",
        );
        let gates = gates.iter().filter_map(|text| {
            let address = text.parse();
            address.inspect_err(|_| section.wrong("gates", format_args!("{text:?} is not an IP address"))).ok()
        });
        let gates = gates.collect();
        let config = Self {
            listen: section.addresses("listen", &["127.0.0.1:2526"], "Where it listens, for the gate."),
            gates,
            limits: limits(section.section("limits")),
            connections: count(section.count("connections", 4000, 1..=1_000_000, "Connections at once; an idle one takes some 40 KiB.")),
            idle: section.span("idle", "5min", "1s"..="1h", "How long a client may say nothing: RFC 5321 section 4.5.3.2.7.").0,
            life: section.span("life", "1h", "10s"..="1day", "How long a connection may last, however busy it looks.").0,
            memory: section.size("memory", "256MiB", "1MiB"..="1TiB", "All bodies on their way into the journal. What does not fit is told 452."),
            verdict_wait: section.span("verdict_wait", "8s", "0"..="2min", "How long a sender waits for the verdict; 0 is not at all. Senders wait ten minutes (RFC 5321 section 4.5.3.2.6), connections are the cost.").0,
            journal: journal::Config::read(section.section("journal"), var),
        };
        if config.listen.is_empty() {
            section.wrong("listen", "at least one address is needed");
        }
        let (most, recipients) = (config.journal.doubt_most, config.limits.recipients);
        if most < recipients {
            let why = "a mail to so many would not be recognised for each";
            section
                .wrong("journal.doubt_most", format_args!("{most} is below `limits.recipients`, {recipients}: {why}"));
        }
        section.finish();
        config
    }
}

fn limits(mut section: Section) -> Limits {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let limits = Limits {
        line: count(section.count(
            "line",
            2048,
            512..=65_536,
            "Bytes of a command line. RFC 5321 asks for 512, and more for each extension.",
        )),
        message: section
            .size(
                "message",
                "25MiB",
                "64KiB"..="1GiB",
                "Bytes of a message, told to the client by SIZE. What large providers take.",
            )
            .0,
        header: section
            .size("header", "256KiB", "8KiB"..="16MiB", "Bytes of a header section. Real ones have 4 to 10 KiB.")
            .0,
        recipients: count(section.count(
            "recipients",
            1000,
            100..=100_000,
            "Recipients of a message; the client sends to the others afterwards. RFC 5321 asks for 100.",
        )),
        errors: u32::try_from(section.count(
            "errors",
            20,
            1..=10_000,
            "Commands that get an error since the last message that was taken, before the connection is closed.",
        ))
        .unwrap_or(u32::MAX),
        idle_commands: u32::try_from(section.count(
            "idle_commands",
            100,
            5..=10_000,
            "Commands in a row that bring no mail, before the connection is closed.",
        ))
        .unwrap_or(u32::MAX),
        mails: u32::try_from(section.count("mails", 0, 0..=1_000_000, "Messages on one connection; 0 is as many as the client has: beginning anew costs both sides more than going on.")).unwrap_or(u32::MAX),
    };
    section.finish();
    limits
}
