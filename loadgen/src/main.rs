//! Pressure and proof: sends mail to a chain as the world does, measures how long it takes, and reads everything back.
//!
//! Exit code 0: the chain has kept its word, or nothing was read back. 1: it has not. 2: loadgen itself could not go
//! on.

mod accounts;
mod books;
mod imap;
mod ledger;
mod mails;
mod mark;
mod measure;
mod mix;
mod plot;
mod pop3;
mod profile;
mod proof;
mod queue;
mod report;
mod run;
mod sender;
mod sink;
mod slowest;
mod smtp;
mod sources;
mod verify;
mod watch;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sends mail, measures, and proves that all of it has come.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send, measure, and read back.
    Run(Box<run::Options>),
    /// Read back what an earlier run has sent.
    Verify(verify::Options),
    /// Print accounts u00000, u00001 and so on, for `chainmail account import`.
    Accounts {
        /// How many.
        count: u32,
        /// Their domain.
        #[arg(long, default_value = "example.org")]
        domain: String,
        /// Their password.
        #[arg(long, default_value = "chainmail")]
        password: String,
    },
    /// An SMTP server that takes everything and keeps nothing.
    Sink {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:2599")]
        listen: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(options) => run::run(*options).await,
        Command::Verify(options) => verify::verify(options).await,
        Command::Accounts { count, domain, password } => accounts::lines(count, &domain, &password).map(|lines| {
            print!("{lines}");
            true
        }),
        Command::Sink { listen } => sink::serve(listen).await.map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::from(2)
        }
    }
}
