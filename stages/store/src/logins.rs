//! Logging in at a store node: whoever fails often waits before the next try, so that passwords cannot be guessed, and
//! guessing does not keep others out.
//!
//! Failures are counted by network (see [`runtime::listener::network`]). The first few cost nothing: people mistype.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use directory::{Account, Changed, Directory, Unsure};
use runtime::tasks::Tasks;
use runtime::{listener, telemetry};
use tokio::time::Instant;

use crate::config::Logins as Bounds;
use crate::seats::{Seat, Seats};

/// Failures before the first delay.
const FREE: u32 = 3;
/// The first delay; each failure doubles it.
const FIRST: Duration = Duration::from_secs(1);
/// A network that did not fail for so long starts anew.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// Networks that are remembered: some 5 MB.
const NETWORKS: usize = 100_000;
/// An account that the directory cannot tell of is asked about again after that.
const AGAIN: Duration = Duration::from_secs(5);
/// Characters of a user's name that go to the log.
const LOGGED: usize = 100;

/// What became of a login.
pub(crate) enum Login {
    /// It is this account, it lives here, and it has a place for this session.
    In(Arc<Account>, Seat),
    /// It has as many sessions as it may have.
    Crowded,
    /// Wrong user or password.
    Refused,
    /// The account lives on the store node of this name.
    Elsewhere(String),
    /// Too many of that network wait already.
    Busy,
}

/// What is asked: by whom, over which protocol, as whom.
pub(crate) struct Attempt<'a> {
    pub(crate) protocol: &'static str,
    pub(crate) client: IpAddr,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
}

/// Everybody's logins.
#[derive(Clone)]
pub(crate) struct Logins {
    directory: Directory,
    node: String,
    bounds: Bounds,
    networks: Arc<Mutex<HashMap<IpAddr, Network>>>,
    seats: Seats,
}

#[derive(Debug)]
struct Network {
    failures: u32,
    last: Instant,
    waiting: usize,
}

/// A login that waits; when it is dropped it does not any more.
struct Waiting<'a> {
    logins: &'a Logins,
    network: IpAddr,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.logins.with(self.network, |network| network.waiting = network.waiting.saturating_sub(1));
    }
}

impl Logins {
    pub(crate) fn new(directory: Directory, node: String, bounds: Bounds) -> Self {
        Self { directory, node, bounds, networks: Arc::default(), seats: Seats::default() }
    }

    /// Who this is, after a delay that grows with the failures of the client's network.
    ///
    /// # Errors
    /// [`Unsure`] when the directory cannot say.
    pub(crate) async fn login(&self, attempt: Attempt<'_>) -> Result<Login, Unsure> {
        let login = self.try_login(&attempt).await?;
        let (user, client, protocol) = (attempt.user, attempt.client.to_canonical(), attempt.protocol);
        let result = match &login {
            Login::In(..) => "accepted",
            Login::Crowded => {
                tracing::info!(%client, user, protocol, "the account has too many sessions");
                "crowded"
            }
            Login::Refused => {
                let user: String = user.chars().take(LOGGED).collect();
                tracing::info!(%client, ?user, protocol, "a login was refused");
                "refused"
            }
            Login::Elsewhere(node) => {
                tracing::warn!(%client, user, node, "an account of another store node logged in here");
                "elsewhere"
            }
            Login::Busy => "busy",
        };
        telemetry::login(protocol, result);
        Ok(login)
    }

    async fn try_login(&self, attempt: &Attempt<'_>) -> Result<Login, Unsure> {
        let network = listener::network(attempt.client);
        let Some((waiting, delay)) = self.queue(network) else { return Ok(Login::Busy) };
        let known = match self.directory.recognise(attempt.user, attempt.password).await? {
            Some(account) => Some(account),
            None => {
                tokio::time::sleep(delay).await;
                self.directory.authenticate(attempt.user, attempt.password).await?
            }
        };
        drop(waiting);
        Ok(match known {
            Some(account) if account.store == self.node => self.seat(account).await?,
            Some(account) => Login::Elsewhere(account.store.clone()),
            None => {
                self.failed(network);
                Login::Refused
            }
        })
    }

