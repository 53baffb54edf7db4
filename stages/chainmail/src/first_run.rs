//! A first run on one's own machine: a domain and two accounts to try it out, never within reach of the world.

use std::path::{Path, PathBuf};

use anyhow::bail;
use directory::{Directory, Kind, NewAccount};
use rand::Rng as _;
use rand::distr::Alphanumeric;
use wire::secret::Secret;

use crate::config::Config;

/// The password of the accounts of a first run.
pub(crate) const PASSWORD: &str = "chainmail";

/// Makes the domain and accounts of a first run, if the directory is empty, every listener is on loopback, and there
/// never was any mail: where there was, the directory's file is away and must come back.
///
/// # Errors
/// When the directory does not answer.
pub(crate) async fn make(config: &Config, directory: &Directory) -> anyhow::Result<()> {
    if !config.listeners().iter().all(|address| address.ip().is_loopback()) || !directory.is_empty().await? {
        return Ok(());
    }
    if let Some(folder) = used(config) {
        let folder = folder.display();
        tracing::error!(%folder, "the directory is empty, but this is no first run: put its file back, all mail waits");
        return Ok(());
    }
    let domain = &config.first_domain;
    let people =
        [("alice", Kind::User), ("bob", Kind::User), ("postmaster", Kind::System), ("quarantine", Kind::System)];
    let people = people.map(|(name, kind)| (format!("{name}@{domain}"), kind));
    let accounts = people.each_ref().map(|(address, kind)| account(config, address, PASSWORD, *kind));
    directory.make_first_run(domain, &accounts).await?;
    tracing::info!(domain, password = PASSWORD, "made alice, bob, postmaster and quarantine to try it out");
    Ok(())
}

/// Makes a real site's first domain and the system's accounts in it; what is there already from a try that broke off
/// stays. Gives the passwords of the accounts that it made.
///
/// # Errors
/// When all of it is there already, or the directory does not answer.
pub(crate) async fn set_up(
    config: &Config,
    directory: &Directory,
    domain: &str,
) -> anyhow::Result<Vec<(String, String)>> {
    if !directory.domains().await?.iter().any(|(name, ..)| name.eq_ignore_ascii_case(domain)) {
        directory.add_domain(domain, None, None).await?;
    }
    let mut made = Vec::new();
    for name in ["postmaster", "quarantine"] {
        let address = format!("{name}@{domain}");
        if directory.account(&address).await?.is_none() {
            let password: String = rand::rng().sample_iter(Alphanumeric).take(20).map(char::from).collect();
            made.push((address, password));
        }
    }
    if made.is_empty() {
        bail!("{domain} is set up already; a new password is given with: chainmail account passwd postmaster@{domain}");
    }
    // All or none: nobody would ever hear the password of one that was made before another could not be.
    let new = made.iter().map(|(address, password)| account(config, address, password, Kind::System));
    directory.add_accounts(&new.collect::<Vec<_>>()).await?;
    Ok(made)
}

/// Refuses to listen beyond loopback as long as an account has the password that everybody knows.
///
/// # Errors
/// That, or a directory that does not answer.
pub(crate) async fn refuse_in_public(config: &Config, directory: &Directory) -> anyhow::Result<()> {
    let Some(public) = config.listeners().into_iter().find(|address| !address.ip().is_loopback()) else {
        return Ok(());
    };
    for address in directory.first_run().await? {
        if directory.authenticate(&address, PASSWORD).await?.is_some() {
            bail!(
                "{address} still has the password of the first run, and {public} is not on loopback; change it with: \
                 chainmail account passwd {address}"
            );
        }
    }
    Ok(())
}

/// A folder in which there is something from an earlier run.
pub(crate) fn used(config: &Config) -> Option<&Path> {
    let folders = [&config.accept.journal.folder, &config.store.folder];
    // The top of a disk of its own has that from the beginning.
    let ours = |entry: std::io::Result<std::fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() != "lost+found");
    let is_used = |folder: &&Path| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.any(ours));
    folders.into_iter().map(PathBuf::as_path).find(is_used)
}

fn account<'a>(config: &'a Config, address: &'a str, password: &'a str, kind: Kind) -> NewAccount<'a> {
    NewAccount {
        address,
        password: Secret::new(password),
        store: config.node.as_str(),
        kind,
        quota_bytes: 0,
        quota_messages: 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The password of the first was lost when the second could not be made.
    #[tokio::test]
    async fn a_set_up_that_fails_makes_no_account() {
        let folder = tempfile::tempdir().unwrap();
        let (config, _) = crate::config::parse(&format!("var: {}", folder.path().display())).unwrap();
        let directory = Directory::open(config.directory.clone()).await.unwrap();
        directory.add_domain("example.org", None, None).await.unwrap();
        directory.add_alias("quarantine@example.org", "a@example.org").await.unwrap();
        set_up(&config, &directory, "example.org").await.unwrap_err();
        assert!(directory.account("postmaster@example.org").await.unwrap().is_none());
        directory.remove_alias("quarantine@example.org", None).await.unwrap();
        assert_eq!(set_up(&config, &directory, "example.org").await.unwrap().len(), 2);
    }

    /// Its directory's file was away when it was started.
    #[tokio::test]
    async fn a_site_that_had_mail_is_not_made_anew() {
        for (used, domains) in [(None, 1), (Some("store"), 0), (Some("journal"), 0)] {
            let folder = tempfile::tempdir().unwrap();
            let (config, _) = crate::config::parse(&format!("var: {}", folder.path().display())).unwrap();
            for empty in ["store", "journal"] {
                std::fs::create_dir_all(folder.path().join(empty).join("lost+found")).unwrap();
            }
            if let Some(used) = used {
                std::fs::write(folder.path().join(used).join("lock"), "").unwrap();
            }
            let directory = Directory::open(config.directory.clone()).await.unwrap();
            make(&config, &directory).await.unwrap();
            assert_eq!(directory.domains().await.unwrap().len(), domains, "{used:?}");
        }
    }
}
