//! The basics of configuration: values with units, and problems that are collected rather than reported one by one.

mod section;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

pub use section::{Entry, Section, Sheet};

/// Every mistake found in a configuration, each with its path in the file and what would be right.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Notes one mistake. `path` is like `stages.scan.clamd`; `text` says what is wrong and what would be right.
    pub fn add(&mut self, path: &str, text: impl fmt::Display) {
        self.0.push(format!("{path}: {text}"));
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mistakes in the order in which they were found.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// A length of time with its unit, as in `30s`, `5min`, `1h`, `250ms`, `1day`. A bare `0` is allowed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        humantime::parse_duration(text).map(Self).map_err(|_| {
            format!("{text:?} is not a length of time: write a number and its unit, like 30s, 5min or 250ms")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A number of bytes with its unit, as in `25MiB`, `64KiB`, `8GiB`, `512B`. A bare `0` is allowed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// So many mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many kibibytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// The size as a count in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not a size: write a whole number and its unit, like 25MiB, 64KiB or 8GiB");
        if text == "0" {
            return Ok(Self(0));
        }
        let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(wrong)?;
        let number = text[..text.len() - unit.len()].trim_end().parse::<u64>().map_err(|_| wrong())?;
        number.checked_mul(*factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_carry_units() {
        for (text, bytes) in [("25MiB", 25 << 20), ("64 KiB", 64 << 10), ("8GiB", 8 << 30), ("512B", 512), ("0", 0)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "25", "25MB", "-1KiB", "1.5GiB", "MiB", "99999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_printed_as_one_would_write_them() {
        for text in ["25MiB", "1KiB", "513B", "0B", "3TiB"] {
            assert_eq!(text.replace("0B", "0").parse::<ByteSize>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn spans_carry_units() {
        assert_eq!("5min".parse::<Span>().unwrap(), Span::seconds(300));
        assert_eq!("0".parse::<Span>().unwrap(), Span::seconds(0));
        assert_eq!("1day".parse::<Span>().unwrap().to_string(), "1day");
        for text in ["", "30", "-5s", "soon"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn problems_are_collected_with_their_paths() {
        let mut problems = Problems::default();
        assert!(problems.is_empty());
        problems.add("a.b", "wrong");
        problems.add("a.c", "odd");
        assert_eq!(problems.to_string(), "a.b: wrong\na.c: odd");
    }
}