    /// A place for a session; crowded, if there is none. A change that came after the password was found right is
    /// looked for first: an account as it was would end the sessions of those who came in since. One that comes before
    /// the place is taken is looked for behind that; later ones find the place.
    async fn seat(&self, account: Arc<Account>) -> Result<Login, Unsure> {
        let now = self.directory.account(account.address.as_str()).await?;
        let Some(account) = now.filter(|now| account.still_lets_in(Some(now))) else { return Ok(Login::Refused) };
        let Some(seat) = self.seats.take(Arc::clone(&account), self.bounds.per_account) else {
            return Ok(Login::Crowded);
        };
        let now = self.directory.account(account.address.as_str()).await?;
        if !account.still_lets_in(now.as_ref()) {
            self.seats.settle(account.address.as_str(), now.as_ref());
            return Ok(Login::Refused);
        }
        Ok(Login::In(account, seat))
    }

    /// Hears what is changed in the directory, and ends the sessions of those who may not stay, until the shutdown.
    ///
    /// # Errors
    /// Never.
    pub(crate) async fn watch(self, tasks: Tasks) -> anyhow::Result<()> {
        let mut changes = self.directory.changes();
        let mut unsure = Vec::new();
        loop {
            let again = !unsure.is_empty();
            let look = tokio::select! {
                () = tasks.stopping() => return Ok(()),
                changed = changes.next() => match changed {
                    Changed::Account(address) if self.seats.any(&address) => vec![address],
                    Changed::Account(_) => continue,
                    Changed::Any => self.seats.addresses(),
                },
                () = tokio::time::sleep(AGAIN), if again => std::mem::take(&mut unsure),
            };
            for address in look {
                let now = tokio::select! {
                    () = tasks.stopping() => return Ok(()),
                    now = self.directory.account(&address) => now,
                };
                match now {
                    Ok(now) => self.seats.settle(&address, now.as_ref()),
                    Err(_) => unsure.push(address),
                }
            }
        }
    }

    fn with<T>(&self, network: IpAddr, work: impl FnOnce(&mut Network) -> T) -> Option<T> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&network).map(work)
    }

    /// A place among those who wait, and how long; none if all places of the network are taken. Networks without
    /// failures wait for nothing and are not remembered.
    fn queue(&self, network: IpAddr) -> Option<(Option<Waiting<'_>>, Duration)> {
        let queued = self.with(network, |found| {
            if found.last.elapsed() > FORGET {
                found.failures = 0;
            }
            let delay = delay(found.failures, self.bounds.delay);
            (found.waiting < self.bounds.delayed || delay.is_zero()).then(|| {
                found.waiting += 1;
                delay
            })
        });
        match queued {
            Some(delay) => delay.map(|delay| (Some(Waiting { logins: self, network }), delay)),
            None => Some((None, Duration::ZERO)),
        }
    }

    fn failed(&self, network: IpAddr) {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        if networks.len() >= NETWORKS && !networks.contains_key(&network) {
            networks.retain(|_, network| network.waiting > 0 || network.last.elapsed() < FORGET);
            if networks.len() >= NETWORKS {
                // So many guess at once that each has had few tries: those are forgotten first.
                networks.retain(|_, network| network.failures > FREE);
            }
        }
        let found = networks.entry(network).or_insert(Network { failures: 0, last: Instant::now(), waiting: 0 });
        found.failures = found.failures.saturating_add(1);
        found.last = Instant::now();
    }
}

