//! The sessions of each account: so many and no more, and none for longer than what let it in holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use directory::Account;
use tokio::sync::watch;

/// The account as its sessions have it; none when they may not stay.
type Current = watch::Sender<Option<Arc<Account>>>;

/// All sessions, by the addresses of their accounts.
#[derive(Clone, Default)]
pub(crate) struct Seats {
    taken: Arc<Mutex<HashMap<String, Taken>>>,
}

struct Taken {
    sessions: usize,
    current: Arc<Current>,
}

/// A place among the sessions of an account; giving it back is dropping it.
pub(crate) struct Seat {
    seats: Seats,
    address: String,
    current: Arc<Current>,
}

impl Seats {
    /// One more session, if there may be so many.
    pub(crate) fn take(&self, account: Arc<Account>, most: usize) -> Option<Seat> {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let address = account.address.to_string();
        let taken = all.entry(address.clone()).or_insert_with(|| Taken::by(&account));
        let before = taken.current.borrow().clone();
        if before.is_none_or(|before| !before.still_lets_in(Some(&account))) {
            // Those who came before came in by another password, or to another account of this address.
            taken.current.send_replace(None);
            *taken = Taken::by(&account);
        }
        if taken.sessions >= most {
            return None;
        }
        taken.sessions += 1;
        Some(Seat { seats: self.clone(), address, current: Arc::clone(&taken.current) })
    }

    /// The addresses of the accounts that have any.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Whether this account has any.
    pub(crate) fn any(&self, address: &str) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).contains_key(address)
    }

    /// The account is so now, or it is gone: its sessions go on with that, or end.
    pub(crate) fn settle(&self, address: &str, now: Option<&Arc<Account>>) {
        let all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = all.get(address) else { return };
        taken.current.send_if_modified(|current| {
            let stays = current.as_ref().is_some_and(|before| before.still_lets_in(now));
            if !stays && current.is_some() {
                tracing::info!(address, sessions = taken.sessions, "the account has changed: its sessions end");
            }
            let next = if stays { now.cloned() } else { None };
            let has_changed = *current != next;
            *current = next;
            has_changed
        });
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses().is_empty()
    }
}

impl Taken {
    fn by(account: &Arc<Account>) -> Self {
        Self { sessions: 0, current: Arc::new(watch::Sender::new(Some(Arc::clone(account)))) }
    }
}

impl Seat {
    /// The account as it is now; none if the session is to end.
    pub(crate) fn account(&self) -> Option<Arc<Account>> {
        self.current.borrow().clone()
    }

    /// Resolves when the session is to end.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut current = self.current.subscribe();
        async move {
            // It ends with an error when nobody is left to tell, which is the end, too.
            let _ = current.wait_for(Option::is_none).await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = all.get_mut(&self.address) else { return };
        if !Arc::ptr_eq(&taken.current, &self.current) {
            return;
        }
        taken.sessions -= 1;
        if taken.sessions == 0 {
            all.remove(&self.address);
        }
    }
}
