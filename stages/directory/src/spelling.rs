//! Addresses that were kept with needless quotes before both spellings were known for one: they are looked for by the
//! one spelling alone, and would not be found. So they are spelled anew when the master is opened.
//!
//! Where the one spelling is taken by another account, or an alias has it, nothing is changed, and the log says so:
//! which of the two is meant only an operator knows. Commands that change an account or an alias find it by the
//! spelling that is kept.

use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Row as _};

use crate::address::Address;

const ACCOUNT: &str = "UPDATE accounts SET address = ?1 WHERE address = ?2
    AND NOT EXISTS (SELECT 1 FROM accounts WHERE address = ?1)
    AND NOT EXISTS (SELECT 1 FROM aliases WHERE address = ?1)";

/// Two aliases of one address stand for the targets of both.
const ALIAS: &str = "UPDATE OR REPLACE aliases SET address = ?1 WHERE address = ?2
    AND NOT EXISTS (SELECT 1 FROM accounts WHERE address = ?1)";

const TARGET: &str = "UPDATE OR REPLACE aliases SET target = ?1 WHERE target = ?2";

/// Spells every address anew that begins with quotes which it does not need.
pub(crate) async fn mend(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    for (table, column, update) in
        [("accounts", "address", ACCOUNT), ("aliases", "address", ALIAS), ("aliases", "target", TARGET)]
    {
        // Begins with a quote: found by the index, where there is one.
        let find = format!("SELECT DISTINCT {column} FROM {table} WHERE {column} >= '\"' AND {column} < '#'");
        let again = format!("SELECT 1 FROM {table} WHERE {column} = ?");
        for row in sqlx::query(AssertSqlSafe(find)).fetch_all(pool).await? {
            let old: String = row.get(0);
            let Ok(new) = old.parse::<Address>() else { continue };
            if new.as_str() == old {
                continue;
            }
            let done = sqlx::query(update).bind(new.as_str()).bind(&old).execute(pool).await?;
            if done.rows_affected() > 0 {
                tracing::info!(%old, %new, "an address is spelled without needless quotes");
                continue;
            }
            // Another process that starts at the same time has done it, or it is really in the way.
            if sqlx::query(AssertSqlSafe(again.clone())).bind(&old).fetch_optional(pool).await?.is_some() {
                tracing::warn!(
                    %old, %new,
                    "an address is not found any more: without its needless quotes it is another's; `account remove` \
                     or `alias remove` takes it away, with the quotes"
                );
            }
        }
    }
    Ok(())
}
