//! Addresses that were kept with needless quotes before both spellings were known for one: they are looked for by the one
//! spelling alone, and would not be found. So they are spelled anew when the master is opened.
//!
//! Where the one spelling is taken by another account, or an alias has it, nothing is changed, and the log says so: which of
//! the two is meant only an operator knows.

use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Row as _};

use crate::address::Address;

/// Begins with a quote; found by the index.
const QUOTED: &str = "address >= '\"' AND address < '#'";

/// Spells every address anew that begins with quotes which it does not need.
pub(crate) async fn mend(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    let account = "UPDATE accounts SET address = ?1 WHERE address = ?2
         AND NOT EXISTS (SELECT 1 FROM accounts WHERE address = ?1)
         AND NOT EXISTS (SELECT 1 FROM aliases WHERE address = ?1)";
    // Two aliases of one address stand for the targets of both.
    let alias = "UPDATE OR REPLACE aliases SET address = ?1 WHERE address = ?2
         AND NOT EXISTS (SELECT 1 FROM accounts WHERE address = ?1)";
    for (table, update) in [("accounts", account), ("aliases", alias)] {
        let find = format!("SELECT DISTINCT address FROM {table} WHERE {QUOTED}");
        for row in sqlx::query(AssertSqlSafe(find)).fetch_all(pool).await? {
            let old: String = row.get(0);
            let Ok(new) = old.parse::<Address>() else { continue };
            if new.as_str() == old {
                continue;
            }
            let done = sqlx::query(update).bind(new.as_str()).bind(&old).execute(pool).await?;
            if done.rows_affected() > 0 {
                tracing::info!(%old, %new, "an address is spelled without needless quotes");
            } else {
                tracing::warn!(%old, %new, "an address is not found any more: without its needless quotes it is another's");
            }
        }
    }
    Ok(())
}
