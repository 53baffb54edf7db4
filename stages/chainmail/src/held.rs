//! `chainmail held`: what the quarantine holds, and what becomes of it.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use directory::Directory;
use proto::{NodeName, subjects};
use runtime::broker::Broker;
use store::held::{Reply, Request};

use crate::config::Config;
use crate::output::{print, say};

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
        /// Even if no virus scanner has seen it, because it is too large.
        #[arg(long)]
        unscanned: bool,
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
    let directory = Directory::open_existing(config.directory.clone()).await?;
    let node: NodeName = directory.held_account().await?.store.parse().map_err(anyhow::Error::msg)?;
    let broker = Broker::connect(config.broker.clone(), "chainmail-held", BROKER).await?;
    let ask = async |request: &Request| -> anyhow::Result<Reply> {
        let answer = broker.ask(subjects::ask_store(&node), serde_json::to_vec(request)?.into(), NODE).await?;
        serde_json::from_slice::<Result<Reply, String>>(&answer)?.map_err(anyhow::Error::msg)
    };
    let request = match command {
        Held::List => return list(ask).await,
        Held::Show { number } => Request::Show(number),
        Held::Release { number, unscanned } => Request::Release { number, unscanned },
        Held::Drop { number } => Request::Drop(number),
    };
    match ask(&request).await? {
        Reply::Text(text) if std::io::stdout().is_terminal() => print(&harmless(&text))?,
        Reply::Text(text) => print(&text)?,
        Reply::Done => say(format_args!("done"))?,
        Reply::Held(_) => bail!("the store node answered something else"),
    }
    Ok(())
}

async fn list(ask: impl AsyncFn(&Request) -> anyhow::Result<Reply>) -> anyhow::Result<()> {
    let mut last = 0;
    loop {
        let Reply::Held(mails) = ask(&Request::List(last)).await? else {
            bail!("the store node answered something else")
        };
        for mail in &mails {
            say(format_args!(
                "{} {} for {}, {} bytes: {}",
                mail.number, mail.mail, mail.recipient, mail.size, mail.reason
            ))?;
        }
        match mails.last() {
            Some(mail) => last = mail.number,
            None => {
                if last == 0 {
                    eprintln!("nothing is held");
                }
                return Ok(());
            }
        }
    }
}

/// What a terminal would obey is shown instead: held mail is not to be trusted.
fn harmless(text: &[u8]) -> Vec<u8> {
    let shown = |c: char| if c.is_control() && !matches!(c, '\n' | '\t' | '\r') { '\u{fffd}' } else { c };
    String::from_utf8_lossy(text).chars().map(shown).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(harmless(b"a\r\n\x1b[2J\x07\xc2\x9bb"), "a\r\n\u{fffd}[2J\u{fffd}\u{fffd}b".as_bytes());
    }
}
