//! Room in memory for what readers are sent, for what they bring in, and for what of theirs is put in order: each with
//! one bound for all, of which each account has a share.
//!
//! A slow reader holds its text until it has taken it, so without a bound one account with many connections could fill
//! the memory. Who finds no room in time is told to come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use runtime::config::ByteSize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A text is there as it was read, and as it is sent.
const COPIES: u64 = 2;
/// An account may have so much of all the room for large texts, and of that for what it brings in.
const SHARE: u64 = 4;
/// Texts up to this size have half as much room of their own, so that a few accounts whose clients take large ones
/// slowly keep nobody from reading ordinary mail: a load of a FETCH has so much.
const SMALL: u64 = 1 << 20;
/// And so much of that an account may have: some loads, or some hundreds of ordinary texts.
const SMALL_SHARE: u64 = 8;
/// And so much of that for putting in order, where the default has room for half a million messages of one account.
const ORDERED: u64 = 2;
/// Small texts, large ones, what is brought in, what is put in order: the part of the configured size that each has,
/// and the part of it that an account may have.
const POOLS: [(u64, u64); 4] = [(2, SMALL_SHARE), (1, SHARE), (1, SHARE), (1, ORDERED)];
/// How long a reader waits for room: less than its client does.
const WAIT: Duration = Duration::from_secs(20);
/// Accounts that are remembered before those without readers are forgotten.
const ACCOUNTS: usize = 10_000;

/// The room.
#[derive(Clone)]
pub(crate) struct Texts {
    small: Pool,
    large: Pool,
    receiving: Pool,
    ordering: Pool,
    searches: Arc<Semaphore>,
}

/// Room for one purpose.
#[derive(Clone)]
struct Pool {
    bytes: u64,
    /// An account may have so many bytes.
    most: u64,
    all: Arc<Semaphore>,
    shares: Arc<Mutex<HashMap<i64, Weak<Semaphore>>>>,
}

/// What of the room, and of the share, has to stay free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Half,
    /// Seven eighths.
    Most,
    Nothing,
}

impl Leaving {
    fn of(self, permits: usize) -> usize {
        match self {
            Self::Half => permits / 2,
            Self::Most => permits - permits / 8,
            Self::Nothing => 0,
        }
    }
}

/// Room that is taken; giving it back is dropping it.
pub(crate) struct Held {
    _share: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    /// Keeps the account's share known while something of it is taken.
    _semaphore: Arc<Semaphore>,
}

/// Room for what is put in order or received, which grows.
#[derive(Default)]
pub(crate) struct Gathered {
    held: Vec<Held>,
    bytes: u64,
}

/// What all of it may take, in bytes, where the configured size is this.
pub(crate) fn most(size: ByteSize) -> u64 {
    POOLS.iter().fold(0, |sum, (part, _)| sum.saturating_add(size.0 / part))
}

impl Texts {
    pub(crate) fn new(size: ByteSize) -> Self {
        let searches = std::thread::available_parallelism().map_or(1, usize::from);
        let [small, large, receiving, ordering] = POOLS.map(|(part, share)| Pool::new(size.0 / part, share));
        Self { small, large, receiving, ordering, searches: Arc::new(Semaphore::new(searches)) }
    }

    /// Room for a text of this size. One that is larger than an account's share takes all of that.
    ///
    /// # Errors
    /// When there was none for a while.
    pub(crate) async fn take(&self, account: i64, size: u64) -> anyhow::Result<Held> {
        self.reading(size).take(account, size.saturating_mul(COPIES)).await
    }

    /// A turn at searching through texts, of which the largest has this size: each search keeps a core busy, and more
    /// of them than there are cores would only keep everybody else waiting.
    ///
    /// # Errors
    /// When there was no room for a while.
    pub(crate) async fn take_turn(&self, account: i64, largest: u64) -> anyhow::Result<(Held, OwnedSemaphorePermit)> {
        // It is there as it was stored, as it was sent, decoded, and in lower case.
        let held = self.take(account, largest.saturating_mul(2)).await?;
        Ok((held, Arc::clone(&self.searches).acquire_owned().await?))
    }

    /// Room for what is wanted early, or more than one text: only while half of all and of the share stays free, so
    /// that whoever needs room for one text finds it.
    pub(crate) fn try_take(&self, account: i64, size: u64) -> Option<Held> {
        self.reading(size).take_at_once(account, size.saturating_mul(COPIES), Leaving::Half)
    }

