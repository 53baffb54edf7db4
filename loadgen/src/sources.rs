//! From which addresses mail comes: on loopback every address of 127.0.0.0/8 is ours.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

/// A range of addresses, like 127.64.0.0/10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    first: u32,
    count: u32,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let first: Ipv4Addr = address.parse().map_err(|_| format!("{address} is no IPv4 address"))?;
        let bits = bits.parse().ok().filter(|bits| (8..=32).contains(bits));
        let bits: u32 = bits.ok_or_else(|| format!("{text}: the prefix has 8 to 32 bits"))?;
        let count = 1 << (32 - bits);
        Ok(Self { first: first.to_bits() & !(count - 1), count })
    }
}

/// Ranges, each of whose addresses has its turn.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    usual: Option<Range>,
    listed: Option<Range>,
    next: AtomicU32,
}

impl Sources {
    /// Without a range the system chooses.
    pub(crate) fn new(usual: Option<Range>, listed: Option<Range>) -> Self {
        Self { usual, listed, next: AtomicU32::new(0) }
    }

    /// The next usual address.
    pub(crate) fn usual(&self) -> Option<IpAddr> {
        self.usual.map(|range| self.of(range))
    }

    /// The next listed address.
    pub(crate) fn listed(&self) -> Option<IpAddr> {
        self.listed.map(|range| self.of(range))
    }

    fn of(&self, range: Range) -> IpAddr {
        // Neither the first nor the last address of a network is a host's.
        let hosts = if range.count > 2 { range.count - 2 } else { range.count };
        let offset = self.next.fetch_add(1, Ordering::Relaxed) % hosts + u32::from(range.count > 2);
        IpAddr::V4(Ipv4Addr::from_bits(range.first + offset))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_have_their_turn() {
        let sources = Sources::new(Some("127.1.2.3/30".parse().unwrap()), Some("127.9.9.9".parse().unwrap()));
        let usual: Vec<String> = (0..3).map(|_| sources.usual().unwrap().to_string()).collect();
        assert_eq!(usual, ["127.1.2.1", "127.1.2.2", "127.1.2.1"]);
        assert_eq!(sources.listed().unwrap().to_string(), "127.9.9.9");
        assert_eq!(Sources::default().usual(), None);
        for bad in ["127.1", "127.0.0.1/33", "127.0.0.0/4", "::1"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }
}
