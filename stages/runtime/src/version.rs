//! Which nats-server can be used. An older one knows less of streams than is asked of it, and would fail later and
//! elsewhere: so it is refused at the start.

use anyhow::bail;

/// The oldest that this was tried with. ops/setup names the same.
const LEAST: (u32, u32) = (2, 12);

/// Makes sure that a version is not too old; `whose` it is, is told.
///
/// # Errors
/// When it is, or cannot be read: what was found, what is needed, and where that is.
pub fn check(whose: &str, version: &str) -> anyhow::Result<()> {
    if read(version).is_some_and(|version| version >= LEAST) {
        return Ok(());
    }
    let (major, minor) = LEAST;
    bail!(
        "{whose} is nats-server {version:?}, and {major}.{minor} or later is needed: ops/setup fetches one for this \
         machine (var/bin/nats-server), others are at https://github.com/nats-io/nats-server/releases"
    )
}

/// Major and minor number, out of `2.12.1` or `v2.12.0-RC.1`.
fn read(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix('v').unwrap_or(version).split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_new_enough() {
        for (version, want) in [
            ("2.12.0", true),
            ("2.12.0-RC.1", true),
            ("2.15.1", true),
            ("3.0.0", true),
            ("v2.15.1", true),
            ("2.11.9", false),
            ("2.9.25", false),
            ("v2.9.10", false),
            ("1.20.0", false),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(check("it", version).is_ok(), want, "{version:?}");
        }
        let error = check("the broker at nats://[::1]:1", "2.9.25").unwrap_err().to_string();
        assert!(
            error.starts_with("the broker at nats://[::1]:1 is nats-server \"2.9.25\", and 2.12 or later is needed")
        );
    }
}
