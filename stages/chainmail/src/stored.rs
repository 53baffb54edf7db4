//! `chainmail store`: looks after the folder of the store node on this machine.

use anyhow::Context as _;
use clap::Subcommand;
use store::verify::{self, Verified};

use crate::config::Config;
use crate::output::say;

/// The store node's folder.
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Read every stored body and hold the rows against each other; a node may run on the folder meanwhile.
    Verify,
}

/// Carries out a command about the folder. False when something in it is damaged.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) async fn store(config: &Config, command: Store) -> anyhow::Result<bool> {
    let Store::Verify = command;
    let folder = config.store.folder.clone();
    let verify = move || {
        let mut said = Ok(());
        let verified = verify::verify(&folder, |line| {
            if said.is_ok() {
                said = say(format_args!("{line}"));
            }
        });
        said.context("telling the damages").and(verified)
    };
    let verified = tokio::task::spawn_blocking(verify).await.context("verifying")??;
    let damages = match verified.damages {
        0 => "sound".to_owned(),
        damages => format!("{damages} damaged"),
    };
    let Verified { messages, bodies, bytes, .. } = verified;
    say(format_args!("{messages} messages, {bodies} bodies, {bytes} bytes: {damages}"))?;
    Ok(verified.damages == 0)
}
