//! The one binary: every stage, and the operator's commands.
#![warn(clippy::print_stdout)] // It panics when nobody reads any more: output.rs does not.

mod bounds;
mod config;
mod first_run;
mod generated;
mod held;
mod import;
mod nats;
mod output;
mod people;
mod reports;
mod run;
mod status;
mod stored;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use directory::Directory;
use runtime::telemetry;

use crate::output::{print, say};

/// The mail system: takes mail in, filters it, keeps it, and serves it to its readers.
#[derive(Debug, Parser)]
#[command(name = "chainmail", version)]
struct Arguments {
    /// The configuration; `pipeline.yaml` in this folder if there is one, else every default.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole chain, or one stage of it.
    Run {
        /// Which.
        part: run::Part,
        #[command(flatten)]
        differences: run::Differences,
    },
    /// Check the configuration and print it with every default filled in.
    Check {
        /// Print the reference of all that can be configured instead, as Markdown.
        #[arg(long)]
        reference: bool,
    },
    /// Make a site's first domain, with its postmaster and its quarantine.
    Setup {
        /// The domain.
        domain: String,
    },
    /// Accounts.
    #[command(subcommand)]
    Account(people::Account),
    /// Aliases.
    #[command(subcommand)]
    Alias(people::Alias),
    /// Domains.
    #[command(subcommand)]
    Domain(people::Domain),
    /// The books, and every stage.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Dead letters: mail that a stage gave up.
    #[command(subcommand)]
    Dead(status::Dead),
    /// Held mail: the quarantine.
    #[command(subcommand)]
    Held(held::Held),
    /// The folder of the store node on this machine.
    #[command(subcommand)]
    Store(stored::Store),
    /// Make manual pages, completions for shells, and the reference of these commands.
    #[command(subcommand)]
    Generate(generated::Generate),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let worked = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(carry_out(arguments)));
    match worked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chainmail: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(arguments: Arguments) -> anyhow::Result<bool> {
    // What does not depend on the configuration works where there is none, and where it is wrong.
    let load = || config::load(arguments.config.as_deref());
    let config = || load().map(|(config, _)| config);
    match arguments.command {
        Command::Run { part, differences } => {
            let config = config()?;
            telemetry::set_up_logging(&config.log)?;
            run::run(differences.apply(config, part)?, part).await?;
        }
        Command::Check { reference: true } => print(config::reference()?.as_bytes())?,
        Command::Check { reference: false } => print(config::print(&load()?.1).as_bytes())?,
        Command::Setup { domain } => {
            let config = config()?;
            let directory = Directory::open(config.directory.clone()).await?;
            for (address, password) in first_run::set_up(&config, &directory, &domain).await? {
                say(format_args!("{address} has the password {password}"))?;
            }
        }
        Command::Account(command) => people::account(&config()?, command).await?,
        Command::Alias(command) => people::alias(&config()?, command).await?,
        Command::Domain(command) => people::domain(&config()?, command).await?,
        Command::Status { json } => return status::status(&config()?, json).await,
        Command::Dead(command) => status::dead(&config()?, command).await?,
        Command::Held(command) => held::held(&config()?, command).await?,
        Command::Store(command) => return stored::store(&config()?, command).await,
        Command::Generate(what) => generated::generate(what)?,
    }
    Ok(true)
}
