//! Logging in: argon2id, on threads of its own, a few at once, in the same time for everybody but those whose hash was
//! imported and costs more or less than ours.
//!
//! A password that was right a moment ago is recognised by a keyed digest, so that a client with many connections does
//! not cost the hash each time. The digest holds the hash, so that another password ends that, and nothing else that
//! changes in the directory does. Nothing tells an unknown user from a wrong password.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::master::{Account, Status};
use crate::{Config, Directory, Unsure};

/// A right password is recognised for so long.
const RECOGNISED_FOR: Duration = Duration::from_secs(300);
/// So many are recognised.
const RECOGNISED_MOST: usize = 10_000;

pub(crate) struct Logins {
    /// Hashes at once: each takes 19 MiB and a core, or what an imported hash asks for (see [`crate::HASH_MOST`]).
    turns: Semaphore,
    /// Logins at once, whether they are hashed or wait for it.
    places: Semaphore,
    key: [u8; 32],
    recognised: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Logins {
    pub(crate) fn new(config: &Config) -> Self {
        let (turns, places) = (config.logins_at_once, config.logins_at_once + config.logins_waiting);
        Self {
            turns: Semaphore::new(turns),
            places: Semaphore::new(places),
            key: rand::random(),
            recognised: Mutex::default(),
        }
    }

    fn digest(&self, hash: &str, password: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(hash.len() as u64).to_le_bytes()).update(hash.as_bytes()).update(password.as_bytes());
        *hasher.finalize().as_bytes()
    }

    fn recognises(&self, digest: &[u8; 32]) -> bool {
        let recognised = self.recognised.lock().unwrap_or_else(PoisonError::into_inner);
        recognised.get(digest).is_some_and(|at| at.elapsed() < RECOGNISED_FOR)
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut recognised = self.recognised.lock().unwrap_or_else(PoisonError::into_inner);
        if recognised.len() >= RECOGNISED_MOST {
            recognised.clear();
        }
        recognised.insert(digest, Instant::now());
    }
}

/// The hash that unknown users are checked against, of a password that nobody knows.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    let password: [u8; 32] = rand::random();
    hash(&blake3::Hash::from(password).to_hex()).unwrap_or_default()
});

fn argon() -> Argon2<'static> {
    // RFC 9106 and OWASP: 19 MiB, two passes, one lane.
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(19 * 1024, 2, 1, None).unwrap_or_default())
}

/// The hash of a password, with a salt of its own.
pub(crate) fn hash(password: &str) -> anyhow::Result<String> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = argon().hash_password(password.as_bytes(), &salt);
    Ok(hash.map_err(|error| anyhow::anyhow!("hashing a password: {error}"))?.to_string())
}

impl Directory {
    /// The account of this user, if this was the right password a moment ago and still is. Costs next to nothing.
    ///
    /// # Errors
    /// [`Unsure`] when the master is away and the user was not asked for before.
    pub async fn recognise(&self, user: &str, password: &str) -> Result<Option<Arc<Account>>, Unsure> {
        let logins = &self.inner.logins;
        let known = |account: &Arc<Account>| {
            account.status == Status::Active && logins.recognises(&logins.digest(account.password.reveal(), password))
        };
        Ok(self.account(user).await?.filter(known))
    }

    /// The account of this user, if the password is right and the account can be used.
    ///
    /// # Errors
    /// [`Unsure`] when the master is away and the user was not asked for before, or too many logins wait already.
    pub async fn authenticate(&self, user: &str, password: &str) -> Result<Option<Arc<Account>>, Unsure> {
        let account = self.account(user).await?;
        let hash = account.as_ref().map_or_else(|| NOBODY.clone(), |account| account.password.reveal().clone());
        let logins = &self.inner.logins;
        let digest = logins.digest(&hash, password);
        if !logins.recognises(&digest) {
            let place = logins.places.try_acquire().map_err(|_| Unsure("too many logins wait already".to_owned()))?;
            let turn = logins.turns.acquire().await.map_err(|error| Unsure(error.to_string()))?;
            let password = password.to_owned();
            let verify = move || {
                let parsed = PasswordHash::new(&hash).ok()?;
                argon().verify_password(password.as_bytes(), &parsed).ok()
            };
            let right = tokio::task::spawn_blocking(verify).await.map_err(|error| Unsure(error.to_string()))?;
            drop((turn, place));
            if right.is_none() || account.is_none() {
                return Ok(None);
            }
            logins.remember(digest);
        }
        Ok(account.filter(|account| account.status == Status::Active))
    }
}
