//! Many accounts at once, in few transactions: a site that moves in, or a load test.
//!
//! All of it or nothing: a line that is wrong is told with its number, and no account of the whole list is made.

use std::collections::HashSet;

use anyhow::{Context as _, bail};
use argon2::password_hash::{PasswordHash, Salt};
use argon2::{MIN_SALT_LEN, Params, Version};

use crate::Directory;
use crate::address::Address;
use crate::admin::{Change, NewAccount, insert};
use crate::login::hash;
use crate::master::{Entry, Kind};

/// How a hash begins, by which it is told from a password.
const READY: &str = "$argon2id$";

/// A ready hash takes at most so much memory, in KiB: 256 MiB, what libsodium calls moderate, and four times what RFC 9106
/// advises where memory is scarce. Each login takes that, `directory.logins_at_once` of them at the same time, and whoever
/// knows the address can try.
const MEMORY_MOST: u32 = 256 * 1024;

/// It passes over its memory so many times at most: libsodium's dearest have 4 and 8. With the most memory, that is more
/// than a second of a core already.
const PASSES_MOST: u32 = 10;

/// And has so many lanes at most: RFC 9106 advises 4, and a login is computed on one core whatever they are.
const LANES_MOST: u32 = 16;

/// An account of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    address: Address,
    /// Argon2id, in the PHC form.
    password: String,
}

/// Reads a list: a line for each account, its address and its password or ready hash, with one blank or more between.
/// Empty lines and those that begin with `#` say nothing. Passwords are hashed here, on all cores.
///
/// # Errors
/// The first line that is wrong.
pub fn read(list: &str) -> anyhow::Result<Vec<Imported>> {
    // Columns that are indented or aligned are columns still: no password begins with the blanks before it.
    let lines = list.lines().map(str::trim_start).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
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
        let (address, secret) = line.split_once([' ', '\t']).context("no password follows the address")?;
        let address: Address = address.parse()?;
        if address.local().contains('+') {
            bail!("{address} holds a plus sign, which separates the tag of an address");
        }
        let secret = secret.trim_start_matches([' ', '\t']);
        if secret.is_empty() {
            bail!("an account needs a password");
        }
        if secret.ends_with([' ', '\t']) {
            bail!("a blank that nobody sees ends the password: take it away, or set the password with: account passwd");
        }
        if let Some(kind) = foreign(secret) {
            bail!(
                "what begins with {kind} is a hash of another kind, and not a password: only Argon2id is taken, written {READY}...; give a new password instead"
            );
        }
        let password = if secret.starts_with(READY) { ready(secret)? } else { hash(secret)? };
        Ok(Imported { address, password })
    };
    read().with_context(|| format!("line {}", index + 1))
}

/// How a hash that is not ours begins: `$6$`, as crypt(3) and the PHC form write it, or `{SSHA}`, as LDAP and Dovecot do. Who
/// took it for a password would let in everybody who has seen the list, and keep out its owner.
fn foreign(secret: &str) -> Option<&str> {
    if secret.starts_with(READY) {
        return None;
    }
    // A locked account of /etc/shadow has these before its hash.
    let secret = secret.trim_start_matches(['!', '*']);
    let (closing, inner) = match secret.chars().next()? {
        '$' => ('$', &secret[1..]),
        '{' => ('}', &secret[1..]),
        _ => return None,
    };
    let name = &inner[..inner.find(closing)?];
    let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.,=".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_named)).then(|| &secret[..name.len() + 2])
}

/// An Argon2id hash that was made elsewhere, if a login can be checked against it, at a price that is bounded.
fn ready(secret: &str) -> anyhow::Result<String> {
    let unreadable = |error: argon2::password_hash::Error| anyhow::anyhow!("the hash cannot be read: {error}");
    let parsed = PasswordHash::new(secret).map_err(unreadable)?;
    // Without them it would fit no password.
    let (Some(salt), Some(_)) = (parsed.salt, parsed.hash) else { bail!("the hash is not whole") };
    if salt.decode_b64(&mut [0; Salt::MAX_LENGTH]).map_err(unreadable)?.len() < MIN_SALT_LEN {
        bail!("the salt of the hash is shorter than {MIN_SALT_LEN} bytes");
    }
    // The same as a login does with it: what fails here would never let anybody in.
    let costs = Params::try_from(&parsed).map_err(unreadable)?;
    parsed.version.map_or(Ok(Version::V0x13), Version::try_from).map_err(|error| unreadable(error.into()))?;
    for (name, what, cost, most) in [
        ('m', "KiB of memory", costs.m_cost(), MEMORY_MOST),
        ('t', "passes", costs.t_cost(), PASSES_MOST),
        ('p', "lanes", costs.p_cost(), LANES_MOST),
    ] {
        if cost > most {
            bail!(
                "each login would take {cost} {what} ({name}={cost}), and {most} at most are allowed: give a new password instead, or a hash that was made with less"
            );
        }
    }
    Ok(parsed.to_string())
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
            let (address, password) = (account.address.as_str(), account.password.as_str());
            let kind = Kind::User;
            let checked = NewAccount { address, password, store, kind, quota_bytes: 0, quota_messages: 0 };
            insert(&mut transaction, number, &checked).await?;
        }
        transaction.commit().await?;
        Ok(accounts.iter().map(|account| self.changed(Change::address(&account.address))).collect())
    }
}
