//! What a first run makes: all of it or nothing. One that was broken off leaves the directory empty, so that the next
//! is a first run again; half of it would be a site without a quarantine.

use sqlx::Row as _;
use wire::secret::Secret;

use crate::Directory;
use crate::address::Address;
use crate::admin::{NewAccount, domain_name, insert};
use crate::login::hash;

impl Directory {
    /// Makes the domain and the accounts of a first run, and notes that they have the password that everybody knows.
    ///
    /// # Errors
    /// A bad name, or one that is taken; then nothing is made.
    pub async fn make_first_run(&self, domain: &str, accounts: &[NewAccount<'_>]) -> anyhow::Result<()> {
        let domain = domain_name(domain)?;
        let mut checked: Vec<(Address, String)> = Vec::new();
        for new in accounts {
            checked.push((new.address.parse()?, hash(new.password.reveal())?));
        }
        let first = self.reserve(accounts.len()).await?;
        let mut transaction = self.inner.master.pool.begin().await?;
        let make = sqlx::query("INSERT INTO domains (name, alias_of, catch_all) VALUES (?, '', '')").bind(&domain);
        make.execute(&mut *transaction).await?;
        for ((new, (address, password)), number) in accounts.iter().zip(&checked).zip(first..) {
            let note = sqlx::query("INSERT INTO first_run (address) VALUES (?) ON CONFLICT DO NOTHING");
            note.bind(address.as_str()).execute(&mut *transaction).await?;
            let checked = NewAccount { address: address.as_str(), password: Secret::new(password), ..new.clone() };
            insert(&mut transaction, number, &checked).await?;
        }
        transaction.commit().await?;
        self.forget_all();
        Ok(())
    }

    /// The accounts that a first run has made.
    ///
    /// # Errors
    /// When the master does not answer.
    pub async fn first_run(&self) -> anyhow::Result<Vec<String>> {
        let rows =
            sqlx::query("SELECT address FROM first_run ORDER BY address").fetch_all(&self.inner.master.pool).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
