//! `chainmail held`: what the quarantine holds, and what becomes of it.

use std::io::Write as _;
use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use directory::Directory;
use proto::{NodeName, subjects};
use runtime::broker::Broker;
use store::held::{Reply, Request};

use crate::config::Config;

/// How long the broker is looked for.
const BROKER: Duration = Duration::from_secs(3);
/// How long the store node may take.
const NODE: Duration = Duration::from_secs(60);

/// Held mail.
#[derive(Debug, Subcommand)]
pub(crate) enum Held {
    /// List held mail.
    List,
    /// Show one, up to 64 KiB; the rest is read over IMAP or POP3.
    Show {
        /// Its number.
        number: i64,
    },
    /// Put one into its recipient's mailbox.
    Release {
        /// Its number.
        number: i64,
    },
    /// Give one up for good.
    Drop {
        /// Its number.
        number: i64,
    },
}

/// Carries out a command about held mail.
///
/// # Errors
/// When the quarantine's store node cannot be asked, or says no.
pub(crate) async fn held(config: &Config, command: Held) -> anyhow::Result<()> {
    let directory = Directory::open(config.directory.clone()).await?;
    let node: NodeName = directory.held_account().await?.store.parse().map_err(anyhow::Error::msg)?;
    let broker = Broker::connect(config.broker.clone(), "chainmail-held", BROKER).await?;
    let request = match command {
        Held::List => Request::List,
        Held::Show { number } => Request::Show(number),
        Held::Release { number } => Request::Release(number),
        Held::Drop { number } => Request::Drop(number),
    };
    let answer = broker.ask(subjects::ask_store(&node), serde_json::to_vec(&request)?.into(), NODE).await?;
    match serde_json::from_slice::<Result<Reply, String>>(&answer)? {
        Ok(Reply::Held(mails)) => {
            for mail in mails {
                println!("{} {} for {}, {} bytes: {}", mail.number, mail.mail, mail.recipient, mail.size, mail.reason);
            }
        }
        Ok(Reply::Text(text)) => std::io::stdout().write_all(&text)?,
        Ok(Reply::Done) => println!("done"),
        Err(error) => bail!(error),
    }
    Ok(())
}
