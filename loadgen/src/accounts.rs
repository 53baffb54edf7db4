//! Many people to send to: lines for `chainmail account import`.

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHasher as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

/// The addresses of so many people.
pub(crate) fn addresses(count: u32, domain: &str) -> Vec<String> {
    (0..count).map(|number| format!("u{number:05}@{domain}")).collect()
}

/// A line for each: the address and one hash for all of them. A hash for each would take longer than the test.
///
/// # Errors
/// When the password cannot be hashed.
pub(crate) fn lines(count: u32, domain: &str, password: &str) -> anyhow::Result<String> {
    // What the directory itself uses; it reads the parameters of a hash that it is given.
    let parameters = Params::new(19 * 1024, 2, 1, None).map_err(|error| anyhow::anyhow!("{error}"))?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
    let salt = SaltString::generate(&mut OsRng);
    let hash = argon.hash_password(password.as_bytes(), &salt);
    let hash = hash.map_err(|error| anyhow::anyhow!("hashing the password: {error}"))?;
    Ok(addresses(count, domain).iter().map(|address| format!("{address} {hash}\n")).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use argon2::password_hash::{PasswordHash, PasswordVerifier as _};

    use super::*;

    #[test]
    fn a_line_for_each() {
        let lines = lines(1000, "x.example", "secret").unwrap();
        assert_eq!(lines.lines().count(), 1000);
        let (address, hash) = lines.lines().last().unwrap().split_once(' ').unwrap();
        assert_eq!(address, "u00999@x.example");
        assert!(Argon2::default().verify_password(b"secret", &PasswordHash::new(hash).unwrap()).is_ok());
    }
}
