//! Room in memory for the texts that readers are being sent: with one bound for all, of which each account has a share.
//!
//! A slow reader holds its text until it has taken it, so without a bound one account with many connections could fill the
//! memory. Who finds no room in time is told to come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use runtime::config::ByteSize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A text is there as it was read, and as it is sent.
const COPIES: u64 = 2;
/// An account may have so much of all the room.
const SHARE: u64 = 4;
/// How long a reader waits for room: less than its client does.
const WAIT: Duration = Duration::from_secs(20);
/// Accounts that are remembered before those without readers are forgotten.
const ACCOUNTS: usize = 10_000;

/// The room.
#[derive(Clone)]
pub(crate) struct Texts {
    bytes: u64,
    all: Arc<Semaphore>,
    shares: Arc<Mutex<HashMap<i64, Weak<Semaphore>>>>,
    searches: Arc<Semaphore>,
}

/// A text's room; giving it back is dropping it.
pub(crate) struct Held {
    _share: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    /// Keeps the account's share known while something of it is taken.
    _semaphore: Arc<Semaphore>,
}

impl Texts {
    pub(crate) fn new(size: ByteSize) -> Self {
        let searches = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            bytes: size.0,
            all: Arc::new(Semaphore::new(permits(size.0))),
            shares: Arc::default(),
            searches: Arc::new(Semaphore::new(searches)),
        }
    }

    /// Room for a text of this size. One that is larger than an account's share takes all of that.
    ///
    /// # Errors
    /// When there was none for a while.
    pub(crate) async fn take(&self, account: i64, size: u64) -> anyhow::Result<Held> {
        let most = self.bytes / SHARE;
        let wanted = u32::try_from(permits(size.saturating_mul(COPIES).min(most)))?;
        let semaphore = self.share(account, most);
        let both = async {
            let share = Arc::clone(&semaphore).acquire_many_owned(wanted).await?;
            let all = Arc::clone(&self.all).acquire_many_owned(wanted).await?;
            anyhow::Ok((share, all))
        };
        let waited = tokio::time::timeout(WAIT, both).await;
        let (share, all) =
            waited.map_err(|_| anyhow::anyhow!("no room for a text of {size} bytes within {WAIT:?}"))??;
        Ok(Held { _share: share, _all: all, _semaphore: semaphore })
    }

    /// A turn at searching through texts, of which the largest has this size: each search keeps a core busy, and more of
    /// them than there are cores would only keep everybody else waiting.
    ///
    /// # Errors
    /// When there was no room for a while.
    pub(crate) async fn take_turn(&self, account: i64, largest: u64) -> anyhow::Result<(Held, OwnedSemaphorePermit)> {
        // It is there as it was stored, as it was sent, decoded, and in lower case.
        let held = self.take(account, largest.saturating_mul(2)).await?;
        Ok((held, Arc::clone(&self.searches).acquire_owned().await?))
    }

    /// Room for what is wanted early, or more than one text: only while half of all and of the share stays free, so that
    /// whoever needs room for one text finds it.
    pub(crate) fn try_take(&self, account: i64, size: u64) -> Option<Held> {
        let most = self.bytes / SHARE;
        let wanted = permits(size.saturating_mul(COPIES));
        let semaphore = self.share(account, most);
        let has_half = |of: &Semaphore, bytes: u64| of.available_permits() >= wanted.saturating_add(permits(bytes) / 2);
        if !has_half(&semaphore, most) || !has_half(&self.all, self.bytes) {
            return None;
        }
        let wanted = u32::try_from(wanted).ok()?;
        let share = Arc::clone(&semaphore).try_acquire_many_owned(wanted).ok()?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(wanted).ok()?;
        Some(Held { _share: share, _all: all, _semaphore: semaphore })
    }

    fn share(&self, account: i64, most: u64) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= ACCOUNTS {
            shares.retain(|_, share| share.strong_count() > 0);
        }
        if let Some(share) = shares.get(&account).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Semaphore::new(permits(most)));
        shares.insert(account, Arc::downgrade(&share));
        share
    }
}

/// A permit is a KiB.
fn permits(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(1024)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_account_has_its_share_and_all_have_the_room() {
        let texts = Texts::new(ByteSize::mib(4));
        let whole_share = texts.take(1, 1 << 30).await.unwrap();
        assert!(texts.take(1, 1024).await.is_err(), "the share is taken");
        let other = texts.take(2, 256 << 10).await.unwrap();
        drop(whole_share);
        let _again = texts.take(1, 1024).await.unwrap();
        drop(other);
        let mut held = Vec::new();
        for account in 10..13 {
            held.push(texts.take(account, 1 << 30).await.unwrap());
        }
        assert!(texts.take(13, 1 << 30).await.is_err(), "all the room is taken");
        held.pop();
        assert!(texts.take(13, 512 << 10).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_early_leaves_half_of_the_room() {
        let texts = Texts::new(ByteSize::mib(8));
        let early: Vec<_> = (0..9).map(|_| texts.try_take(1, 256 << 10)).collect();
        assert_eq!(early.iter().flatten().count(), 2, "half of the share of 2 MiB");
        let others: Vec<_> = (2..20).map(|account| texts.try_take(account, 512 << 10)).collect();
        assert_eq!(others.iter().flatten().count(), 3, "half of all");
        assert!(texts.take(1, 512 << 10).await.is_ok() && texts.take(30, 1 << 30).await.is_ok());
    }
}
