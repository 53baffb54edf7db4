//! The SQL master. Every question has a deadline; a master that is locked or gone is an error, never an absence.
//!
//! A master without any domain is one, too: a process that was started while the file was away has made an empty one,
//! and this process comes upon it as soon as it lets go of the old. Whoever asks is told so by the same statement that
//! finds nobody: two may be answered by two connections, and these by two files.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, Sqlite, Transaction};
use wire::secret::Secret;

use crate::address::Address;
use crate::{Config, Unsure, spelling};

/// Connections of one process: questions are short.
const CONNECTIONS: u32 = 4;

/// A connection is not used for longer. It holds on to the file that it has opened: one that was moved away, or
/// replaced from a backup, would be asked until then. Opening one takes less than a millisecond.
const CONNECTION_LIFE: Duration = Duration::from_secs(10);

/// Whether an account can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It can.
    Active,
    /// It takes no mail and nobody can log in; what it has is kept.
    Suspended,
}

/// Whose account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A person's.
    User,
    /// The system's: quarantine, postmaster.
    System,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its number; never given twice, and not after the directory came back from a backup either.
    pub id: i64,
    /// Its address.
    pub address: Address,
    /// Argon2id, in the PHC form.
    pub(crate) password: Secret<String>,
    /// The store node on which it lives.
    pub store: String,
    /// Whether it can be used.
    pub status: Status,
    /// Whose it is.
    pub kind: Kind,
    /// Limit in bytes; 0 is none.
    pub quota_bytes: u64,
    /// Limit in messages; 0 is none.
    pub quota_messages: u64,
}

/// A domain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domain {
    pub(crate) alias_of: String,
    pub(crate) catch_all: String,
}

/// What the master says about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Absent,
    Domain(Domain),
    Account(std::sync::Arc<Account>),
    /// The targets of an alias.
    Alias(Vec<Address>),
}

pub(crate) struct Master {
    pub(crate) pool: SqlitePool,
    deadline: Duration,
}

/// Whether a file that is not there is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is.
    Make,
    /// It is an error.
    Refuse,
}

/// One row where there is any domain, and none where there is none: what is joined to it comes with that knowledge.
const IF_ANY_DOMAIN: &str = "(SELECT 1 FROM domains LIMIT 1) AS any_domain";

/// The columns of an account.
const ACCOUNT: &str = "id, accounts.address, password, store, status, kind, quota_bytes, quota_messages";

