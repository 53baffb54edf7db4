//! The small checked types that everything else is made of: mail ids, digests, times, node names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Malformed;

/// A mail's name for its whole life: 26 characters (ULID, Crockford base 32) that sort by the time of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailId(ulid::Ulid);

impl MailId {
    /// Builds an id from its parts: milliseconds since 1970 and 80 random bits.
    pub fn new(at: Millis, random: u128) -> Self {
        Self(ulid::Ulid::from_parts(at.0, random))
    }

    /// The id's 16 bytes, which sort as the id does.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_bytes()
    }

    /// The id with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(ulid::Ulid::from_bytes(bytes))
    }

    /// When the mail arrived, by the clock of the node that accepted it.
    pub fn arrived(self) -> Millis {
        Millis(self.0.timestamp_ms())
    }

    pub(crate) fn checked(bytes: &[u8], field: &'static str) -> Result<Self, Malformed> {
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| Malformed::Wrong {
            field,
            found: format!("{} bytes", bytes.len()),
            wanted: "16 bytes",
        })?;
        Ok(Self::from_bytes(bytes))
    }
}

impl fmt::Display for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MailId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ulid::Ulid::from_string(text)
            .map(Self)
            .map_err(|_| format!("{text:?} is not a mail id: it has 26 characters, like 01ARZ3NDEKTSV4RRFFQ69G5FAV"))
    }
}

/// Milliseconds since 1970, by the wall clock of whoever wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// The time from `earlier` to this, zero when that lies in the future (clocks differ between nodes).
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This time and `span` more.
    pub fn plus(self, span: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A BLAKE3 digest of a body.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of an accept or store node. It is a token of a NATS subject: letters, digits, `-` and `_`, 1 to 63 of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 63 || !text.chars().all(plain) {
            return Err(format!("{text:?} is not a node name: 1 to 63 letters, digits, - and _"));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_have_26_characters_and_sort_by_time() {
        let early = MailId::new(Millis(1_000), u128::MAX >> 48);
        let late = MailId::new(Millis(1_001), 0);
        assert_eq!(early.to_string().len(), 26);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
        assert!(early.to_bytes() < late.to_bytes());
        assert_eq!(early.to_string().parse::<MailId>().unwrap(), early);
        assert_eq!(late.arrived(), Millis(1_001));
    }

    #[test]
    fn wrong_ids_are_refused() {
        for text in ["", "01ARZ", "01ARZ3NDEKTSV4RRFFQ69G5FA!"] {
            assert!(text.parse::<MailId>().is_err(), "{text}");
        }
    }

    #[test]
    fn node_names_are_subject_tokens() {
        for good in ["a", "mx-1", "store_2", &"x".repeat(63)] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a b", "*", ">", "ü", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_clock_that_runs_behind_gives_no_negative_age() {
        assert_eq!(Millis(5).since(Millis(7)), std::time::Duration::ZERO);
        assert_eq!(Millis(7).since(Millis(5)), std::time::Duration::from_millis(2));
    }
}
