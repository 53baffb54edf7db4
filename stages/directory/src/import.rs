//! Many accounts at once, in few transactions: a site that moves in, or a load test.
//!
//! All of it or nothing: the lines that are wrong are told with their numbers, before any password is hashed, and no
//! account of the whole list is made.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, bail};
use wire::secret::Secret;

use crate::address::Address;
use crate::admin::{Change, NewAccount, insert};
use crate::given::Given;
use crate::login::hash;
use crate::master::{Entry, Kind};
use crate::{Directory, Unsure};

/// So many wrong lines are told; whoever has more of them has one cause for them all.
const TOLD: usize = 20;

/// A line of a list, with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    number: usize,
    address: Address,
    given: Given,
}

/// An account of a list, whose password is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    address: Address,
    password: Secret<String>,
}

/// Reads a list: a line for each account, its address and its password or ready hash, with one blank or more between.
/// Empty lines and those that begin with `#` say nothing.
///
/// # Errors
/// What is wrong, line by line.
pub fn read(list: &str) -> anyhow::Result<Vec<Line>> {
    // Columns that are indented or aligned are columns still: no password begins with the blanks before it.
    let texts = (1..).zip(list.lines().map(str::trim_start));
    let (mut lines, mut wrong, mut known) = (Vec::new(), Vec::new(), HashMap::new());
    for (number, text) in texts.filter(|(_, text)| !text.is_empty() && !text.starts_with('#')) {
        match line(number, text) {
            Ok(line) => match known.insert(line.address.clone(), number) {
                Some(first) => wrong.push((number, format!("{} stands in line {first} already", line.address))),
                None => lines.push(line),
            },
            Err(error) => wrong.push((number, error.to_string())),
        }
    }
    tell(&wrong)?;
    Ok(lines)
}

fn line(number: usize, text: &str) -> anyhow::Result<Line> {
    let (address, secret) = text.split_once([' ', '\t']).context("no password follows the address")?;
    // What is no address may be a password, in a list whose columns are swapped.
    let address: Address = address.parse().map_err(|bad: crate::address::BadAddress| {
        anyhow::anyhow!("it does not begin with an address: {}", bad.why())
    })?;
    if address.local().contains('+') {
        bail!("its address holds a plus sign, which separates the tag of an address");
    }
    let given = Given::read(secret.trim_start_matches([' ', '\t']))?;
    Ok(Line { number, address, given })
}

/// All that is wrong, if anything is.
fn tell(wrong: &[(usize, String)]) -> anyhow::Result<()> {
    if wrong.is_empty() {
        return Ok(());
    }
    let mut told: Vec<String> = wrong.iter().take(TOLD).map(|(line, what)| format!("line {line}: {what}")).collect();
    if wrong.len() > TOLD {
        told.push(format!("and {} more lines are wrong", wrong.len() - TOLD));
    }
    bail!("{}", told.join("\n"));
}

/// Hashes the passwords of a list, on all cores: each takes some 20 ms.
///
/// # Errors
/// When hashing fails.
pub fn hash_all(lines: &[Line]) -> anyhow::Result<Vec<Imported>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = lines.chunks(lines.len().div_ceil(cores).max(1));
    let hashed = std::thread::scope(|scope| {
        let parts: Vec<_> = parts.map(|part| scope.spawn(move || part.iter().map(hashed).collect())).collect();
        let hashed =
            parts.into_iter().map(|part| part.join().unwrap_or_else(|_| Err(anyhow::anyhow!("hashing panicked"))));
        hashed.collect::<anyhow::Result<Vec<Vec<Imported>>>>()
    })?;
    Ok(hashed.concat())
}

fn hashed(line: &Line) -> anyhow::Result<Imported> {
    let password = match &line.given {
        Given::Password(password) => Secret::new(hash(password.reveal())?),
        Given::Hash(hash) => hash.clone(),
    };
    Ok(Imported { address: line.address.clone(), password })
}

impl Directory {
    /// Looks whether the accounts of a list can be made.
    ///
    /// # Errors
    /// What cannot be made, line by line: a domain that is not ours, an address that is taken. That no numbers
    /// can be had yet: to hash many passwords takes minutes.
    pub async fn check_import(&self, lines: &[Line]) -> anyhow::Result<()> {
        let (mut domains, mut wrong) = (HashSet::new(), Vec::new());
        for line in lines {
            if domains.insert(line.address.domain())
                && let Err(error) = self.check_domain(&line.address).await
            {
                if error.is::<Unsure>() {
                    return Err(error);
                }
                wrong.push((line.number, error.to_string()));
            } else if self.inner.master.address(&line.address).await? != Entry::Absent {
                wrong.push((line.number, format!("{} exists already", line.address)));
            }
        }
        tell(&wrong)?;
        self.check_numbers().await
    }

    /// Makes the accounts, all on one store node and without limits.
    ///
    /// # Errors
    /// A domain or an address that another command has taken since they were looked at; none is made then.
    pub async fn import(&self, accounts: &[Imported], store: &str) -> anyhow::Result<Vec<Change>> {
        let first = self.reserve(accounts.len()).await?;
        let mut transaction = self.inner.master.write().await?;
        for (account, number) in accounts.iter().zip(first..) {
            let (address, password) = (account.address.as_str(), Secret::new(account.password.reveal().as_str()));
            let kind = Kind::User;
            let checked = NewAccount { address, password, store, kind, quota_bytes: 0, quota_messages: 0 };
            insert(&mut transaction, number, &checked).await?;
        }
        transaction.commit().await?;
        Ok(accounts.iter().map(|account| self.changed(Change::address(&account.address))).collect())
    }
}
