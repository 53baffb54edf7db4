//! What of the journal can be configured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::config::{ByteSize, Section};

/// The section `stages.accept.journal`, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it lies.
    pub folder: PathBuf,
    /// A segment that has this many bytes is closed and a new one begun.
    pub segment: ByteSize,
    /// What is pending in an older segment of which hardly anything is alive is carried over.
    pub carry_after: Duration,
    /// High-water mark in bytes.
    pub max_bytes: ByteSize,
    /// High-water mark in pending mails.
    pub max_mails: u64,
    /// The disk keeps so much free.
    pub min_free: ByteSize,
    /// The wait before a mail that has not ended goes round again; it doubles from there.
    pub refill_first: Duration,
    /// The longest such wait.
    pub refill_most: Duration,
    /// For how long a sender that did not hear our 250 is recognised.
    pub doubt_for: Duration,
    /// The same for mail that says neither when it was written nor which one it is.
    pub doubt_bare_for: Duration,
    /// How many such mails are remembered.
    pub doubt_most: usize,
}

impl Config {
    /// Reads the section; the folder's default lies in `var`.
    pub fn read(mut section: Section, var: &Path) -> Self {
        let folder = var.join("journal").display().to_string();
        let config = Self {
            folder: section.file("folder", &folder, "Where the journal lies: the disk on which every 250 rests."),
            segment: section.size("segment", "64MiB", "64KiB"..="4GiB", "A segment of this size is closed. It goes as a whole when all its mail has ended."),
            carry_after: section.span("carry_after", "15min", "100ms"..="7days", "When so old a segment is alive by less than a quarter, that is written again and the segment goes. Most mail has ended long before.").0,
            max_bytes: section.size("max_bytes", "8GiB", "1MiB"..="16TiB", "From there on senders are told 452. Hours of mail while the broker or the scanners are away."),
            max_mails: section.count("max_mails", 1_000_000, 1..=100_000_000, "From there on senders are told 452. Each pending mail takes some 300 bytes of memory."),
            min_free: section.size("min_free", "256MiB", "0"..="1TiB", "The journal leaves so much of its disk free, for its own books and for others."),
            refill_first: section.span("refill_first", "5min", "100ms"..="1day", "A mail that has not ended goes round again after that; the wait doubles. Longer than the chain ever takes.").0,
            refill_most: section.span("refill_most", "6h", "100ms"..="5days", "The longest such wait.").0,
            doubt_for: section.span("doubt_for", "1day", "1min"..="7days", "For so long a sender that did not hear our 250 is recognised when it sends again. Queues retry within hours.").0,
            doubt_bare_for: section.span("doubt_bare_for", "10min", "0"..="7days", "The same for mail with neither Message-ID nor Date, at most `doubt_for`: what looks the same may be a device's next alarm, which would be lost. Long enough for a queue's first retry.").0,
            doubt_most: usize::try_from(section.count("doubt_most", 100_000, 100..=10_000_000, "So many such mails are remembered, 100 bytes each; the oldest go first. As many recipients are recognised of mails that have several, 150 bytes each; those of the mail with the most go first.")).unwrap_or(usize::MAX),
        };
        section.finish();
        config
    }
}
