//! `chainmail store`: looks after the folder of the store node on this machine.

use anyhow::Context as _;
use clap::Subcommand;
use store::verify;

use crate::config::Config;

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
    let verified = tokio::task::spawn_blocking(move || verify::verify(&folder, |line| println!("{line}")));
    let verified = verified.await.context("verifying")??;
    println!(
        "{} messages, {} bodies, {} bytes: {}",
        verified.messages,
        verified.bodies,
        verified.bytes,
        match verified.damages {
            0 => "sound".to_owned(),
            damages => format!("{damages} damaged"),
        }
    );
    Ok(verified.damages == 0)
}
