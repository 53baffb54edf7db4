//! `loadgen verify`: the proof by itself, with the ledger of an earlier run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::ledger::{self, Earlier};
use crate::mark::Span;
use crate::proof::{self, Readers, Server};
use crate::report::Proof;

/// How mailboxes are read back.
#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// The IMAP server; without it, and without --pop3, nothing is read back.
    #[arg(long)]
    pub(crate) imap: Option<SocketAddr>,
    /// Read back over POP3 instead: it knows INBOX only, and what is in Junk counts as lost.
    #[arg(long, conflicts_with = "imap")]
    pub(crate) pop3: Option<SocketAddr>,
    /// Everybody's password.
    #[arg(long, default_value = "chainmail")]
    pub(crate) password: String,
    /// The account in which held mail is; without it, held mail counts as lost.
    #[arg(long)]
    pub(crate) quarantine: Option<String>,
    /// Its password, if it is another.
    #[arg(long)]
    pub(crate) quarantine_password: Option<String>,
    /// What is missing is waited for, until for so long nothing more has come. Chainmail sends again after five minutes
    /// what its broker has lost (`refill_first`): what has not come after six is lost.
    #[arg(long, default_value = "6min", value_parser = humantime::parse_duration)]
    pub(crate) settle: Duration,
    /// Before the last look so long is waited for what may come twice.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) linger: Duration,
}

/// What is read back.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The ledger that `loadgen run --ledger` has written.
    pub(crate) ledger: PathBuf,
    /// Tell it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

impl Reading {
    /// The readers, if anything is to be read back.
    pub(crate) fn readers(&self, span: Span) -> Option<Readers> {
        let password = self.quarantine_password.as_ref().unwrap_or(&self.password);
        Some(Readers {
            server: self.imap.map(Server::Imap).or(self.pop3.map(Server::Pop3))?,
            password: self.password.clone(),
            quarantine: self.quarantine.as_ref().map(|address| (address.to_lowercase(), password.clone())),
            settle: self.settle,
            linger: self.linger,
            span,
        })
    }
}

/// Reads back. Whether the chain has kept its word.
///
/// # Errors
/// When the ledger cannot be read.
pub(crate) async fn verify(options: Options) -> anyhow::Result<bool> {
    let path = options.ledger.display();
    let text = std::fs::read_to_string(&options.ledger).with_context(|| format!("reading {path}"))?;
    let Earlier { books, span, is_whole } = ledger::read(&text).with_context(|| format!("reading {path}"))?;
    let readers = options.reading.readers(span).context("--imap or --pop3 says where mailboxes are read")?;
    if !is_whole {
        eprintln!("this run was killed: what stands in its ledger is proved");
    }
    let books = Mutex::new(books);
    let unread = proof::prove(&readers, &books).await;
    let verdict = books.lock().map_err(|_| anyhow::anyhow!("reading back has panicked"))?.verdict();
    let proof = Proof { verdict, unread };
    if options.json {
        println!("{:#}", proof.to_json());
    } else {
        print!("{}", proof.to_text());
    }
    Ok(proof.is_good())
}
