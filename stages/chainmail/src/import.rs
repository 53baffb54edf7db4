//! `chainmail account import`: many accounts from a list.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use directory::{Change, Directory, import};
use proto::NodeName;

use crate::config::Config;
use crate::output::say;
use crate::people;

/// Of more accounts it is said how long they take: one for each millisecond.
const MANY: usize = 5000;

/// Makes the accounts of a list, and tells every running process.
///
/// # Errors
/// What is wrong with the list, or an account that is there already; none is made then.
pub(crate) async fn import(
    config: &Config,
    directory: &Directory,
    list: &Path,
    store: Option<NodeName>,
    force: bool,
) -> anyhow::Result<()> {
    let text = read(list)?;
    let lines = import::read(&text)?;
    directory.check_import(&lines).await?;
    let store = people::choose(config, directory, store, force).await?;
    let accounts = tokio::task::spawn_blocking(move || import::hash_all(&lines)).await??;
    if accounts.len() > MANY {
        // Whoever breaks it off now keeps others from making accounts for as long (see `directory`'s numbers).
        eprintln!(
            "the numbers of {} accounts are given by the clock: that takes {} s",
            accounts.len(),
            accounts.len() / 1000
        );
    }
    let changes: Vec<Change> = directory.import(&accounts, &store).await?;
    people::announce(config, &changes).await;
    say(format_args!("{} accounts were made on {store}", changes.len()))?;
    Ok(())
}

/// A file; `-` is standard input.
fn read(list: &Path) -> anyhow::Result<String> {
    if list == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).context("reading the list from standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(list).with_context(|| format!("reading {}", list.display()))
}
