//! What stands behind an address in a list of accounts: a password, a hash that is ready, or something that is neither.
//! Nothing of it is told when it is wrong: it may be a password.

use anyhow::bail;
use argon2::password_hash::{PasswordHash, Salt};
use argon2::{MIN_SALT_LEN, Params, Version};
use wire::secret::Secret;

use crate::address::Address;

/// How a hash begins, by which it is told from a password.
const READY: &str = "$argon2id$";

/// What Dovecot writes before it.
const PREFIX: &str = "{ARGON2ID}";

/// A ready hash takes at most so many bytes of memory: 256 MiB, what libsodium calls moderate, and four times what RFC
/// 9106 advises where memory is scarce. Each login takes that, `directory.logins_at_once` of them at the same time, and
/// whoever knows the address can try.
pub const HASH_MOST: u64 = 256 << 20;

/// It passes over its memory so many times at most: libsodium's dearest have 4 and 8.
const PASSES_MOST: u64 = 10;

/// And goes over so much in all its passes, in KiB: 768 MiB, libsodium's moderate, half a second of a core. Whoever
/// knows the address of one dear account keeps all others waiting with it, `directory.logins_at_once` of them at a
/// time.
const WORK_MOST: u64 = 768 << 10;

/// And has so many lanes at most: RFC 9106 advises 4, and a login is computed on one core whatever they are.
const LANES_MOST: u64 = 16;

/// Characters of a password. What is shorter is guessed at once, and is how /etc/shadow and its like write accounts
/// that nobody may use: `*`, `!`, `!!`, `x`, `NP`, `*0`.
const SHORTEST: usize = 3;

/// Names of hashes, which may be told: whatever else looks like one may be a password.
const KINDS: [&str; 47] = [
    "1",
    "2",
    "2a",
    "2b",
    "2x",
    "2y",
    "5",
    "6",
    "7",
    "y",
    "gy",
    "P",
    "H",
    "sha1",
    "md5",
    "apr1",
    "argon2",
    "argon2i",
    "argon2d",
    "argon2id",
    "scrypt",
    "bcrypt",
    "bcrypt-sha256",
    "pbkdf2",
    "pbkdf2-sha1",
    "pbkdf2-sha256",
    "pbkdf2-sha512",
    "crypt",
    "smd5",
    "sha",
    "ssha",
    "sha256",
    "ssha256",
    "sha512",
    "ssha512",
    "md5-crypt",
    "sha256-crypt",
    "sha512-crypt",
    "blf-crypt",
    "des-crypt",
    "cram-md5",
    "digest-md5",
    "scram-sha-1",
    "scram-sha-256",
    "plain-md5",
    "plain",
    "cleartext",
];

/// What an account gets to log in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    /// It is to be hashed.
    Password(Secret<String>),
    /// Argon2id, in the PHC form.
    Hash(Secret<String>),
}

impl Given {
    /// Reads what stands behind the address and its blanks.
    pub(crate) fn read(secret: &str) -> anyhow::Result<Self> {
        if secret.is_empty() {
            bail!("an account needs a password");
        }
        if secret.ends_with([' ', '\t']) {
            bail!("a blank that nobody sees ends the password: take it away, or set the password with: account passwd");
        }
        let secret = match secret.split_at_checked(PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && rest.starts_with(READY) => rest,
            _ => secret,
        };
        if secret.starts_with(READY) {
            return Ok(Self::Hash(Secret::new(ready(secret)?)));
        }
        refuse_locked(secret)?;
        if let Some(kind) = foreign(secret) {
            let kind = kind.map_or_else(|| "this".to_owned(), |kind| format!("what begins with {kind}"));
            bail!(
                "{kind} is a hash of another kind, and not a password: only Argon2id is taken, \
                        written {READY}...; give a new password instead"
            );
        }
        if secret.chars().count() < SHORTEST {
            bail!(
                "a password has {SHORTEST} characters or more; if nobody may use the account, \
                        leave it out, or suspend it later"
            );
        }
        if secret.parse::<Address>().is_ok() {
            bail!("an address stands in the place of the password, which comes second");
        }
        Ok(Self::Password(Secret::new(secret.to_owned())))
    }
}

/// Accounts that nobody may use are written so in /etc/shadow: `!` or `*` alone or before the hash, or a word between
/// stars. Whoever took that for a password would let in everybody who knows the custom.
fn refuse_locked(secret: &str) -> anyhow::Result<()> {
    let rest = secret.trim_start_matches(['!', '*']);
    let is_word = rest.strip_suffix('*').is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()));
    let is_hash = rest.starts_with(READY) || foreign(rest).is_some();
    if rest.len() < secret.len() && (rest.is_empty() || is_word || is_hash) {
        bail!(
            "this is how a locked account is written, and no password: leave the account out, or give a new password"
        );
    }
    Ok(())
}