    /// Room for what stays until the client asks for it, however long that takes: a small part of all and of the share,
    /// so that clients that fall silent keep nobody from loads and from what is wanted early.
    pub(crate) fn try_keep(&self, account: i64, size: u64) -> Option<Held> {
        self.reading(size).take_at_once(account, size.saturating_mul(COPIES), Leaving::Most)
    }

    fn reading(&self, size: u64) -> &Pool {
        if size <= SMALL { &self.small } else { &self.large }
    }

    /// Makes room for so many bytes of what is received. Says whether there is some: whoever has some already must not
    /// wait for more, or all of them might wait for each other. What is larger than an account's share takes all of
    /// that.
    ///
    /// # Errors
    /// When there was none for a while.
    pub(crate) async fn receive(&self, account: i64, gathered: &mut Gathered, bytes: u64) -> anyhow::Result<bool> {
        let room = |bytes: u64| bytes.saturating_mul(COPIES).min(self.receiving.most);
        let more = room(bytes).saturating_sub(room(gathered.bytes));
        if gathered.held.is_empty() {
            gathered.held.push(self.receiving.take(account, more).await?);
        } else if more > 0 {
            let Some(held) = self.receiving.take_at_once(account, more, Leaving::Nothing) else { return Ok(false) };
            gathered.held.push(held);
        }
        gathered.bytes = gathered.bytes.max(bytes);
        Ok(true)
    }

    /// Makes room for so many bytes of what is put in order. Says whether an account may have so much.
    ///
    /// # Errors
    /// When others have it: nobody waits who already has some.
    pub(crate) fn gather(&self, account: i64, gathered: &mut Gathered, bytes: u64) -> anyhow::Result<bool> {
        if bytes > self.ordering.most {
            return Ok(false);
        }
        let more = bytes.saturating_sub(gathered.bytes);
        let held = self.ordering.take_at_once(account, more, Leaving::Nothing);
        gathered.held.push(held.ok_or_else(|| anyhow::anyhow!("no room to put {bytes} bytes in order"))?);
        gathered.bytes += more;
        Ok(true)
    }
}

impl Pool {
    /// So many bytes, of which an account may have this part.
    fn new(bytes: u64, part: u64) -> Self {
        Self { bytes, most: bytes / part, all: Arc::new(Semaphore::new(permits(bytes))), shares: Arc::default() }
    }

    async fn take(&self, account: i64, bytes: u64) -> anyhow::Result<Held> {
        let wanted = u32::try_from(permits(bytes.min(self.most)))?;
        let semaphore = self.share(account);
        let both = async {
            let share = Arc::clone(&semaphore).acquire_many_owned(wanted).await?;
            let all = Arc::clone(&self.all).acquire_many_owned(wanted).await?;
            anyhow::Ok((share, all))
        };
        let waited = tokio::time::timeout(WAIT, both).await;
        let (share, all) = waited.map_err(|_| anyhow::anyhow!("no room for {bytes} bytes within {WAIT:?}"))??;
        Ok(Held { _share: share, _all: all, _semaphore: semaphore })
    }

    /// Room that is free now.
    fn take_at_once(&self, account: i64, bytes: u64, leaving: Leaving) -> Option<Held> {
        let wanted = permits(bytes);
        let semaphore = self.share(account);
        let leaves =
            |of: &Semaphore, bytes| of.available_permits() >= wanted.saturating_add(leaving.of(permits(bytes)));
        if !(leaves(&semaphore, self.most) && leaves(&self.all, self.bytes)) {
            return None;
        }
        let wanted = u32::try_from(wanted).ok()?;
        let share = Arc::clone(&semaphore).try_acquire_many_owned(wanted).ok()?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(wanted).ok()?;
        Some(Held { _share: share, _all: all, _semaphore: semaphore })
    }

