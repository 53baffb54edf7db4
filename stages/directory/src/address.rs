//! Addresses as the directory compares them: lower case, without quotes that say nothing, local part and domain,
//! checked once.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Something that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: {why}")]
pub struct BadAddress {
    text: String,
    why: &'static str,
}

impl BadAddress {
    /// What is wrong with it, without the text itself.
    pub(crate) fn why(&self) -> &'static str {
        self.why
    }
}

/// An address in the one form in which it is stored and compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    text: String,
    at: usize,
}

impl Address {
    /// The part before the `@`.
    pub fn local(&self) -> &str {
        &self.text[..self.at]
    }

    /// The part behind the `@`.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same local part in another domain.
    pub(crate) fn in_domain(&self, domain: &str) -> Self {
        Self { text: format!("{}@{domain}", self.local()), at: self.at }
    }

    /// The address without its `+tag`, and the tag, if it has one.
    pub(crate) fn without_tag(&self) -> Option<(Self, String)> {
        let (local, tag) = self.local().split_once('+')?;
        (!local.is_empty())
            .then(|| (Self { text: format!("{local}@{}", self.domain()), at: local.len() }, tag.to_owned()))
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = |why| BadAddress { text: text.chars().take(100).collect(), why };
        let at = text.rfind('@').ok_or_else(|| bad("the @ is missing"))?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        if local.is_empty() || local.len() > 128 {
            return Err(bad("the part before @ has 1 to 128 characters"));
        }
        if !is_domain(domain) {
            return Err(bad("the part behind @ is not a domain"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(bad("only printable ASCII is taken"));
        }
        let local = unquoted(local).ok_or_else(|| bad("the quotes before @ cannot be read"))?;
        Ok(Self { text: format!("{local}@{domain}").to_ascii_lowercase(), at: local.len() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The one spelling of a local part: quotes and backslashes that are not needed go, since the mailbox is the same
/// without them (RFC 5321 section 4.1.2). What has no quotes is taken as it is; nothing where they are not closed, or
/// around nothing.
fn unquoted(local: &str) -> Option<Cow<'_, str>> {
    let Some(inner) = local.strip_prefix('"') else { return Some(Cow::Borrowed(local)) };
    let (mut bare, mut characters) = (String::new(), inner.strip_suffix('"')?.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' => bare.push(characters.next()?),
            '"' => return None,
            _ => bare.push(character),
        }
    }
    let is_atom = |atom: &str| {
        !atom.is_empty() && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    };
    if bare.split('.').all(is_atom) {
        return Some(Cow::Owned(bare));
    }
    (!bare.is_empty()).then(|| Cow::Owned(format!("\"{}\"", bare.replace('\\', "\\\\").replace('"', "\\\""))))
}

/// Whether this can be the name of a mail domain.
pub(crate) fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.len() <= 255 && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_compared_in_lower_case() {
        let address: Address = "Alice.B@Example.ORG".parse().unwrap();
        assert_eq!((address.local(), address.domain()), ("alice.b", "example.org"));
    }

    #[test]
    fn tags() {
        let address: Address = "alice+News+x@example.org".parse().unwrap();
        let (base, tag) = address.without_tag().unwrap();
        assert_eq!((base.as_str(), tag.as_str()), ("alice@example.org", "news+x"));
        assert!("+x@example.org".parse::<Address>().unwrap().without_tag().is_none());
        assert!("a@b".parse::<Address>().unwrap().without_tag().is_none());
    }

    /// RFC 5321 section 4.1.2: `"bob"@x` was nobody, where `bob@x` was there.
    #[test]
    fn quotes_that_are_not_needed_say_nothing() {
        for (text, want) in [
            (r#""bob"@x"#, "bob@x"),
            (r#""B\ob"@x"#, "bob@x"),
            (r#""bob+tag"@x"#, "bob+tag@x"),
            (r#""b.o.b"@x"#, "b.o.b@x"),
            (r#""b..b"@x"#, r#""b..b"@x"#),
            (r#"".b"@x"#, r#"".b"@x"#),
            (r#""a b"@x"#, r#""a b"@x"#),
            (r#""a\ b"@x"#, r#""a b"@x"#),
            (r#""a@b"@x"#, r#""a@b"@x"#),
            (r#""a\"\\b"@x"#, r#""a\"\\b"@x"#),
            (r#"b"ob@x"#, r#"b"ob@x"#),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.as_str(), address.domain()), (want, "x"), "{text}");
            assert_eq!(want.parse(), Ok(address), "{text}");
        }
        for text in [r#""@x"#, r#"""@x"#, r#""a@x"#, r#""a"b"@x"#, r#""a\"@x"#] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn bad_ones_say_why() {
        for text in ["", "a", "@b", "a@", "a@b..c", "a@-b", "a\n@b", "\u{e4}@b", &format!("{}@b", "x".repeat(129))] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
