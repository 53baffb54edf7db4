//! The rules: one table for each kind of fact. A rule is a name, its default points, what it means, and a pure function
//! that says what it saw.

mod content;
mod envelope;
mod header;

use crate::facts::Facts;

/// A rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its symbol.
    pub name: &'static str,
    /// Default points towards spam.
    pub points: f64,
    /// What it means.
    pub doc: &'static str,
    /// What it saw, if it holds; may be empty. For people and logs.
    pub find: fn(&Facts) -> Option<String>,
}

const fn rule(name: &'static str, points: f64, doc: &'static str, find: fn(&Facts) -> Option<String>) -> Rule {
    Rule { name, points, doc, find }
}

/// Every rule, in the order in which their symbols are listed.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    [envelope::RULES, header::RULES, content::RULES].into_iter().flatten()
}

/// A rule that saw nothing worth telling holds with an empty detail.
fn when(holds: bool) -> Option<String> {
    holds.then(String::new)
}

/// The part of a domain that was registered (Public Suffix List); the domain itself when the list does not know.
fn registered(domain: &str) -> String {
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    psl::domain_str(&domain).unwrap_or(&domain).to_owned()
}

/// The domain of an address.
fn domain_of(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}
