//! Which names a LIST is about: those of mailboxes, those that are subscribed to, and all above them, in their order.
//!
//! There may be very many: each of fifteen thousand names may have thirty others above it. So each name is gone through
//! once for all the names above it, none of these is copied, and the lines for them are made in portions.

use std::collections::BTreeMap;

use crate::imap::names::Pattern;
use crate::imap::question::Mailbox;

/// What is known of a name.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// The index of its mailbox.
    mailbox: Option<usize>,
    pub(super) has_children: bool,
    pub(super) has_subscribed: bool,
    /// Something below it is subscribed to and not listed itself.
    pub(super) has_hidden: bool,
    is_listed: bool,
}

/// A name that is listed.
#[derive(Debug)]
pub(super) struct Name {
    /// The index of a mailbox whose name begins with it, and where it ends there.
    whose: usize,
    end: usize,
    pub(super) known: Known,
}

impl Name {
    pub(super) fn name<'a>(&self, mailboxes: &'a [Mailbox]) -> &'a str {
        &mailboxes[self.whose].name[..self.end]
    }

    /// Its mailbox, which may be one that is only subscribed to.
    pub(super) fn mailbox<'a>(&self, mailboxes: &'a [Mailbox]) -> Option<&'a Mailbox> {
        self.known.mailbox.map(|at| &mailboxes[at])
    }
}

/// The steps that finding the names takes: each letter with each word of the patterns.
pub(super) fn steps(mailboxes: &[Mailbox], patterns: &[Pattern]) -> usize {
    let letters: usize = mailboxes.iter().map(|mailbox| mailbox.name.len()).sum();
    letters.saturating_mul(patterns.iter().map(Pattern::words).sum::<usize>().max(1))
}

/// The names that match one of the patterns.
pub(super) fn listed(mailboxes: &[Mailbox], patterns: &[Pattern]) -> Vec<Name> {
    let mut all: BTreeMap<&str, (usize, Known)> = BTreeMap::new();
    let mut is_listed = Vec::new();
    for (at, mailbox) in mailboxes.iter().enumerate() {
        is_listed.clear();
        patterns.iter().for_each(|pattern| pattern.mark(&mailbox.name, &mut is_listed));
        // Without patterns nothing is listed.
        let mut levels = is_listed.iter().copied().chain(std::iter::repeat(false));
        let ends: Vec<usize> = mailbox.name.match_indices('/').map(|(end, _)| end).collect();
        let is_hidden = mailbox.subscribed && !is_listed.get(ends.len()).copied().unwrap_or(false);
        for end in ends {
            let (_, above) = all.entry(&mailbox.name[..end]).or_insert((at, Known::default()));
            above.has_children |= mailbox.exists;
            above.has_subscribed |= mailbox.subscribed;
            above.has_hidden |= is_hidden;
            above.is_listed = levels.next().unwrap_or(false);
        }
        let (_, itself) = all.entry(&mailbox.name).or_insert((at, Known::default()));
        itself.mailbox = Some(at);
        itself.is_listed = levels.next().unwrap_or(false);
    }
    let listed = all.into_iter().filter(|(_, (_, known))| known.is_listed);
    listed.map(|(name, (whose, known))| Name { whose, end: name.len(), known }).collect()
}
