//! Addresses in MAIL and RCPT (RFC 5321 section 4.1.2), checked once.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// RFC 5321 section 4.5.3.1.1 says 64; longer ones are in use (VERP), so twice that is taken.
const LOCAL_MOST: usize = 128;
/// RFC 5321 section 4.5.3.1.2.
const DOMAIN_MOST: usize = 255;

/// RFC 5321 section 4.5.3.1.3 allows 256 with the brackets.
const ADDRESS_MOST: usize = 254;

/// An address, spelled as the sender did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    text: String,
    at: Option<usize>,
}

impl Path {
    /// The null reverse path.
    pub fn null() -> Self {
        Self { text: String::new(), at: None }
    }

    /// Whether this is the null reverse path.
    pub fn is_null(&self) -> bool {
        self.text.is_empty()
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the last `@`.
    pub fn local(&self) -> &str {
        &self.text[..self.at.unwrap_or(self.text.len())]
    }

    /// The part behind the last `@`; empty for `<postmaster>`.
    pub fn domain(&self) -> &str {
        self.at.map_or("", |at| &self.text[at + 1..])
    }

    /// The domain in lower case, without a dot at its end: the same for all spellings.
    pub fn domain_lowercase(&self) -> String {
        self.domain().trim_end_matches('.').to_ascii_lowercase()
    }

    /// Reads a path with its angle brackets from the start of `text`, and gives what follows it.
    ///
    /// # Errors
    /// What is wrong with it, for the reply.
    pub fn parse(text: &str) -> Result<(Self, &str), &'static str> {
        let inner = text.strip_prefix('<').ok_or("an address stands between < and >")?;
        let end = closing(inner).ok_or("the closing > is missing")?;
        let (address, rest) = (&inner[..end], &inner[end + 1..]);
        // Source routes are read and ignored: RFC 5321 appendix C.
        let address = match address.strip_prefix('@').and_then(|_| address.split_once(':')) {
            // Not the null path, which has nothing between its brackets.
            Some((_, "")) => return Err("there is no address behind the route"),
            Some((_, behind)) => behind,
            None => address,
        };
        if address.is_empty() {
            return Ok((Self::null(), rest));
        }
        Ok((Self::check(address)?, rest))
    }

    fn check(address: &str) -> Result<Self, &'static str> {
        if !address.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err("it holds characters that are not ASCII");
        }
        if address.len() > ADDRESS_MOST {
            return Err("it is too long");
        }
        let path = Self { text: address.to_owned(), at: address.rfind('@') };
        if path.at.is_none() && !address.eq_ignore_ascii_case("postmaster") {
            return Err("the domain is missing");
        }
        if path.local().is_empty() || path.local().len() > LOCAL_MOST || !is_local(path.local()) {
            return Err("the part before @ cannot be read");
        }
        if path.at.is_some() && (path.domain().len() > DOMAIN_MOST || !is_domain(path.domain())) {
            return Err("the domain cannot be read");
        }
        Ok(path)
    }
}

/// Reads a bare address, without brackets; an empty one is the null path.
impl FromStr for Path {
    type Err = &'static str;

    fn from_str(address: &str) -> Result<Self, Self::Err> {
        if address.is_empty() { Ok(Self::null()) } else { Self::check(address) }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where the closing bracket is, outside quotes.
fn closing(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(index),
            _ => {}
        }
    }
    None
}

fn is_local(local: &str) -> bool {
    if let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        let mut escaped = false;
        for byte in inner.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return false,
                _ => {}
            }
        }
        return !escaped && !inner.is_empty();
    }
    local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom))
}

fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_domain(domain: &str) -> bool {
    if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match literal.split_at_checked("IPv6:".len()) {
            Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => address.parse::<Ipv6Addr>().is_ok(),
            _ => literal.parse::<Ipv4Addr>().is_ok(),
        };
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.strip_suffix('.').unwrap_or(domain).split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones() {
        for (text, local, domain, rest) in [
            ("<a@b.c> SIZE=1", "a", "b.c", " SIZE=1"),
            ("<a.b+c@x-y.example>", "a.b+c", "x-y.example", ""),
            ("<\"a b@>\"@b>", "\"a b@>\"", "b", ""),
            ("<@r1,@r2:a@b>", "a", "b", ""),
            ("<Postmaster>", "Postmaster", "", ""),
            ("<a@[127.0.0.1]>", "a", "[127.0.0.1]", ""),
            ("<a@[IPv6:::1]>", "a", "[IPv6:::1]", ""),
            ("<a@[ipv6:::1]>", "a", "[ipv6:::1]", ""),
        ] {
            let (path, behind) = Path::parse(text).expect(text);
            assert_eq!((path.local(), path.domain(), behind), (local, domain, rest), "{text}");
        }
        let path: Path = "A@B.Example.".parse().expect("a good one");
        assert_eq!((path.as_str(), path.domain_lowercase().as_str()), ("A@B.Example.", "b.example"));
        assert_eq!("".parse(), Ok(Path::null()));
        assert!(Path::parse("<>").is_ok_and(|(path, _)| path.is_null()));
    }

    #[test]
    fn bad_ones() {
        for text in [
            "",
            "a@b",
            "<a@b",
            "<a>",
            "<@b>",
            "<a@>",
            "<a..b@c>",
            "<.a@c>",
            "<a b@c>",
            "<a@b..c>",
            "<a@-b>",
            "<a@b c>",
            "<\"a@b>",
            "<a@[1.2.3]>",
            "<a@[::1]>",
            "<a@[IPv6:1.2.3.4]>",
            "<@b:>",
            "<\u{e4}@b>",
            "<a\u{1}@b>",
            "<a@b@c@>",
        ] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        for (local, labels, good) in [(128, 20, true), (129, 1, false), (64, 31, true), (64, 32, false)] {
            let address = format!("{}@{}a", "x".repeat(local), "label.".repeat(labels));
            assert_eq!(address.parse::<Path>().is_ok(), good, "{} bytes", address.len());
        }
    }
}