fn delay(failures: u32, longest: Duration) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(more) => FIRST.saturating_mul(1 << more.min(16)).min(longest),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;
    use std::rc::Rc;

    use runtime::config::{Section, Sheet};

    use super::*;

    #[test]
    fn delays_grow_to_the_longest() {
        let seconds: Vec<u64> =
            [0, 2, 3, 4, 7, 8, 100].map(|failures| delay(failures, Duration::from_secs(30)).as_secs()).to_vec();
        assert_eq!(seconds, [0, 0, 1, 2, 16, 30, 30]);
    }

    async fn logins(waiting: usize) -> (tempfile::TempDir, Logins) {
        let folder = tempfile::tempdir().unwrap();
        let section = Section::root(serde_json::json!({}), Rc::new(RefCell::new(Sheet::default())));
        let config = directory::Config::read(section, folder.path());
        let directory = Directory::open(config).await.unwrap();
        directory.add_domain("example.org", None, None).await.unwrap();
        let account = directory::NewAccount {
            address: "alice@example.org",
            password: wire::secret::Secret::new("secret"),
            store: "node1",
            kind: directory::Kind::User,
            quota_bytes: 0,
            quota_messages: 0,
        };
        directory.add_account(account).await.unwrap();
        let bounds = Bounds {
            within: Duration::from_secs(60),
            delay: Duration::from_secs(30),
            delayed: waiting,
            per_account: 2,
        };
        (folder, Logins::new(directory, "node1".into(), bounds))
    }

    async fn attempt(logins: &Logins, client: &str, password: &str) -> Login {
        let client = client.parse().unwrap();
        logins.login(Attempt { protocol: "imap", client, user: "alice@example.org", password }).await.unwrap()
    }

    #[tokio::test]
    async fn who_fails_often_waits_and_others_do_not() {
        let (_folder, logins) = logins(1).await;
        for _ in 0..4 {
            assert!(matches!(attempt(&logins, "2001:db8::1", "wrong").await, Login::Refused));
        }
        let began = Instant::now();
        let (one, other, elsewhere) = tokio::join!(
            attempt(&logins, "2001:db8::2", "guess"),
            async {
                tokio::task::yield_now().await;
                attempt(&logins, "2001:db8::3", "another").await
            },
            attempt(&logins, "192.0.2.1", "secret"),
        );
        assert!(matches!((one, other), (Login::Refused, Login::Busy)), "one of a network waits, the other may not");
        assert!(matches!(elsewhere, Login::In(..)));
        assert!(began.elapsed() >= FIRST);
        assert!(matches!(attempt(&logins, "2001:db8::9", "secret").await, Login::In(..)), "a known password is let in");
    }

    #[tokio::test]
    async fn an_account_has_so_many_sessions_and_no_more() {
        let (_folder, logins) = logins(1).await;
        let first = attempt(&logins, "192.0.2.1", "secret").await;
        let second = attempt(&logins, "192.0.2.2", "secret").await;
        assert!(matches!((&first, &second), (Login::In(..), Login::In(..))));
        assert!(matches!(attempt(&logins, "192.0.2.3", "secret").await, Login::Crowded));
        drop(first);
        assert!(matches!(attempt(&logins, "192.0.2.3", "secret").await, Login::In(..)));
        drop(second);
        assert!(logins.seats.is_empty());
    }

    /// They stayed for as long as they liked, whatever became of the account.
    #[tokio::test]
    async fn no_session_outlives_what_let_it_in() {
        let (_folder, logins) = logins(1).await;
        let tasks = Tasks::default();
        tasks.spawn_vital("logins", logins.clone().watch(tasks.clone()));
        let alice = "alice@example.org";
        for act in ["password", "suspend", "resume", "remove"] {
            let password = if act == "password" { "secret" } else { "another" };
            let login = attempt(&logins, "192.0.2.1", password).await;
            let directory = logins.directory.clone();
            let changed = match act {
                "password" => directory.set_password(alice, "another").await,
                "suspend" => directory.set_status(alice, directory::Status::Suspended).await,
                "resume" => directory.set_status(alice, directory::Status::Active).await,
                _ => directory.remove_account(alice).await,
            };
            changed.unwrap();
            if let Login::In(_, seat) = login {
                tokio::time::timeout(Duration::from_secs(20), seat.over()).await.unwrap();
                assert_eq!(seat.account(), None);
            } else {
                assert_eq!(act, "resume", "nobody can log in to what is suspended");
            }
        }
        tasks.stop();
        assert!(tasks.finished(Duration::from_secs(5)).await);
        assert!(logins.seats.is_empty());
    }

    /// The change came after the password was right, and before the session had its place. Those who had come in by the
    /// new password meanwhile were thrown out.
    #[tokio::test]
    async fn a_login_that_a_change_overtakes_is_refused() {
        let (_folder, logins) = logins(1).await;
        let before = logins.directory.account("alice@example.org").await.unwrap().unwrap();
        logins.directory.set_password("alice@example.org", "another").await.unwrap();
        let owner = attempt(&logins, "192.0.2.1", "another").await;
        assert!(matches!(logins.seat(before).await, Ok(Login::Refused)));
        let Login::In(_, seat) = owner else { panic!("the owner was not let in") };
        assert!(seat.account().is_some());
        drop(seat);
        assert!(logins.seats.is_empty());
    }

    #[tokio::test]
    async fn an_account_of_another_node_is_sent_there() {
        let (_folder, mut logins) = logins(1).await;
        logins.node = "node2".into();
        assert!(matches!(attempt(&logins, "192.0.2.1", "secret").await, Login::Elsewhere(node) if node == "node1"));
    }
}
