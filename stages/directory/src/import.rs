//! Many accounts at once, in few transactions: a site that moves in, or a load test.
//!
//! All of it or nothing: a line that is wrong is told with its number, and no account of the whole list is made.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use argon2::password_hash::PasswordHash;
use runtime::clock;
use sqlx::Row as _;

use crate::Directory;
use crate::address::Address;
use crate::admin::Change;
use crate::login::hash;
use crate::master::Entry;

/// How a hash begins, by which it is told from a password.
const READY: &str = "$argon2id$";

/// An account of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    address: Address,
    /// Argon2id, in the PHC form.
    password: String,
}

/// Reads a list: a line for each account, its address and its password or ready hash, with a blank between. Empty lines
/// and those that begin with `#` say nothing. Passwords are hashed here, on all cores.
///
/// # Errors
/// The first line that is wrong.
pub fn read(list: &str) -> anyhow::Result<Vec<Imported>> {
    let lines = list.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let lines: Vec<(usize, &str)> = lines.collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = lines.chunks(lines.len().div_ceil(cores).max(1));
    let accounts = std::thread::scope(|scope| {
        let parts: Vec<_> = parts.map(|part| scope.spawn(move || part.iter().map(account).collect())).collect();
        let read =
            parts.into_iter().map(|part| part.join().unwrap_or_else(|_| Err(anyhow::anyhow!("hashing panicked"))));
        read.collect::<anyhow::Result<Vec<Vec<Imported>>>>()
    })?;
    let accounts = accounts.concat();
    let mut known = HashSet::new();
    match accounts.iter().find(|account| !known.insert(&account.address)) {
        Some(twice) => bail!("{} stands in the list twice", twice.address),
        None => Ok(accounts),
    }
}

fn account((index, line): &(usize, &str)) -> anyhow::Result<Imported> {
    let read = || {
        let (address, password) = line.split_once([' ', '\t']).context("no password follows the address")?;
        let address: Address = address.parse()?;
        if address.local().contains('+') {
            bail!("{address} holds a plus sign, which separates the tag of an address");
        }
        if password.is_empty() {
            bail!("an account needs a password");
        }
        let password = if password.starts_with(READY) {
            let parsed =
                PasswordHash::new(password).map_err(|error| anyhow::anyhow!("the hash cannot be read: {error}"))?;
            // Without them it would fit no password.
            if parsed.salt.is_none() || parsed.hash.is_none() {
                bail!("the hash is not whole");
            }
            parsed.to_string()
        } else {
            hash(password)?
        };
        Ok(Imported { address, password })
    };
    read().with_context(|| format!("line {}", index + 1))
}

impl Directory {
    /// Makes the accounts, all on one store node and without limits.
    ///
    /// # Errors
    /// A domain that is not ours, an address that is taken.
    pub async fn import(&self, accounts: &[Imported], store: &str) -> anyhow::Result<Vec<Change>> {
        let mut domains = HashSet::new();
        for account in accounts {
            if domains.insert(account.address.domain()) {
                self.check_domain(&account.address).await?;
            }
            if self.inner.master.address(&account.address).await? != Entry::Absent {
                bail!("{} exists already", account.address);
            }
        }
        let first = self.reserve(accounts.len()).await?;
        let mut transaction = self.inner.master.pool.begin().await?;
        for (account, number) in accounts.iter().zip(first..) {
            sqlx::query(
                "INSERT INTO accounts (id, address, password, store, status, kind, quota_bytes, quota_messages)
                 VALUES (?, ?, ?, ?, 'active', 'user', 0, 0)",
            )
            .bind(number)
            .bind(account.address.as_str())
            .bind(&account.password)
            .bind(store)
            .execute(&mut *transaction)
            .await
            .with_context(|| format!("making {}", account.address))?;
        }
        transaction.commit().await?;
        Ok(accounts.iter().map(|account| self.changed(Change::address(&account.address))).collect())
    }
    /// Takes so many numbers, and gives the first. They are those that single accounts would have got: milliseconds since
    /// 1970, each once. None may lie before the clock when an account has it: a directory that comes back from a backup
    /// would give it again. So they are waited for, while nothing is locked; numbers that are not used then do no harm.
    async fn reserve(&self, count: usize) -> anyhow::Result<i64> {
        let (now, count) = (i64::try_from(clock::now().0)?, i64::try_from(count)?);
        let next =
            "UPDATE account_numbers SET last = CASE WHEN last < ?1 THEN ?1 ELSE last + 1 END + ?2 - 1 RETURNING last";
        let row = sqlx::query(next).bind(now).bind(count).fetch_one(&self.inner.master.pool).await?;
        let last: i64 = row.get(0);
        let ahead = last.saturating_sub(i64::try_from(clock::now().0)?);
        tokio::time::sleep(Duration::from_millis(u64::try_from(ahead).unwrap_or(0))).await;
        Ok(last + 1 - count)
    }
}
