//! Changing the directory. Every change says which entries of other processes' caches it makes wrong.

use anyhow::{Context as _, bail};
use sqlx::{Row as _, SqliteConnection};
use wire::secret::Secret;

use crate::address::{Address, is_domain};
use crate::login::hash;
use crate::master::{Account, Domain, Entry, Kind, Status};
use crate::{Directory, Unsure};

/// An entry that has changed, as it is announced to every process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change(String);

impl Change {
    pub(crate) fn address(address: &Address) -> Self {
        Self(format!("address:{address}"))
    }

    fn domain(name: &str) -> Self {
        Self(format!("domain:{name}"))
    }

    pub(crate) fn key(&self) -> &str {
        &self.0
    }

    /// The address whose account or alias it is, if it is one.
    pub(crate) fn address_of(&self) -> Option<&str> {
        self.0.strip_prefix("address:")
    }

    /// The change as it travels.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.clone().into_bytes()
    }

    /// The change that travelled as these bytes; none if they are not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok().map(Self)
    }
}

/// An account that is to be made.
#[derive(Debug, Clone)]
pub struct NewAccount<'a> {
    /// Its address; the domain must exist.
    pub address: &'a str,
    /// Its password.
    pub password: Secret<&'a str>,
    /// The store node on which it shall live.
    pub store: &'a str,
    /// Whose it is.
    pub kind: Kind,
    /// Limit in bytes; 0 is none.
    pub quota_bytes: u64,
    /// Limit in messages; 0 is none.
    pub quota_messages: u64,
}

impl Directory {
    /// Makes a domain, or a domain that shares the addresses of another.
    ///
    /// # Errors
    /// A bad name, a domain that exists, another that does not.
    pub async fn add_domain(
        &self,
        name: &str,
        alias_of: Option<&str>,
        catch_all: Option<&str>,
    ) -> anyhow::Result<Change> {
        let name = domain_name(name)?;
        let alias_of = alias_of.map(domain_name).transpose()?.unwrap_or_default();
        if !alias_of.is_empty() && !self.domain_exists(&alias_of).await? {
            bail!("the domain {alias_of} does not exist");
        }
        let catch_all = catch_all.map(str::parse::<Address>).transpose()?;
        if self.domain_exists(&name).await? {
            bail!("the domain {name} exists already");
        }
        sqlx::query("INSERT INTO domains (name, alias_of, catch_all) VALUES (?, ?, ?)")
            .bind(&name)
            .bind(&alias_of)
            .bind(catch_all.map(|address| address.to_string()).unwrap_or_default())
            .execute(&self.inner.master.pool)
            .await?;
        Ok(self.changed(Change::domain(&name)))
    }

    /// Removes a domain that has no accounts.
    ///
    /// # Errors
    /// When it does not exist, or has accounts.
    pub async fn remove_domain(&self, name: &str) -> anyhow::Result<Change> {
        let name = domain_name(name)?;
        let mut writing = self.inner.master.write().await?;
        let accounts = self.inner.master.accounts("WHERE address LIKE '%@' || ?", &name).await?;
        if let Some(account) = accounts.first() {
            bail!("the domain {name} has {} accounts, {} for one; remove them first", accounts.len(), account.address);
        }
        let done = sqlx::query("DELETE FROM domains WHERE name = ?").bind(&name).execute(&mut *writing).await?;
        if done.rows_affected() == 0 {
            bail!("the domain {name} does not exist");
        }
        writing.commit().await?;
        Ok(self.changed(Change::domain(&name)))
    }

    /// Every domain: its name, the domain whose addresses it shares, its catch-all.
    ///
    /// # Errors
    /// When the master does not answer.
    pub async fn domains(&self) -> anyhow::Result<Vec<(String, String, String)>> {
        let rows = sqlx::query("SELECT name, alias_of, catch_all FROM domains ORDER BY name")
            .fetch_all(&self.inner.master.pool)
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
    }

    /// Whether mail for the address is looked up under it: its domain is ours, and not another name of one.
    pub(crate) async fn check_domain(&self, address: &Address) -> anyhow::Result<()> {
        let domain = address.domain();
        match self.inner.master.domain(domain).await? {
            Entry::Domain(Domain { alias_of, .. }) if !alias_of.is_empty() => {
                let main = address.in_domain(&alias_of);
                bail!("{domain} shares the addresses of {alias_of}: make {main}, and {address} reaches it too")
            }
            Entry::Domain(_) => Ok(()),
            _ => bail!("the domain {domain} does not exist; make it with: chainmail domain add {domain}"),
        }
    }