/// Whether this is a hash that is not ours, `$6$...` as crypt(3) and the PHC form write it, or `{SSHA}...`, as LDAP and
/// Dovecot do; and how it begins, if that is a kind that is known. Who took it for a password would let in everybody
/// who has seen the list, and keep out its owner.
fn foreign(secret: &str) -> Option<Option<&str>> {
    let (closing, inner) = match secret.chars().next()? {
        '$' => ('$', &secret[1..]),
        '{' => ('}', &secret[1..]),
        _ => return None,
    };
    let name = &inner[..inner.find(closing)?];
    let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.,=".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_named) {
        return None;
    }
    let kind = [".hex", ".b64", ".base64"].iter().find_map(|form| name.strip_suffix(form)).unwrap_or(name);
    let is_known = KINDS.iter().any(|known| known.eq_ignore_ascii_case(kind));
    Some(is_known.then(|| &secret[..name.len() + 2]))
}

/// An Argon2id hash that was made elsewhere, if a login can be checked against it, at a price that is bounded.
fn ready(secret: &str) -> anyhow::Result<String> {
    let unreadable = |error: argon2::password_hash::Error| anyhow::anyhow!("the hash cannot be read: {error}");
    let parsed = PasswordHash::new(secret).map_err(unreadable)?;
    // Without them it would fit no password.
    let (Some(salt), Some(_)) = (parsed.salt, parsed.hash) else { bail!("the hash is not whole") };
    if salt.decode_b64(&mut [0; Salt::MAX_LENGTH]).map_err(unreadable)?.len() < MIN_SALT_LEN {
        bail!("the salt of the hash is shorter than {MIN_SALT_LEN} bytes");
    }
    // The same as a login does with it: what fails here would never let anybody in.
    let costs = Params::try_from(&parsed).map_err(unreadable)?;
    parsed.version.map_or(Ok(Version::V0x13), Version::try_from).map_err(|error| unreadable(error.into()))?;
    let [memory, passes, lanes] = [costs.m_cost(), costs.t_cost(), costs.p_cost()].map(u64::from);
    for (name, what, cost, most) in [
        ("m", "KiB of memory", memory, HASH_MOST >> 10),
        ("t", "passes", passes, PASSES_MOST),
        ("m*t", "KiB in all passes", memory.saturating_mul(passes), WORK_MOST),
        ("p", "lanes", lanes, LANES_MOST),
    ] {
        if cost > most {
            bail!(
                "each login would take {cost} {what} ({name}={cost}), and {most} at most are allowed: give a new \
                 password instead, or a hash that was made with less"
            );
        }
    }
    Ok(parsed.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(secrets: &[&str], want: &str) {
        for secret in secrets {
            let told =
                Given::read(secret).map_or_else(|error| error.to_string(), |given| format!("{given:?} is taken"));
            assert!(told.starts_with(want), "{secret}: {told}");
        }
    }

    /// They were taken for passwords: whoever had seen the list could log in with them, and their owners could not.
    #[test]
    fn hashes_of_other_kinds_are_no_passwords() {
        for (secret, kind) in [
            ("$2y$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", "$2y$"),
            ("$6$rounds=5000$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS130MTSuDDl3aCI6WouIL9Aj", "$6$"),
            ("$argon2i$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "$argon2i$"),
            ("$ARGON2ID$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "$ARGON2ID$"),
            ("$pbkdf2-sha256$29000$c2FsdA$aGFzaA", "$pbkdf2-sha256$"),
            ("{SSHA}DkMTwBl+a/3DQTxCYEApdUtNXGgdUac3", "{SSHA}"),
            ("{BLF-CRYPT}$2y$05$abc", "{BLF-CRYPT}"),
            ("{plain-md5.hex}900150983cd24fb0d6963f7d28e17f72", "{plain-md5.hex}"),
        ] {
            refused(&[secret], &format!("what begins with {kind} is a hash of another kind, and not a password: "));
        }
        // Of what may be a password nothing is told.
        refused(&["$md5,rounds=904$c2FsdA$aGFzaA", "{hunter2}", "$ecret$1"], "this is a hash of another kind");
        for password in
            ["$ecret", "$$$", "$a b$", "{{{", "{}{}", "{a b}", "}x{", "a$6$b", "!Secret1", "*a*", "pa{SSHA}"]
        {
            let taken = Given::read(password).ok();
            assert_eq!(taken, Some(Given::Password(Secret::new(password.to_owned()))), "{password}");
        }
    }

    /// Everybody could log in to them with `*`.
    #[test]
    fn accounts_that_nobody_may_use_get_no_password() {
        let locked = ["*", "!", "!!", "!*", "****", "*LK*", "*NP*", "!*LOCKED*"];
        refused(&locked, "this is how a locked account is written");
        let hash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo";
        refused(
            &[&format!("!{hash}"), "!!$6$salt$IxDD3jeSOb5e", "*{SSHA}x"],
            "this is how a locked account is written",
        );
        refused(&["x", "NP", "*0", "$", "ab"], "a password has 3 characters or more");
        refused(&["alice@example.org"], "an address stands in the place of the password");
    }

    #[test]
    fn a_hash_is_taken_as_dovecot_writes_it() {
        let hash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo";
        for before in ["", "{ARGON2ID}", "{argon2id}"] {
            let read = Given::read(&format!("{before}{hash}")).ok();
            assert_eq!(read, Some(Given::Hash(Secret::new(hash.to_owned()))), "{before}");
        }
    }
}
