//! What of a store node can be configured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::config::{ByteSize, Section};
use runtime::worker;

use crate::indexing::Indexing;

/// The section `stages.store`, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The worker loop of the ingest.
    pub work: worker::Config,
    /// Where the mail lies.
    pub folder: PathBuf,
    /// Databases over which accounts are spread.
    pub shards: u32,
    /// A pack of this size is sealed.
    pub pack: ByteSize,
    /// A sealed pack of which less than this percentage is alive is rewritten.
    pub rewrite_below: u64,
    /// Deliveries that share a commit.
    pub batch: usize,
    /// For so long after its delivery a delivered id is remembered.
    pub delivered_for: Duration,
    /// Where readers are served.
    pub listen: Listen,
    /// Connections at once on all of these.
    pub connections: usize,
    /// Connections at once from one address.
    pub per_address: usize,
    /// How long a reader may say nothing.
    pub idle: Duration,
    /// Room for the texts that readers are sent.
    pub texts: ByteSize,
    /// Room for the mailboxes that are kept for their readers.
    pub views: ByteSize,
    /// What of mail is indexed for searching.
    pub indexing: Indexing,
    /// How people log in.
    pub logins: Logins,
    /// Bytes of a message that a reader appends: as much as SMTP takes. It is not written here but given.
    pub message: u64,
}

/// Where readers are served.
#[derive(Debug, Clone)]
pub struct Listen {
    /// IMAP, with STARTTLS.
    pub imap: Vec<SocketAddr>,
    /// IMAP under TLS.
    pub imaps: Vec<SocketAddr>,
    /// POP3, with STLS.
    pub pop3: Vec<SocketAddr>,
    /// POP3 under TLS.
    pub pop3s: Vec<SocketAddr>,
}

/// What bounds logging in.
#[derive(Debug, Clone, Copy)]
pub struct Logins {
    /// How long a reader may take to log in.
    pub within: Duration,
    /// The longest wait before a login from where many failed.
    pub delay: Duration,
    /// Logins from one network that may wait so at once.
    pub delayed: usize,
    /// Sessions of one account at once.
    pub per_account: usize,
}

impl Config {
    /// What all texts and what is put in order may take in memory, in bytes.
    pub fn most_of_texts(&self) -> u64 {
        crate::texts::most(self.texts)
    }

    /// Reads the section; the folder's default lies in `var`.
    pub fn read(mut section: Section, var: &Path) -> Self {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let folder = var.join("store").display().to_string();
        let config = Self {
            work: worker::Config::read(&mut section, 512),
            folder: section.file("folder", &folder, "Where the mail lies."),
            shards: u32::try_from(section.count(
                "shards",
                8,
                1..=256,
                "Databases over which accounts are spread. Fixed when the folder is made.",
            ))
            .unwrap_or(1),
            pack: pack(&mut section),
            rewrite_below: rewrite_below(&mut section),
            batch: count(section.count(
                "batch",
                256,
                1..=10_000,
                "Deliveries, or other changes that take as long, that share one sync and one commit of a shard.",
            )),
            delivered_for: section
                .span(
                    "delivered_for",
                    "30days",
                    "7days"..="365days",
                    "For so long after its delivery a delivered id is remembered. Longer than a mail goes round; what \
                     is sent round later is sent only to those who do not have it.",
                )
                .0,
            listen: Listen::read(&mut section),
            connections: count(section.count(
                "connections",
                12_000,
                1..=1_000_000,
                "Connections at once, of all protocols together; an idle one takes some 40 KiB.",
            )),
            per_address: count(section.count(
                "per_address",
                200,
                1..=1_000_000,
                "Connections at once from one address. A family behind one address has some dozens.",
            )),
            idle: section
                .span("idle", "30min", "1min"..="1day", "How long a reader may say nothing: RFC 3501 section 5.4.")
                .0,
            texts: texts(&mut section),
            views: views(&mut section),
            indexing: indexing(&mut section),
            logins: Logins::read(&mut section),
            message: 25 << 20,
        };
        section.finish();
        config
    }
}

fn views(section: &mut Section) -> ByteSize {
    section.size(
        "views",
        "64MiB",
        "1MiB"..="64GiB",
        "Room for the mailboxes that are kept in memory for their readers: some 60 bytes for each message, so the \
         default holds a million. What is not kept is read from the disk.",
    )
}

fn pack(section: &mut Section) -> ByteSize {
    section.size("pack", "256MiB", "1MiB"..="64GiB", "A pack file of this size is sealed and never changes afterwards.")
}

fn texts(section: &mut Section) -> ByteSize {
    section.size(
        "texts",
        "256MiB",
        "1MiB"..="64GiB",
        "Room for the texts that readers are being sent; an account has a quarter at most, so that one cannot keep the \
         others waiting. Beside it there is as much for the messages that readers append, half as much for texts of at \
         most 1 MiB, which large ones so never keep waiting, and as much for what SORT and THREAD put in order.",
    )
}

fn indexing(section: &mut Section) -> Indexing {
    Indexing {
        is_on: section.switch(
            "search_index",
            "true",
            "Whether texts are indexed, behind the delivery, so that searching through them reads only mail that may \
             match. It takes half a KiB for a mail of 4 KB; without it a search reads all mail of the mailbox, some \
             40,000 of 4 KB a second.",
        ),
        most: usize::try_from(
            section
                .size(
                    "search_index_text",
                    "1MiB",
                    "64KiB"..="64MiB",
                    "A mail with more text than this is not indexed but always read: so large a text has nearly all \
                     that anybody looks for. Attachments are not text.",
                )
                .0,
        )
        .unwrap_or(usize::MAX),
    }
}

fn rewrite_below(section: &mut Section) -> u64 {
    section.count(
        "rewrite_below",
        30,
        0..=90,
        "A sealed pack of which less than this percentage is alive is rewritten, so that the space of expunged mail \
         comes back. A higher one gives back more and writes more; 0 turns it off.",
    )
}

impl Logins {
    fn read(section: &mut Section) -> Self {
        Self {
            within: section
                .span(
                    "login",
                    "1min",
                    "1s"..="30min",
                    "How long a reader may take to log in, TLS included. People have typed their password before.",
                )
                .0,
            delay: section
                .span(
                    "login_delay",
                    "30s",
                    "0s"..="5min",
                    "After three failures each login from that network (an IPv4 address, an IPv6 /64) waits: 1 s, then \
                     twice as long, up to this.",
                )
                .0,
            delayed: usize::try_from(section.count(
                "logins_delayed",
                10,
                1..=10_000,
                "Logins from one network that may wait so at once; more are told to come again.",
            ))
            .unwrap_or(usize::MAX),
            per_account: usize::try_from(section.count(
                "per_account",
                100,
                1..=1_000_000,
                "Sessions of one account at once, of IMAP and POP3 together. A program has some five, and a person \
                 some devices.",
            ))
            .unwrap_or(usize::MAX),
        }
    }
}

impl Listen {
    fn read(section: &mut Section) -> Self {
        Self {
            imap: section.addresses("imap", &["127.0.0.1:1143"], "Where IMAP is served, with STARTTLS."),
            imaps: section.addresses("imaps", &["127.0.0.1:1993"], "Where IMAP under TLS is served."),
            pop3: section.addresses("pop3", &["127.0.0.1:1110"], "Where POP3 is served, with STLS."),
            pop3s: section.addresses("pop3s", &["127.0.0.1:1995"], "Where POP3 under TLS is served."),
        }
    }
}