    async fn domain_exists(&self, name: &str) -> Result<bool, Unsure> {
        Ok(self.inner.master.domain(name).await? != Entry::Absent)
    }

    /// Makes an account.
    ///
    /// # Errors
    /// A bad address, a domain that is not ours, an address that is taken.
    pub async fn add_account(&self, new: NewAccount<'_>) -> anyhow::Result<Change> {
        let mut made = self.add_accounts(&[new]).await?;
        made.pop().context("no account was made")
    }

    /// Makes some accounts, all or none.
    ///
    /// # Errors
    /// The same.
    pub async fn add_accounts(&self, all: &[NewAccount<'_>]) -> anyhow::Result<Vec<Change>> {
        let mut checked = Vec::new();
        for new in all {
            let address: Address = new.address.parse()?;
            if new.kind == Kind::User && address.local().contains('+') {
                bail!("{address} holds a plus sign, which separates the tag of an address");
            }
            self.check_domain(&address).await?;
            if self.inner.master.address(&address).await? != Entry::Absent {
                bail!("{address} exists already");
            }
            if new.password.reveal().is_empty() {
                bail!("an account needs a password");
            }
            checked.push((new, address, hash(new.password.reveal())?));
        }
        let first = self.reserve(checked.len()).await?;
        let mut writing = self.inner.master.write().await?;
        for ((new, address, password), number) in checked.iter().zip(first..) {
            let checked =
                NewAccount { address: address.as_str(), password: Secret::new(password), ..NewAccount::clone(new) };
            insert(&mut writing, number, &checked).await?;
        }
        writing.commit().await?;
        Ok(checked.iter().map(|(_, address, _)| self.changed(Change::address(address))).collect())
    }

    /// Every account whose address holds this text, in the order of their addresses.
    ///
    /// # Errors
    /// When the master does not answer.
    pub async fn accounts(&self, part: &str) -> anyhow::Result<Vec<Account>> {
        let condition = "WHERE instr(address, lower(?)) > 0 ORDER BY address";
        Ok(self.inner.master.accounts(condition, part).await?)
    }

    /// How many accounts live on each store node.
    ///
    /// # Errors
    /// When the master does not answer.
    pub async fn spread(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let rows = sqlx::query("SELECT store, count(*) FROM accounts GROUP BY store")
            .fetch_all(&self.inner.master.pool)
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), u64::try_from(row.get::<i64, _>(1)).unwrap_or(0))).collect())
    }

    /// Gives an account another password.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn set_password(&self, address: &str, password: &str) -> anyhow::Result<Change> {
        if password.is_empty() {
            bail!("an account needs a password");
        }
        self.update(address, "UPDATE accounts SET password = ? WHERE address = ?", &hash(password)?).await
    }

    /// Suspends an account, or makes it active again.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn set_status(&self, address: &str, status: Status) -> anyhow::Result<Change> {
        let status = if status == Status::Active { "active" } else { "suspended" };
        self.update(address, "UPDATE accounts SET status = ? WHERE address = ?", status).await
    }

    /// Removes an account. Its mail stays in its store; a later account of this address does not see it.
    ///
    /// # Errors
    /// When there is no such account, or it is one of the system's.
    pub async fn remove_account(&self, address: &str) -> anyhow::Result<Change> {
        let removed = "DELETE FROM accounts WHERE kind = ? AND address = ?";
        self.update(address, removed, "user").await.context("only an account of a person can be removed")
    }

    async fn update(&self, address: &str, sql: &'static str, value: &str) -> anyhow::Result<Change> {
        let kept = self.kept("SELECT 1 FROM accounts WHERE address = ?", address).await?;
        let address: Address = address.parse()?;
        let done = sqlx::query(sql).bind(value).bind(kept).execute(&self.inner.master.pool).await?;
        if done.rows_affected() == 0 {
            bail!("there is no account {address}");
        }
        Ok(self.changed(Change::address(&address)))
    }

    /// How an address is kept that was given so: as it is given, if it could not be spelled without its needless quotes
    /// (see [`crate::spelling`]), else in its one spelling.
    async fn kept(&self, find: &'static str, given: &str) -> anyhow::Result<String> {
        let address: Address = given.parse()?;
        let is_kept = sqlx::query(find).bind(given).fetch_optional(&self.inner.master.pool).await?.is_some();
        Ok(if is_kept { given.to_owned() } else { address.to_string() })
    }

    /// Makes an alias stand for one more target.
    ///
    /// # Errors
    /// Bad addresses, a domain that is not ours, an account in the alias's place.
    pub async fn add_alias(&self, address: &str, target: &str) -> anyhow::Result<Change> {
        let (address, target): (Address, Address) = (address.parse()?, target.parse()?);
        let mut writing = self.inner.master.write().await?;
        self.check_domain(&address).await?;
        if !self.domain_exists(target.domain()).await? {
            bail!("the domain {} does not exist", target.domain());
        }
        if matches!(self.inner.master.address(&address).await?, Entry::Account(_)) {
            bail!("{address} is an account");
        }
        sqlx::query("INSERT INTO aliases (address, target) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(address.as_str())
            .bind(target.as_str())
            .execute(&mut *writing)
            .await?;
        writing.commit().await?;
        Ok(self.changed(Change::address(&address)))
    }

    /// Every alias and target.
    ///
    /// # Errors
    /// When the master does not answer.
    pub async fn aliases(&self) -> anyhow::Result<Vec<(String, String)>> {
        let rows = sqlx::query("SELECT address, target FROM aliases ORDER BY address, target")
            .fetch_all(&self.inner.master.pool)
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Removes one target of an alias, or all.
    ///
    /// # Errors
    /// When there is nothing to remove.
    pub async fn remove_alias(&self, address: &str, target: Option<&str>) -> anyhow::Result<Change> {
        let kept = self.kept("SELECT 1 FROM aliases WHERE address = ?", address).await?;
        let address: Address = address.parse()?;
        let target = target.map(str::parse::<Address>).transpose()?;
        let done = sqlx::query("DELETE FROM aliases WHERE address = ? AND (? = '' OR target = ?)")
            .bind(kept)
            .bind(target.as_ref().map_or("", Address::as_str))
            .bind(target.as_ref().map_or("", Address::as_str))
            .execute(&self.inner.master.pool)
            .await?;
        if done.rows_affected() == 0 {
            bail!("there is no such alias {address}");
        }
        Ok(self.changed(Change::address(&address)))
    }

    /// Whether the directory is still empty, as on a first run.
    ///
    /// # Errors
    /// When the master does not answer.
    pub async fn is_empty(&self) -> anyhow::Result<bool> {
        Ok(self.domains().await?.is_empty())
    }

    pub(crate) fn changed(&self, change: Change) -> Change {
        self.forget(&change);
        change
    }
}

/// Writes an account whose address is in the one form, and whose password is hashed. What was looked at before may have
/// changed since: who makes many accounts waits for their numbers.
pub(crate) async fn insert(to: &mut SqliteConnection, number: i64, checked: &NewAccount<'_>) -> anyhow::Result<()> {
    let domain = checked.address.rsplit_once('@').map_or("", |(_, domain)| domain);
    let now = "SELECT (SELECT count(*) FROM domains WHERE name = ?2 AND alias_of = ''),
               EXISTS (SELECT 1 FROM accounts WHERE address = ?1) OR EXISTS (SELECT 1 FROM aliases WHERE address = ?1)";
    let now = sqlx::query(now).bind(checked.address).bind(domain).fetch_one(&mut *to).await?;
    if now.get::<i64, _>(0) == 0 {
        bail!("the domain {domain} is not there any more");
    }
    if now.get(1) {
        bail!("{} exists already", checked.address);
    }
    sqlx::query(
        "INSERT INTO accounts (id, address, password, store, status, kind, quota_bytes, quota_messages)
         VALUES (?, ?, ?, ?, 'active', ?, ?, ?)",
    )
    .bind(number)
    .bind(checked.address)
    .bind(*checked.password.reveal())
    .bind(checked.store)
    .bind(if checked.kind == Kind::System { "system" } else { "user" })
    .bind(i64::try_from(checked.quota_bytes)?)
    .bind(i64::try_from(checked.quota_messages)?)
    .execute(to)
    .await
    .with_context(|| format!("making {}", checked.address))?;
    Ok(())
}

pub(crate) fn domain_name(name: &str) -> anyhow::Result<String> {
    if !is_domain(name) {
        bail!("{name:?} is not the name of a domain");
    }
    Ok(name.to_ascii_lowercase())
}