impl Master {
    pub(crate) async fn open(config: &Config, missing: Missing) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::from_str(&config.url)
            .with_context(|| format!("directory.url {:?}", config.url))?
            .create_if_missing(missing == Missing::Make)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(config.deadline);
        if missing == Missing::Refuse && !options.get_filename().exists() {
            bail!("there is no directory {}; `chainmail setup` makes one", config.url);
        }
        if options.get_filename().exists() {
            refuse_foreign(config).await?;
        }
        if let Some(folder) = options.get_filename().parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .max_lifetime(CONNECTION_LIFE)
            .acquire_timeout(config.deadline.max(Duration::from_secs(1)))
            .connect_with(options.clone())
            .await
            .with_context(|| format!("opening the directory {}", config.url))?;
        sqlx::migrate!("./migrations").run(&pool).await.context("bringing the directory's tables up to date")?;
        spelling::mend(&pool).await.context("spelling addresses without needless quotes")?;
        // From now on a file that is not there is a master that is away, not a new one without anybody in it.
        pool.set_connect_options(options.create_if_missing(false));
        Ok(Self { pool, deadline: config.deadline })
    }

    async fn within<T>(&self, asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Unsure> {
        match tokio::time::timeout(self.deadline, asked).await {
            Ok(answer) => answer.map_err(|error| Unsure(error.to_string())),
            Err(_) => Err(Unsure(format!("the master did not answer within {:?}", self.deadline))),
        }
    }

    /// From now on nobody else changes anything: what is looked at stays so until this is committed.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }

    pub(crate) async fn domain(&self, name: &str) -> Result<Entry, Unsure> {
        let query = sqlx::query("SELECT alias_of, catch_all FROM domains WHERE name = ?").bind(name);
        let row = self.within(query.fetch_optional(&self.pool)).await?;
        Ok(row.map_or(Entry::Absent, |row| Entry::Domain(Domain { alias_of: row.get(0), catch_all: row.get(1) })))
    }

    /// The same, and no answer where there is no domain at all.
    pub(crate) async fn domain_of_ours(&self, name: &str) -> Result<Entry, Unsure> {
        let sql = format!("SELECT name, alias_of, catch_all FROM {IF_ANY_DOMAIN} LEFT JOIN domains ON name = ?");
        let row = self.sure(sql, name).await?.remove(0);
        if row.get::<Option<String>, _>(0).is_none() {
            return Ok(Entry::Absent);
        }
        Ok(Entry::Domain(Domain { alias_of: row.get(1), catch_all: row.get(2) }))
    }

    /// The account or the alias of an address.
    pub(crate) async fn address(&self, address: &Address) -> Result<Entry, Unsure> {
        let sql = format!(
            "SELECT {ACCOUNT}, target FROM {IF_ANY_DOMAIN} LEFT JOIN accounts ON accounts.address = ?1
             LEFT JOIN aliases ON aliases.address = ?1 ORDER BY target"
        );
        let rows = self.sure(sql, address.as_str()).await?;
        if let Some(account) = account_of(&rows[0])? {
            return Ok(account);
        }
        let target = |row: &SqliteRow| row.get::<Option<String>, _>(8)?.parse().ok();
        let targets: Vec<Address> = rows.iter().filter_map(target).collect();
        Ok(if targets.is_empty() { Entry::Absent } else { Entry::Alias(targets) })
    }

    /// The system account with this local part.
    pub(crate) async fn system(&self, local: &str) -> Result<Entry, Unsure> {
        let sql = format!(
            "SELECT {ACCOUNT} FROM {IF_ANY_DOMAIN} LEFT JOIN accounts ON kind = 'system' AND address LIKE ? ORDER BY id"
        );
        let rows = self.sure(sql, &format!("{local}@%")).await?;
        Ok(account_of(&rows[0])?.unwrap_or(Entry::Absent))
    }

    /// The rows of a statement of this file that are joined to whether there is any domain; never none.
    async fn sure(&self, sql: String, parameter: &str) -> Result<Vec<SqliteRow>, Unsure> {
        let rows = self.within(sqlx::query(AssertSqlSafe(sql)).bind(parameter).fetch_all(&self.pool)).await?;
        if rows.is_empty() { Err(Unsure("it has no domain at all".to_owned())) } else { Ok(rows) }
    }

    /// The accounts that a condition written in this crate, with one parameter, selects.
    pub(crate) async fn accounts(&self, condition: &'static str, parameter: &str) -> Result<Vec<Account>, sqlx::Error> {
        let sql = format!("SELECT {ACCOUNT} FROM accounts {condition}");
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(parameter).fetch_all(&self.pool).await?;
        rows.iter().map(account).collect()
    }
}

/// Refuses a database of something else, and changes nothing in it: the modes that ours is opened with are kept in the
/// file.
async fn refuse_foreign(config: &Config) -> anyhow::Result<()> {
    let looking = SqliteConnectOptions::from_str(&config.url)?.read_only(true).busy_timeout(config.deadline);
    let mut connection = looking.connect().await.with_context(|| format!("opening the directory {}", config.url))?;
    // What is made of nothing gets its list of migrations first.
    let foreign = "SELECT name FROM sqlite_schema WHERE type = 'table'
                   AND NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations') LIMIT 1";
    let found = sqlx::query(foreign).fetch_optional(&mut connection).await?;
    connection.close().await?;
    let Some(row) = found else { return Ok(()) };
    let table: String = row.get(0);
    bail!("{} is a database of something else, with a table {table:?}; directory.url names another file", config.url)
}

/// The account of a row that may have none.
fn account_of(row: &SqliteRow) -> Result<Option<Entry>, Unsure> {
    if row.get::<Option<i64>, _>(0).is_none() {
        return Ok(None);
    }
    let account = account(row).map_err(|error| Unsure(error.to_string()))?;
    Ok(Some(Entry::Account(std::sync::Arc::new(account))))
}

fn account(row: &SqliteRow) -> Result<Account, sqlx::Error> {
    let address: String = row.get(1);
    let unreadable = |what: String| sqlx::Error::Decode(what.into());
    Ok(Account {
        id: row.get(0),
        address: address.parse().map_err(|error| unreadable(format!("{error}")))?,
        password: Secret::new(row.get(2)),
        store: row.get(3),
        status: match row.get::<&str, _>(4) {
            "active" => Status::Active,
            "suspended" => Status::Suspended,
            other => return Err(unreadable(format!("status {other:?} of {address}"))),
        },
        kind: match row.get::<&str, _>(5) {
            "user" => Kind::User,
            "system" => Kind::System,
            other => return Err(unreadable(format!("kind {other:?} of {address}"))),
        },
        quota_bytes: u64::try_from(row.get::<i64, _>(6)).unwrap_or(0),
        quota_messages: u64::try_from(row.get::<i64, _>(7)).unwrap_or(0),
    })
}
