//! How long it takes to the mailbox: a few recipients' mailboxes are looked at all the time while mail is sent.
//!
//! A watcher that loses its connection comes again: the store may be what is being killed. What arrives in between is
//! seen late, as its reader would have.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::imap::{Imap, Response};
use crate::sender::Run;

/// What a watcher fetches of a new message: it is not to cost the store more than it must.
const MARK_ONLY: &str = "BODY.PEEK[HEADER.FIELDS (X-Loadgen)]";

/// How often a watcher's progress is looked at while the last mails are waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Mails for people who are watched, and when each was due.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    watched: HashSet<String>,
    due: Mutex<HashMap<(String, String), Instant>>,
}

impl Awaited {
    /// Watches these people.
    pub(crate) fn new(watched: impl IntoIterator<Item = String>) -> Self {
        Self { watched: watched.into_iter().collect(), due: Mutex::default() }
    }

    /// Notes a mail before it is sent.
    pub(crate) fn begin(&self, id: &str, to: &[&str], due: Instant) {
        for to in to.iter().filter(|to| self.watched.contains(**to)) {
            let key = (id.to_owned(), (*to).to_owned());
            self.due.lock().unwrap_or_else(PoisonError::into_inner).insert(key, due);
        }
    }

    /// Awaits a mail no more that was not kept for these.
    pub(crate) fn forget<'a>(&self, id: &str, to: impl IntoIterator<Item = &'a str>) {
        for to in to {
            self.due.lock().unwrap_or_else(PoisonError::into_inner).remove(&(id.to_owned(), to.to_owned()));
        }
    }

    /// How many have not come yet.
    pub(crate) fn left(&self) -> usize {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until everything has come, or nothing has for so long.
    pub(crate) async fn settle(&self, patience: Duration) {
        let (mut left, mut since) = (self.left(), Instant::now());
        while left > 0 && since.elapsed() < patience {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.left();
            if now < left {
                (left, since) = (now, Instant::now());
            }
        }
    }

    /// When a mail that has come was due; only the first time.
    fn came(&self, id: &str, to: &str) -> Option<Instant> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).remove(&(id.to_owned(), to.to_owned()))
    }
}

/// Watches one person's mailbox until it is told to stop by being dropped.
pub(crate) async fn watch(run: Arc<Run>, server: SocketAddr, password: String, person: String, every: Duration) {
    let mut seen = 0;
    loop {
        // An error is the store being away: the proof at the end will tell if it stays away.
        let _ = look(&run, (server, &password), &person, every, &mut seen).await;
        tokio::time::sleep(every).await;
    }
}

async fn look(
    run: &Run,
    (server, password): (SocketAddr, &str),
    person: &str,
    every: Duration,
    seen: &mut u32,
) -> anyhow::Result<()> {
    let mut imap = Imap::login(server, person, password).await?;
    let mut exists = imap.examine("INBOX").await?.map_or(0, |opened| opened.exists);
    loop {
        if exists > *seen {
            let mut came = Vec::new();
            let each = |response: Response| came.extend(response.literals);
            let is_read = imap.command(&format!("FETCH {}:{exists} ({MARK_ONLY})", *seen + 1), each).await?;
            anyhow::ensure!(is_read, "what is new cannot be read");
            for mark in came.iter().filter_map(|literal| run.mails.span.find(literal)) {
                if let Some(due) = run.awaited.came(&mark.id, person) {
                    let latency = due.elapsed();
                    let slow = || run.slow(due, latency, &mark.id, format!("in the INBOX of {person}"));
                    run.measure.note(|measured| measured.seen(latency, slow));
                }
            }
            *seen = exists;
        }
        tokio::time::sleep(every).await;
        imap.command("NOOP", |response| exists = response.number_of("EXISTS").unwrap_or(exists)).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_mails_are_waited_for() {
        let awaited = Awaited::new(["a@x".to_owned(), "b@x".to_owned()]);
        let begun = Instant::now();
        for id in ["1", "2", "3"] {
            awaited.begin(id, &["a@x", "b@x", "nobody@watches"], begun);
        }
        awaited.forget("3", ["a@x", "b@x", "nobody@watches"]);
        assert_eq!(awaited.left(), 4);
        let come = async {
            for (id, to) in [("1", "a@x"), ("1", "b@x"), ("2", "a@x")] {
                tokio::time::sleep(Duration::from_secs(20)).await;
                assert_eq!((awaited.came(id, to), awaited.came(id, to)), (Some(begun), None));
            }
        };
        // Every one that comes is a reason to wait on; the last does not come.
        tokio::join!(come, awaited.settle(Duration::from_secs(30)));
        assert_eq!(awaited.left(), 1);
        assert_eq!(begun.elapsed().as_secs(), 90);
        assert!(awaited.came("2", "b@x").is_some());
        awaited.settle(Duration::from_secs(30)).await;
        assert_eq!(begun.elapsed().as_secs(), 90);
    }
}
