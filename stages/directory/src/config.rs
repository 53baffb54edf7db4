//! What of the directory can be configured.

use std::path::Path;
use std::time::Duration;

use runtime::config::{ByteSize, Section};

/// The section `directory`, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The master: `sqlite:` and a file.
    pub url: String,
    /// Bound of the cache in a process.
    pub cache: ByteSize,
    /// For so long an entry is served without asking again.
    pub fresh_for: Duration,
    /// For so long an absence is.
    pub absent_for: Duration,
    /// For so long an old entry is served while the master does not answer.
    pub stale_for: Duration,
    /// The master has to answer within that.
    pub deadline: Duration,
    /// Aliases of aliases are followed so deep.
    pub alias_depth: usize,
    /// An address stands for so many mailboxes at most.
    pub alias_members: usize,
    /// Passwords that are hashed at once.
    pub logins_at_once: usize,
    /// Logins that may wait for that.
    pub logins_waiting: usize,
}

impl Config {
    /// Reads the section; the master's default lies in `var`.
    pub fn read(mut section: Section, var: &Path) -> Self {
        let url = format!("sqlite:{}", var.join("directory.db").display());
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let config = Self {
            url: section.text("url", &url, "The master: sqlite: and the path of its file."),
            cache: section.size("cache", "64MiB", "64KiB"..="64GiB", "Entries that a process remembers; some 300 bytes each, so the default holds 200,000."),
            fresh_for: section.span("fresh_for", "1min", "0"..="1day", "An entry is served for so long without asking again. Changes are announced; this is the net below: who was removed or suspended unheard can log in for so long, and mail on its way to them is stored for ten times as long.").0,
            absent_for: section.span("absent_for", "10s", "0"..="1h", "The same for an address that is not known. Short: a new account should receive mail at once.").0,
            stale_for: section.span("stale_for", "1day", "0"..="30days", "While the master is away, an old entry is served for so long.").0,
            deadline: section.span("deadline", "2s", "10ms"..="1min", "The master has to answer within that; a sender waits in the meantime.").0,
            alias_depth: count(section.count("alias_depth", 10, 1..=100, "Aliases of aliases are followed so deep. Deeper ones are loops or mistakes.")),
            alias_members: count(section.count("alias_members", 10_000, 1..=1_000_000, "An address stands for so many mailboxes at most; each is a part of one envelope.")),
            logins_at_once: count(section.count("logins_at_once", 2, 1..=256, "Passwords that are hashed at once; each takes 19 MiB and a core for some 20 ms, or what an imported hash asks for: 256 MiB and half a second at most.")),
            logins_waiting: count(section.count("logins_waiting", 500, 1..=100_000, "Logins that may wait for that; more are told to come again, so that nobody waits for longer than a client does.")),
        };
        if !config.url.starts_with("sqlite:") {
            section
                .wrong("url", format_args!("{:?} is not a master that is known: write sqlite: and a path", config.url));
        }
        section.finish();
        config
    }
}
