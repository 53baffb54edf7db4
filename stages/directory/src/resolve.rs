//! What an address stands for: domain aliases, accounts, aliases of aliases, tags, catch-all, postmaster.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::address::Address;
use crate::master::{Account, Domain, Entry, Kind, Status};
use crate::{Directory, Unsure};

/// Whether mail for an address is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receives {
    /// It is.
    Yes,
    /// Nobody has it.
    Unknown,
    /// It is suspended.
    Suspended,
    /// Its domain is not ours.
    NotLocal,
}

/// One mailbox that an address stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The account.
    pub account: Arc<Account>,
    /// The part behind the plus sign, if there was one.
    pub tag: Option<String>,
}

/// Why a part of an expansion leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Nobody has this address.
    Unknown(String),
    /// It is suspended.
    Suspended(String),
    /// It is not in a domain of ours; mail is not sent on to others.
    NotLocal(String),
    /// Aliases lead in a circle, or too deep.
    Loop(String),
    /// The address stands for more mailboxes than allowed.
    TooMany(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(address) => write!(f, "{address} is not known"),
            Self::Suspended(address) => write!(f, "{address} is suspended"),
            Self::NotLocal(address) => write!(f, "{address} is not in a domain of ours"),
            Self::Loop(address) => write!(f, "aliases lead back to {address}, or too deep"),
            Self::TooMany(address) => write!(f, "{address} stands for too many mailboxes"),
        }
    }
}

/// All mailboxes that an address stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// Each account once.
    pub targets: Vec<Target>,
    /// What led nowhere.
    pub problems: Vec<Problem>,
}

/// One step from an address.
enum StepTo {
    Account(Arc<Account>, Option<String>),
    Addresses(Vec<Address>),
    Unknown,
    NotLocal,
}

impl Directory {
    /// Whether mail for this address, as a sender wrote it, is taken.
    ///
    /// # Errors
    /// [`Unsure`] when the master is away and the address was not asked for before.
    pub async fn receives(&self, address: &str) -> Result<Receives, Unsure> {
        Ok(match self.step(address).await? {
            // The quarantine is filled by the chain alone; its address takes no mail.
            StepTo::Account(account, _) if account.kind == Kind::System && account.address.local() != "postmaster" => {
                Receives::Unknown
            }
            StepTo::Account(account, _) if account.status == Status::Suspended => Receives::Suspended,
            StepTo::Account(..) | StepTo::Addresses(_) => Receives::Yes,
            StepTo::Unknown => Receives::Unknown,
            StepTo::NotLocal => Receives::NotLocal,
        })
    }

    /// Every mailbox that this address stands for.
    ///
    /// # Errors
    /// [`Unsure`] when the master is away and a part of the answer was not asked for before.
    pub async fn expand(&self, address: &str) -> Result<Expansion, Unsure> {
        let config = &self.inner.config;
        let mut found: BTreeMap<i64, Target> = BTreeMap::new();
        let mut problems = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        let start = address.to_ascii_lowercase();
        let mut open = vec![(start.clone(), 0)];
        while let Some((address, depth)) = open.pop() {
            if depth > config.alias_depth {
                problems.push(Problem::Loop(address));
                continue;
            }
            if !seen.insert(address.clone()) {
                continue;
            }
            match self.step(&address).await? {
                StepTo::Account(account, _) if account.status == Status::Suspended => {
                    problems.push(Problem::Suspended(address));
                }
                StepTo::Account(account, tag) => {
                    found.entry(account.id).or_insert(Target { account, tag });
                }
                StepTo::Addresses(targets) => open.extend(targets.into_iter().map(|t| (t.to_string(), depth + 1))),
                StepTo::Unknown => problems.push(Problem::Unknown(address)),
                StepTo::NotLocal => problems.push(Problem::NotLocal(address)),
            }
            if found.len() > config.alias_members {
                return Ok(Expansion { targets: Vec::new(), problems: vec![Problem::TooMany(start)] });
            }
        }
        if found.is_empty() && problems.is_empty() {
            problems.push(Problem::Loop(start));
        }
        Ok(Expansion { targets: found.into_values().collect(), problems })
    }

