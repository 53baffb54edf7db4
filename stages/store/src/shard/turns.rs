//! Turns at what keeps a shard's writer for long: one such command at a time. Those of one account wait for each other
//! first, so that its crowd is one among all who wait.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Accounts wait for each other as those of one do where they share one of these.
const OWN: usize = 64;

pub(super) struct Turns {
    all: Arc<Semaphore>,
    own: [Arc<Semaphore>; OWN],
}

/// It is given back by dropping it.
pub(super) struct Turn {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self { all: one(), own: std::array::from_fn(|_| one()) }
    }
}

impl Turns {
    pub(super) async fn take(&self, whose: i64) -> Turn {
        let own = usize::try_from(whose.unsigned_abs()).unwrap_or(0) % OWN;
        let own = Arc::clone(&self.own[own]).acquire_owned().await.expect("nobody closes it");
        let all = Arc::clone(&self.all).acquire_owned().await.expect("nobody closes it");
        Turn { _all: all, _own: own }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_crowd_of_one_account_is_one_among_those_who_wait() {
        let turns = Turns::default();
        let first = turns.take(1).await;
        let (mut second, mut third, mut other) =
            (Box::pin(turns.take(1)), Box::pin(turns.take(1)), Box::pin(turns.take(2)));
        for waiting in [&mut second, &mut third] {
            assert!(waiting.now_or_never().is_none());
        }
        assert!((&mut other).now_or_never().is_none());
        drop(first);
        assert!((&mut second).now_or_never().is_none(), "the other account has waited for as long");
        let other = (&mut other).now_or_never().expect("its turn has come");
        drop(other);
        assert!((&mut third).now_or_never().is_none());
        drop((&mut second).now_or_never().expect("its turn has come"));
        assert!((&mut third).now_or_never().is_some());
    }
}
