//! The numbers of accounts: milliseconds since 1970, each once.
//!
//! A directory that comes from a backup does not know which numbers were given after it, and whoever got one of them
//! again would read what its first owner has in the store. The clock has gone on since, so it gives none of them again,
//! as long as no account ever has a number that lies before the clock.

use std::time::Duration;

use anyhow::anyhow;
use runtime::clock;
use sqlx::Row as _;

use crate::Directory;

/// The clock is waited for so long at most, beside the numbers that are taken themselves: a single account waits behind
/// the import of 60,000. What is further ahead is a larger import, or a clock that was set back, and an operator wants
/// to know.
const WAIT_MOST: Duration = Duration::from_secs(60);

impl Directory {
    /// Looks whether numbers could be taken now, before work is done for nothing.
    pub(crate) async fn check_numbers(&self) -> anyhow::Result<()> {
        let row = sqlx::query("SELECT last FROM account_numbers").fetch_one(&self.inner.master.pool).await?;
        if row.get::<i64, _>(0) > latest()? { Err(too_far_ahead()) } else { Ok(()) }
    }

    /// Takes so many numbers, and gives the first. The clock is waited for, while nothing is locked; numbers that are
    /// not used then do no harm.
    pub(crate) async fn reserve(&self, count: usize) -> anyhow::Result<i64> {
        let (now, count) = (i64::try_from(clock::now().0)?, i64::try_from(count)?);
        let next = "UPDATE account_numbers SET last = CASE WHEN last < ?1 THEN ?1 ELSE last + 1 END + ?2 - 1
                    WHERE last <= ?3 RETURNING last";
        let next = sqlx::query(next).bind(now).bind(count).bind(latest()?);
        let row = next.fetch_optional(&self.inner.master.pool).await?.ok_or_else(too_far_ahead)?;
        let last: i64 = row.get(0);
        let ahead = last.saturating_sub(i64::try_from(clock::now().0)?);
        tokio::time::sleep(Duration::from_millis(u64::try_from(ahead).unwrap_or(0))).await;
        Ok(last + 1 - count)
    }
}

/// The last number behind which another may be taken.
fn latest() -> anyhow::Result<i64> {
    Ok(i64::try_from(clock::now().0)?.saturating_add(i64::try_from(WAIT_MOST.as_millis())?))
}

fn too_far_ahead() -> anyhow::Error {
    anyhow!(
        "the last number of an account lies more than {WAIT_MOST:?} ahead of the clock: many accounts are being \
         imported, then try again later, or the clock was set back, then set it right"
    )
}