    fn share(&self, account: i64) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= ACCOUNTS {
            shares.retain(|_, share| share.strong_count() > 0);
        }
        if let Some(share) = shares.get(&account).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Semaphore::new(permits(self.most)));
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
        let texts = Texts::new(ByteSize::mib(16));
        let whole_share = texts.take(1, 1 << 30).await.unwrap();
        assert!(texts.take(1, SMALL + 1).await.is_err(), "the share is taken");
        let other = texts.take(2, SMALL + 1).await.unwrap();
        drop(whole_share);
        let _again = texts.take(1, SMALL + 1).await.unwrap();
        drop(other);
        let mut held = Vec::new();
        for account in 10..13 {
            held.push(texts.take(account, 1 << 30).await.unwrap());
        }
        assert!(texts.take(13, 1 << 30).await.is_err(), "all the room is taken");
        held.pop();
        assert!(texts.take(13, 2 << 20).await.is_ok());
    }

    /// Four accounts that announced large messages, or took large texts as slowly as they could, stopped all reading.
    #[tokio::test(start_paused = true)]
    async fn large_texts_and_what_is_received_keep_no_ordinary_text_waiting() {
        let texts = Texts::new(ByteSize::mib(64));
        let mut held = Vec::new();
        let mut receiving = [const { Gathered { held: Vec::new(), bytes: 0 } }; 4];
        for (account, receiving) in (1..).zip(&mut receiving) {
            held.push(texts.take(account, 25 << 20).await.unwrap());
            for mib in 1..=8 {
                assert!(texts.receive(account, receiving, mib << 20).await.unwrap());
            }
        }
        assert!(texts.take(9, 2 << 20).await.is_err(), "large ones wait");
        assert!(texts.receive(1, &mut Gathered::default(), 4096).await.is_err(), "the share is taken");
        assert!(texts.take(1, SMALL).await.is_ok() && texts.take(9, 4096).await.is_ok());
    }

    /// A message that takes more than an account may have could not be put in at all.
    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_the_share_is_received_all_the_same() {
        let (texts, mut large) = (Texts::new(ByteSize::mib(16)), Gathered::default());
        for mib in 1..=25 {
            assert!(texts.receive(1, &mut large, mib << 20).await.unwrap(), "{mib}");
        }
        assert!(texts.receive(1, &mut Gathered::default(), 4096).await.is_err(), "it has all of the share");
        drop(large);
        assert!(texts.receive(1, &mut Gathered::default(), 4096).await.unwrap());
    }

    #[tokio::test]
    async fn what_is_early_leaves_half_of_the_room() {
        let texts = Texts::new(ByteSize::mib(32));
        let early: Vec<_> = (0..9).map(|_| texts.try_take(1, 256 << 10)).collect();
        assert_eq!(early.iter().flatten().count(), 2, "half of the share of 2 MiB");
        let others: Vec<_> = (2..20).map(|account| texts.try_take(account, 512 << 10)).collect();
        assert_eq!(others.iter().flatten().count(), 7, "half of all 16 MiB");
        assert!(texts.take(1, 512 << 10).await.is_ok() && texts.take(30, SMALL).await.is_ok());
    }

    /// A thousand clients that took two mails and fell silent held half of the room, which loads need.
    #[tokio::test]
    async fn what_is_kept_for_silent_clients_leaves_room_for_loads() {
        let texts = Texts::new(ByteSize::mib(32));
        let kept: Vec<_> = (0..9).map(|_| texts.try_keep(1, 64 << 10)).collect();
        assert_eq!(kept.iter().flatten().count(), 2, "an eighth of the share of 2 MiB");
        let others: Vec<_> = (2..40).map(|account| texts.try_keep(account, 64 << 10)).collect();
        assert_eq!(others.iter().flatten().count(), 14, "an eighth of all 16 MiB");
        assert!(texts.try_take(1, 256 << 10).is_some() && texts.try_take(50, 512 << 10).is_some());
    }

    #[tokio::test]
    async fn what_is_put_in_order_has_a_bound_and_keeps_no_text_waiting() {
        let texts = Texts::new(ByteSize::mib(8));
        let [mut one, mut other, mut third] = [const { Gathered { held: Vec::new(), bytes: 0 } }; 3];
        assert!(texts.gather(1, &mut one, 1 << 20).unwrap() && texts.gather(1, &mut one, 4 << 20).unwrap());
        assert!(!texts.gather(1, &mut one, (4 << 20) + 1).unwrap(), "no account may have so much");
        assert!(texts.gather(1, &mut other, 1 << 20).is_err(), "its other session has it");
        assert!(texts.gather(2, &mut other, 4 << 20).unwrap());
        assert!(texts.gather(3, &mut third, 1 << 20).is_err(), "the others have all");
        assert!(texts.take(3, 1 << 20).await.is_ok(), "texts have room of their own");
        drop(one);
        assert!(texts.gather(3, &mut third, 1 << 20).unwrap());
    }
}
