//! `chainmail account`, `alias` and `domain`: changing the directory.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use directory::{Change, Directory, Kind, NewAccount, Status};
use proto::{NodeName, subjects};
use runtime::broker::Broker;
use runtime::config::ByteSize;
use wire::secret::Secret;

use crate::config::Config;
use crate::first_run;
use crate::import;
use crate::output::say;

/// How long the broker is looked for to announce a change. Without it, caches notice within their own time.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// Accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Make an account; its password is read from standard input.
    Add {
        /// Its address.
        address: String,
        /// The store node on which it lives; the one with the fewest accounts if not given.
        #[arg(long)]
        store: Option<NodeName>,
        /// Take a store node that has never run.
        #[arg(long)]
        force: bool,
        /// Limit in bytes, like 5GiB; 0 is none.
        #[arg(long, default_value = "0")]
        quota: ByteSize,
        /// Limit in messages; 0 is none.
        #[arg(long, default_value_t = 0)]
        messages: u64,
    },
    /// Make many accounts, all of a list or none: a line for each, with its address and its password or ready hash
    /// (Argon2id, PHC form).
    ///
    /// One blank or more stand between the two, so that columns may be aligned; blanks inside a password are part of
    /// it, and one that begins or ends with a blank is set with `account passwd`. A hash of another kind ($6$...,
    /// {SSHA}...) is refused, and so is one that takes more than 256 MiB (m=262144), 10 passes (t), 768 MiB in all of
    /// them (m times t) or 16 lanes (p) for each login, what stands for a locked account in /etc/shadow (*, !, x), and
    /// a password of fewer than 3 characters.
    Import {
        /// The list; `-` is standard input.
        list: std::path::PathBuf,
        /// The store node on which they live; the one with the fewest accounts if not given.
        #[arg(long)]
        store: Option<NodeName>,
        /// Take a store node that has never run.
        #[arg(long)]
        force: bool,
    },
    /// List accounts.
    List {
        /// Only those whose address holds this text.
        #[arg(default_value = "")]
        part: String,
    },
    /// Show one account.
    Show {
        /// Its address.
        address: String,
    },
    /// Give an account another password, read from standard input. Who has logged in with the old one is logged out.
    Passwd {
        /// Its address.
        address: String,
    },
    /// Take no more mail for an account, log out who reads it, and let nobody log in; what it has is kept.
    Suspend {
        /// Its address.
        address: String,
    },
    /// Make a suspended account active again.
    Resume {
        /// Its address.
        address: String,
    },
    /// Remove an account, and log out who reads it. Its mail stays on its store's disk, out of reach.
    Remove {
        /// Its address.
        address: String,
    },
}

/// Aliases.
#[derive(Debug, Subcommand)]
pub(crate) enum Alias {
    /// Make an address stand for one more.
    Add {
        /// The alias.
        address: String,
        /// What it stands for.
        target: String,
    },
    /// List aliases.
    List,
    /// Remove an alias, or one of its targets.
    Remove {
        /// The alias.
        address: String,
        /// Only this target.
        target: Option<String>,
    },
}

/// Domains.
#[derive(Debug, Subcommand)]
pub(crate) enum Domain {
    /// Make a domain.
    Add {
        /// Its name.
        name: String,
        /// Share the addresses of this domain.
        #[arg(long)]
        alias_of: Option<String>,
        /// Send mail for unknown addresses here.
        #[arg(long)]
        catch_all: Option<String>,
    },
    /// List domains.
    List,
    /// Remove a domain that has no accounts.
    Remove {
        /// Its name.
        name: String,
    },
}

/// Carries out a command about accounts.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn account(config: &Config, command: Account) -> anyhow::Result<()> {
    let directory = Directory::open_existing(config.directory.clone()).await?;
    let change = match command {
        Account::Add { address, store, force, quota, messages } => {
            let store = choose(config, &directory, store, force).await?;
            let password = read_password(&address)?;
            let new = NewAccount {
                address: &address,
                password: Secret::new(&password),
                store: &store,
                kind: Kind::User,
                quota_bytes: quota.0,
                quota_messages: messages,
            };
            (directory.add_account(new).await?, format!("{address} was made on {store}"))
        }
        Account::Import { list, store, force } => {
            return import::import(config, &directory, &list, store, force).await;
        }
        Account::List { part } => return list(&directory, &part).await,
        Account::Show { address } => return show(&directory, &address).await,
        Account::Passwd { address } => {
            let password = read_password(&address)?;
            (directory.set_password(&address, &password).await?, format!("{address} has another password"))
        }
        Account::Suspend { address } => {
            (directory.set_status(&address, Status::Suspended).await?, format!("{address} is suspended"))
        }
        Account::Resume { address } => {
            (directory.set_status(&address, Status::Active).await?, format!("{address} is active"))
        }
        Account::Remove { address } => (directory.remove_account(&address).await?, format!("{address} was removed")),
    };
    let (change, done) = change;
    announce(config, &[change]).await;
    say(format_args!("{done}"))?;
    Ok(())
}