    /// The account that has exactly this address, whatever its status.
    ///
    /// # Errors
    /// [`Unsure`] when the master is away and the address was not asked for before.
    pub async fn account(&self, address: &str) -> Result<Option<Arc<Account>>, Unsure> {
        let Ok(address) = address.parse::<Address>() else { return Ok(None) };
        match self.entry(&address).await? {
            Entry::Account(account) => Ok(Some(account)),
            _ => Ok(None),
        }
    }

    /// Whether the account of this number still has this address. No is said by the master alone: what is remembered
    /// may be older than the account. For yes a memory that is not old is enough: changes are announced, and no mail
    /// waits for a master that hangs.
    ///
    /// # Errors
    /// [`Unsure`] when the master is away, and what is known from before does not say yes.
    pub async fn still_has(&self, address: &str, account: i64) -> Result<bool, Unsure> {
        let is_it = |entry: Entry| matches!(entry, Entry::Account(found) if found.id == account);
        let Ok(address) = address.parse::<Address>() else { return Ok(false) };
        let remembered = self.inner.cache.remembered(&address_key(&address));
        Ok(remembered.is_some_and(is_it)
            || is_it(self.entry(&address).await?)
            || is_it(self.inner.master.address(&address).await?))
    }

    /// The quarantine's account.
    ///
    /// # Errors
    /// [`Unsure`] when there is none, or the master is away.
    pub async fn held_account(&self) -> Result<Arc<Account>, Unsure> {
        self.system("quarantine").await
    }

    async fn system(&self, local: &str) -> Result<Arc<Account>, Unsure> {
        let asked = self.inner.master.system(local);
        match self.inner.cache.get(format!("system:{local}"), asked).await? {
            Entry::Account(account) => Ok(account),
            _ => Err(Unsure(format!("there is no system account {local}; `chainmail setup` makes it"))),
        }
    }

    async fn entry(&self, address: &Address) -> Result<Entry, Unsure> {
        self.inner.cache.get(address_key(address), self.inner.master.address(address)).await
    }

    async fn domain(&self, name: &str) -> Result<Option<Domain>, Unsure> {
        match self.inner.cache.get(format!("domain:{name}"), self.inner.master.domain_of_ours(name)).await? {
            Entry::Domain(domain) => Ok(Some(domain)),
            _ => Ok(None),
        }
    }

    async fn step(&self, address: &str) -> Result<StepTo, Unsure> {
        // RFC 5321 section 4.5.1: postmaster, without a domain or in any domain of ours, always receives.
        if address.eq_ignore_ascii_case("postmaster") {
            return Ok(StepTo::Account(self.system("postmaster").await?, None));
        }
        let Ok(address) = address.parse::<Address>() else { return Ok(StepTo::Unknown) };
        let Some(domain) = self.domain(address.domain()).await? else { return Ok(StepTo::NotLocal) };
        let (address, domain) = if domain.alias_of.is_empty() {
            (address, domain)
        } else {
            let main =
                self.domain(&domain.alias_of).await?.unwrap_or(Domain { alias_of: String::new(), ..domain.clone() });
            (address.in_domain(&domain.alias_of), main)
        };
        match self.entry(&address).await? {
            Entry::Account(account) => return Ok(StepTo::Account(account, None)),
            Entry::Alias(targets) => return Ok(StepTo::Addresses(targets)),
            Entry::Absent | Entry::Domain(_) => {}
        }
        if let Some((base, tag)) = address.without_tag() {
            match self.entry(&base).await? {
                Entry::Account(account) => return Ok(StepTo::Account(account, Some(tag))),
                Entry::Alias(targets) => return Ok(StepTo::Addresses(targets)),
                Entry::Absent | Entry::Domain(_) => {}
            }
        }
        if address.local() == "postmaster" {
            return Ok(StepTo::Account(self.system("postmaster").await?, None));
        }
        match domain.catch_all.parse() {
            Ok(target) => Ok(StepTo::Addresses(vec![target])),
            Err(_) => Ok(StepTo::Unknown),
        }
    }
}

fn address_key(address: &Address) -> String {
    format!("address:{address}")
}
