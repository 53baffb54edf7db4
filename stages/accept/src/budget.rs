//! A budget in bytes: one for all bodies that are in memory on their way into the journal, one for those that go round
//! again.

use std::sync::Arc;

use runtime::config::ByteSize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget is counted in pieces of this many bytes.
const PIECE: u64 = 4096;
/// What a message without a declared size begins with; most fit.
const FIRST: u64 = 64 * 1024;
/// What a message begins with at most: who only says that it has a large one holds no more than that.
const FIRST_MOST: u64 = 1024 * 1024;

/// What can be taken from.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    pieces: u32,
    free: Arc<Semaphore>,
}

/// What one message has taken. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    pub(crate) fn new(size: ByteSize) -> Self {
        let pieces = u32::try_from(size.0 / PIECE).unwrap_or(u32::MAX).max(1);
        Self { pieces, free: Arc::new(Semaphore::new(pieces as usize)) }
    }

    /// Room for the beginning of a message of the declared size; none if that is not there now.
    pub(crate) fn take(&self, declared: Option<u64>) -> Option<Share> {
        let first = declared.unwrap_or(FIRST).clamp(PIECE, FIRST_MOST);
        let permit = Arc::clone(&self.free).try_acquire_many_owned(pieces(first)).ok()?;
        Some(Share { permit })
    }

    /// Waits for room for a whole mail. One that is larger than the budget takes all of it.
    pub(crate) async fn wait(&self, bytes: u64) -> Option<Share> {
        let wanted = pieces(bytes.max(1)).min(self.pieces);
        let permit = Arc::clone(&self.free).acquire_many_owned(wanted).await.ok()?;
        Some(Share { permit })
    }

    /// More room for a message that needs `total` bytes: twice that, so that it is not asked for again at once, but no
    /// more than `most`, which is all that it may come to. When there is none, what it had is given back.
    pub(crate) fn grow(&self, mut share: Share, total: u64, most: u64) -> Option<Share> {
        let wanted = pieces(total.saturating_mul(2).min(most).max(total));
        let missing = wanted.saturating_sub(u32::try_from(share.permit.num_permits()).unwrap_or(u32::MAX));
        share.permit.merge(Arc::clone(&self.free).try_acquire_many_owned(missing).ok()?);
        Some(share)
    }
}

impl Share {
    /// Bytes that may be held.
    pub(crate) fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64 * PIECE
    }
}

fn pieces(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_dropped_is_free_again() {
        let budget = Budget::new(ByteSize::kib(200));
        let one = budget.take(Some(100 * 1024)).unwrap();
        assert_eq!(one.bytes(), 100 * 1024);
        assert!(budget.take(Some(101 * 1024)).is_none());
        let two = budget.take(None).unwrap();
        assert!(budget.grow(two, 90 * 1024, u64::MAX).is_none());
        let one = budget.grow(one, 90 * 1024, u64::MAX).unwrap();
        assert_eq!(one.bytes(), 180 * 1024);
        drop(one);
        assert!(budget.take(Some(200 * 1024)).is_some());
    }

    #[tokio::test]
    async fn whoever_waits_gets_room_even_for_more_than_there_is() {
        let budget = Budget::new(ByteSize::kib(200));
        let one = budget.wait(u64::MAX).await.unwrap();
        assert_eq!(one.bytes(), 200 * 1024);
        let two = budget.wait(0);
        tokio::pin!(two);
        assert!(futures::poll!(&mut two).is_pending());
        drop(one);
        assert_eq!(two.await.unwrap().bytes(), PIECE);
    }

    #[test]
    fn a_large_size_is_only_a_word_until_the_bytes_come() {
        let budget = Budget::new(ByteSize::mib(2));
        let one = budget.take(Some(25 << 20)).unwrap();
        assert_eq!(one.bytes(), FIRST_MOST);
        assert_eq!(budget.grow(one, FIRST_MOST, 1_500 << 10).unwrap().bytes(), 1_500 << 10);
    }
}