/// Carries out a command about aliases.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn alias(config: &Config, command: Alias) -> anyhow::Result<()> {
    let directory = Directory::open_existing(config.directory.clone()).await?;
    let change = match command {
        Alias::Add { address, target } => {
            (directory.add_alias(&address, &target).await?, format!("{address} stands for {target}"))
        }
        Alias::Remove { address, target } => {
            let change = directory.remove_alias(&address, target.as_deref()).await?;
            (change, format!("{address} stands for {} no more", target.as_deref().unwrap_or("anything")))
        }
        Alias::List => {
            let aliases = directory.aliases().await?;
            for (address, target) in &aliases {
                say(format_args!("{address} {target}"))?;
            }
            say_if_none(aliases.len(), "aliases");
            return Ok(());
        }
    };
    let (change, done) = change;
    announce(config, &[change]).await;
    say(format_args!("{done}"))?;
    Ok(())
}

/// Carries out a command about domains.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn domain(config: &Config, command: Domain) -> anyhow::Result<()> {
    let directory = match command {
        // A site may begin with its domains.
        Domain::Add { .. } => Directory::open(config.directory.clone()).await?,
        Domain::List | Domain::Remove { .. } => Directory::open_existing(config.directory.clone()).await?,
    };
    let change = match command {
        Domain::Add { name, alias_of, catch_all } => {
            if directory.is_empty().await?
                && let Some(folder) = first_run::used(config)
            {
                // Mail waits for a directory that is empty; for one that knows a domain, everybody else in it is
                // nobody.
                eprintln!(
                    "the directory was empty, but {} is not: if its file is away, put it back before mail is refused",
                    folder.display()
                );
            }
            let change = directory.add_domain(&name, alias_of.as_deref(), catch_all.as_deref()).await?;
            (change, format!("{name} was made"))
        }
        Domain::Remove { name } => (directory.remove_domain(&name).await?, format!("{name} was removed")),
        Domain::List => {
            let domains = directory.domains().await?;
            say_if_none(domains.len(), "domains");
            for (name, alias_of, catch_all) in domains {
                let alias = if alias_of.is_empty() { String::new() } else { format!(" alias of {alias_of}") };
                let rest = if catch_all.is_empty() { String::new() } else { format!(" catch-all {catch_all}") };
                say(format_args!("{name}{alias}{rest}"))?;
            }
            return Ok(());
        }
    };
    let (change, done) = change;
    announce(config, &[change]).await;
    say(format_args!("{done}"))?;
    Ok(())
}

/// The store node for a new account. A node that has never run is taken only by force: mail for it would wait unseen.
pub(crate) async fn choose(
    config: &Config,
    directory: &Directory,
    wanted: Option<NodeName>,
    force: bool,
) -> anyhow::Result<String> {
    let mut nodes: BTreeMap<String, u64> = directory.spread().await?.into_iter().collect();
    match Broker::connect(config.broker.clone(), "chainmail-admin", ANNOUNCE).await {
        Ok(broker) => {
            let consumers = broker.consumers(subjects::STORE).await.unwrap_or_default();
            let running = consumers.iter().filter_map(|name| subjects::store_node(name));
            running.for_each(|node| *nodes.entry(node.to_owned()).or_default() += 0);
        }
        Err(_) => eprintln!("the broker is not there: store nodes without accounts are not known"),
    }
    let Some(wanted) = wanted else {
        let emptiest = nodes.into_iter().min_by_key(|(_, count)| *count);
        return Ok(emptiest.map_or_else(|| config.node.to_string(), |(node, _)| node));
    };
    if !force && !nodes.is_empty() && !nodes.contains_key(wanted.as_str()) {
        let known = nodes.into_keys().collect::<Vec<_>>().join(", ");
        bail!("no store node {wanted} has ever run, there are {known}; with --force the account is made all the same");
    }
    Ok(wanted.to_string())
}

async fn list(directory: &Directory, part: &str) -> anyhow::Result<()> {
    let accounts = directory.accounts(part).await?;
    say_if_none(accounts.len(), "such accounts");
    for account in accounts {
        say(format_args!("{} {:?} {:?} {}", account.address, account.kind, account.status, account.store))?;
    }
    Ok(())
}

async fn show(directory: &Directory, address: &str) -> anyhow::Result<()> {
    let account = directory.account(address).await?.with_context(|| format!("there is no account {address}"))?;
    say(format_args!("address:  {}", account.address))?;
    say(format_args!("number:   {}", account.id))?;
    say(format_args!("kind:     {:?}", account.kind))?;
    say(format_args!("status:   {:?}", account.status))?;
    say(format_args!("store:    {}", account.store))?;
    say(format_args!("quota:    {} bytes, {} messages (0 is none)", account.quota_bytes, account.quota_messages))?;
    Ok(())
}

/// One line of standard input: passwords do not belong on a command line, where every user of the machine reads them.
fn read_password(address: &str) -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(format!("Password for {address}: ")).context("reading the password");
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("reading the password from standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// On standard error, so that a script's list stays a list.
fn say_if_none(count: usize, what: &str) {
    if count == 0 {
        eprintln!("there are no {what}");
    }
}

/// Tells every running process what has changed. When the broker is not there, their caches notice by themselves.
pub(crate) async fn announce(config: &Config, changes: &[Change]) {
    let Ok(broker) = Broker::connect(config.broker.clone(), "chainmail-admin", ANNOUNCE).await else {
        return eprintln!("the broker is not there: running processes notice within directory.fresh_for");
    };
    let changes = changes.iter().map(|change| change.to_bytes().into());
    if let Err(error) = broker.announce_all(subjects::DIRECTORY_CHANGED, changes).await {
        eprintln!("not everything was announced ({error:#}): running processes notice within directory.fresh_for");
    }
}
