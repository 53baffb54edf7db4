//! Mails on their way into the own journal: neither kept nor not.
//!
//! A sender may have given a connection up without our knowing, and bring the same mail on another one while the first
//! is still being kept. One connection has it at a time; the other waits, and finds it kept.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::journal::Doubt;

/// All of them, by what they are recognised.
#[derive(Debug, Default)]
pub(crate) struct Takings(Mutex<HashMap<Doubt, watch::Sender<()>>>);

/// A mail that a connection has, by all its keys; dropping this lets it go.
#[derive(Debug)]
pub(crate) struct Taking<'a>(&'a Takings, Vec<Doubt>);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        // Whoever waits sees that the sender is gone.
        let mut all = self.0.all();
        self.1.iter().for_each(|mark| drop(all.remove(mark)));
    }
}

impl Takings {
    fn all(&self) -> MutexGuard<'_, HashMap<Doubt, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether such a mail is being kept at this moment.
    pub(crate) fn has(&self, mark: &Doubt) -> bool {
        self.all().contains_key(mark)
    }

    /// Takes a mail for a connection, once no other has it, or the same mail to one of its recipients. None when
    /// another has it until the deadline.
    pub(crate) async fn take(&self, marks: Vec<Doubt>, deadline: Instant) -> Option<Taking<'_>> {
        loop {
            // All or none: who had some already and waited for others would be waited for itself.
            let mut other = {
                let mut all = self.all();
                let Some(taken) = marks.iter().find_map(|mark| all.get(mark)) else {
                    all.extend(marks.iter().map(|mark| (*mark, watch::Sender::new(()))));
                    drop(all);
                    return Some(Taking(self, marks));
                };
                taken.subscribe()
            };
            // It never changes, and ends when the other is done.
            tokio::time::timeout_at(deadline, other.changed()).await.ok()?.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_mail_is_taken_by_one_connection_at_a_time() {
        let takings = Takings::default();
        let soon = || Instant::now() + Duration::from_secs(5);
        let first = takings.take(vec![[1; 32]], soon()).await.unwrap();
        assert!(takings.has(&[1; 32]) && !takings.has(&[2; 32]));
        assert!(takings.take(vec![[2; 32]], soon()).await.is_some(), "another mail does not wait");
        assert!(takings.take(vec![[1; 32]], soon()).await.is_none(), "the same one waits, and not for ever");
        assert!(takings.take(vec![[3; 32], [1; 32]], soon()).await.is_none(), "nor one of which that is a part");
        assert!(!takings.has(&[3; 32]), "it has taken nothing");
        let second = takings.take(vec![[1; 32]], soon());
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_some());
        assert!(!takings.has(&[1; 32]));
    }
}
