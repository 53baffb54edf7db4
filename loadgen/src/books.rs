//! The books: what was sent to whom and what the chain said, against what was found in the mailboxes. Pure.
//!
//! They fail closed: a mail that was kept by a chain's word and is in no mailbox is lost, whatever the reason.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use crate::mix::Kind;

/// Examples that a report names of each kind of breach.
const EXAMPLES: usize = 10;

/// What the chain said of a mail for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// No final word: it is not in a mailbox, or it is, once.
    Unsent,
    /// 250.
    Kept,
    /// 5xx.
    Refused,
}

/// Where a copy was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the mailbox.
    Inbox,
    /// Among the junk.
    Junk,
    /// In a mailbox into which no mail is delivered.
    Elsewhere,
    /// In the quarantine.
    Held,
}

/// A copy that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Where.
    pub(crate) place: Place,
    /// What it is now; none when its mark does not say so.
    pub(crate) digest: Option<blake3::Hash>,
}

#[derive(Debug, Clone)]
struct Sent {
    digest: blake3::Hash,
    kind: Kind,
    fates: BTreeMap<String, Fate>,
}

/// Everything that was sent, by mail and recipient.
#[derive(Debug, Default)]
pub(crate) struct Books {
    sent: HashMap<String, Sent>,
    found: HashMap<(String, String), Vec<Copy>>,
    /// Everybody to whom something could have been sent: who got nothing may have what is another's.
    people: BTreeSet<String>,
    /// Messages without a mark, in all that was read.
    pub(crate) unmarked: u64,
    /// Replies that were no, and how often.
    pub(crate) replies: BTreeMap<String, u64>,
}

/// How it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Into mailboxes.
    pub(crate) delivered: u64,
    /// Of these, into Junk.
    pub(crate) junk: u64,
    /// Of these, without a final word to the sender.
    pub(crate) unheard: u64,
    /// In the quarantine.
    pub(crate) held: u64,
    /// Refused.
    pub(crate) refused: u64,
    /// Of these and of those in the quarantine, neither spam nor a virus.
    pub(crate) clean_withheld: u64,
    /// Never kept, and nowhere.
    pub(crate) unsent: u64,
    /// Kept, and nowhere.
    pub(crate) lost: u64,
    /// In more places than one, or more than once.
    pub(crate) doubled: u64,
    /// Not as they were sent.
    pub(crate) altered: u64,
    /// Refused, or sent to somebody else, or for another mailbox, and there all the same.
    pub(crate) stray: u64,
    /// Viruses in mailboxes.
    pub(crate) infected: u64,
    /// Messages without a mark. They may be mail of others; or a second copy, so damaged that nobody knows of what.
    pub(crate) unmarked: u64,
    /// Some of those that must not be.
    pub(crate) examples: Vec<String>,
}

impl Books {
    /// Notes a mail before it is sent.
    pub(crate) fn begin(&mut self, id: &str, digest: blake3::Hash, kind: Kind, to: impl IntoIterator<Item = String>) {
        let new = || Sent { digest, kind, fates: BTreeMap::new() };
        let sent = self.sent.entry(id.to_owned()).or_insert_with(new);
        for to in to {
            sent.fates.entry(to).or_insert(Fate::Unsent);
        }
    }

    /// Notes the chain's final word.
    pub(crate) fn end(&mut self, id: &str, to: &str, fate: Fate) {
        if let Some(known) = self.sent.get_mut(id).and_then(|sent| sent.fates.get_mut(to)) {
            *known = fate;
        }
    }

    /// What the chain said of a mail for one recipient.
    pub(crate) fn fate(&self, id: &str, to: &str) -> Option<&Fate> {
        self.sent.get(id).and_then(|sent| sent.fates.get(to))
    }

    /// Notes a reply that was no.
    pub(crate) fn reply(&mut self, reply: &str) {
        *self.replies.entry(reply.to_owned()).or_default() += 1;
    }

    /// Notes a copy; one that is not of this run is none of ours.
    pub(crate) fn found(&mut self, id: &str, to: &str, copy: Copy) {
        if self.sent.contains_key(id) {
            self.found.entry((id.to_owned(), to.to_owned())).or_default().push(copy);
        }
    }

    /// Who waits for how many copies that were kept and have not been seen.
    pub(crate) fn missing(&self, seen: &HashSet<(String, String)>) -> HashMap<String, usize> {
        let mut missing = HashMap::new();
        for (id, sent) in &self.sent {
            for (to, fate) in &sent.fates {
                if *fate == Fate::Kept && !seen.contains(&(id.clone(), to.clone())) {
                    *missing.entry(to.clone()).or_default() += 1;
                }
            }
        }
        missing
    }

    /// How it stands.
    pub(crate) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict { unmarked: self.unmarked, ..Verdict::default() };
        for (id, sent) in &self.sent {
            for (to, fate) in &sent.fates {
                let copies = self.found.get(&(id.clone(), to.clone())).map_or(&[][..], Vec::as_slice);
                verdict.count(&format!("{id} for {to}"), sent, fate, copies);
            }
        }
        let is_ours = |id: &str, to: &str| self.sent.get(id).is_some_and(|sent| sent.fates.contains_key(to));
        for ((id, to), _) in self.found.iter().filter(|((id, to), _)| !is_ours(id, to)) {
            verdict.stray += 1;
            verdict.example(format!("{id} strayed to {to}"));
        }
        verdict
    }

    /// What stands of a mail for one recipient, as a line: mail, digest, kind, recipient, fate.
    pub(crate) fn line(&self, id: &str, to: &str) -> String {
        let (Some(sent), Some(fate)) = (self.sent.get(id), self.fate(id, to)) else { return String::new() };
        format!("{id}\t{}\t{:?}\t{to}\t{fate:?}\n", sent.digest.to_hex(), sent.kind)
    }

    /// Notes what such a line says. A later line of the same mail and recipient is the one that holds.
    pub(crate) fn read(&mut self, line: &str) -> Option<()> {
        let mut parts = line.split('\t');
        let (id, digest, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let (to, fate, None) = (parts.next()?, parts.next()?, parts.next()) else { return None };
        let digest = blake3::Hash::from_hex(digest).ok()?;
        let kind = [Kind::Plain, Kind::Spam, Kind::Virus].into_iter().find(|known| format!("{known:?}") == kind)?;
        let fate = [Fate::Unsent, Fate::Kept, Fate::Refused].into_iter().find(|known| format!("{known:?}") == fate)?;
        self.begin(id, digest, kind, [to.to_owned()]);
        self.end(id, to, fate);
        Some(())
    }

    /// Somebody whose mailboxes are to be read, whether or not anything was sent there.
    pub(crate) fn person(&mut self, address: &str) {
        self.people.insert(address.to_owned());
    }

    /// Everybody whose mailboxes are to be read.
    pub(crate) fn people(&self) -> BTreeSet<String> {
        self.sent.values().flat_map(|sent| sent.fates.keys().cloned()).chain(self.people.iter().cloned()).collect()
    }

    /// How many contents were sent to how many recipients in all: a storm is one content.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.sent.len(), self.sent.values().map(|sent| sent.fates.len()).sum())
    }
}

impl Verdict {
    /// Whether the chain has given its word, and kept it. Where no mail was taken or refused, nothing is proved.
    pub(crate) fn is_good(&self) -> bool {
        self.delivered + self.held + self.refused > 0 && self.is_kept()
    }

    fn is_kept(&self) -> bool {
        [self.lost, self.doubled, self.altered, self.stray, self.infected] == [0; 5]
    }

    fn count(&mut self, name: &str, sent: &Sent, fate: &Fate, copies: &[Copy]) {
        match (fate, copies) {
            (Fate::Kept, []) => {
                self.lost += 1;
                self.example(format!("{name} is lost"));
            }
            (Fate::Unsent, []) => self.unsent += 1,
            (Fate::Refused, []) => {
                self.refused += 1;
                self.clean_withheld += u64::from(sent.kind == Kind::Plain);
            }
            (Fate::Refused, _) => {
                self.stray += 1;
                self.example(format!("{name} was refused, and is in a mailbox"));
            }
            (fate, [_, more @ ..]) => {
                let best = copies.iter().map(|copy| copy.place).min();
                let is_held = best == Some(Place::Held);
                self.held += u64::from(is_held);
                self.clean_withheld += u64::from(is_held && sent.kind == Kind::Plain);
                self.delivered += u64::from(!is_held);
                self.junk += u64::from(best == Some(Place::Junk));
                self.unheard += u64::from(*fate == Fate::Unsent);
                if !more.is_empty() {
                    self.doubled += 1;
                    self.example(format!("{name} is there {} times", copies.len()));
                }
            }
        }
        if *fate != Fate::Refused && copies.iter().any(|copy| copy.place == Place::Elsewhere) {
            self.stray += 1;
            self.example(format!("{name} is in another mailbox than INBOX and Junk"));
        }
        if copies.iter().any(|copy| copy.digest != Some(sent.digest)) {
            self.altered += 1;
            self.example(format!("{name} was altered"));
        }
        if sent.kind == Kind::Virus && copies.iter().any(|copy| copy.place != Place::Held) {
            self.infected += 1;
            self.example(format!("{name} is a virus, and in a mailbox"));
        }
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text);
        }
    }

    /// For machines.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "good": self.is_good(), "delivered": self.delivered, "junk": self.junk, "unheard": self.unheard,
            "held": self.held, "refused": self.refused, "clean_withheld": self.clean_withheld, "unsent": self.unsent,
            "lost": self.lost, "doubled": self.doubled, "altered": self.altered, "stray": self.stray,
            "infected": self.infected, "unmarked": self.unmarked, "examples": self.examples,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &[u8] = b"as sent";

    fn copy(place: Place, body: &[u8]) -> Copy {
        Copy { place, digest: (!body.is_empty()).then(|| blake3::hash(body)) }
    }

    /// One mail to a@x with this fate, and what was found of it.
    fn books(kind: Kind, fate: Fate, copies: &[(&str, Place, &[u8])]) -> Books {
        let mut books = Books::default();
        books.begin("r.1", blake3::hash(GOOD), kind, ["a@x".to_owned()]);
        books.end("r.1", "a@x", fate);
        for (to, place, body) in copies {
            books.found("r.1", to, copy(*place, body));
        }
        books
    }

    #[track_caller]
    fn check(fate: Fate, copies: &[(&str, Place, &[u8])], good: bool, want: &str) {
        let verdict = books(Kind::Plain, fate.clone(), copies).verdict();
        let told = verdict.to_json();
        let names = told.as_object().unwrap().iter().filter(|(_, value)| value.as_u64().is_some_and(|count| count > 0));
        assert_eq!(names.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" "), want);
        assert_eq!((verdict.is_good(), verdict.is_kept(), verdict.examples.is_empty()), (good, kept(want), kept(want)));
        // What the books say is the same after they were written and read.
        let (written, mut again) = (books(Kind::Plain, fate, copies), Books::default());
        again.read(written.line("r.1", "a@x").trim_end()).unwrap();
        assert_eq!(again.line("r.1", "a@x"), written.line("r.1", "a@x"));
    }

    fn kept(want: &str) -> bool {
        !["lost", "doubled", "altered", "stray", "infected"].iter().any(|breach| want.contains(breach))
    }

    #[test]
    fn every_way_it_can_stand() {
        use Place::{Elsewhere, Held, Inbox, Junk};
        check(Fate::Kept, &[("a@x", Inbox, GOOD)], true, "delivered");
        check(Fate::Kept, &[("a@x", Junk, GOOD)], true, "delivered junk");
        check(Fate::Kept, &[("a@x", Held, GOOD)], true, "clean_withheld held");
        check(Fate::Refused, &[], true, "clean_withheld refused");
        // Nothing was lost; but neither was anything proved.
        check(Fate::Unsent, &[], false, "unsent");
        check(Fate::Unsent, &[("a@x", Inbox, GOOD)], true, "delivered unheard");
        check(Fate::Kept, &[], false, "lost");
        check(Fate::Kept, &[("a@x", Inbox, GOOD), ("a@x", Inbox, GOOD)], false, "delivered doubled");
        check(Fate::Kept, &[("a@x", Inbox, GOOD), ("a@x", Junk, GOOD)], false, "delivered doubled");
        check(Fate::Unsent, &[("a@x", Inbox, GOOD), ("a@x", Inbox, GOOD)], false, "delivered doubled unheard");
        check(Fate::Kept, &[("a@x", Inbox, b"as it came")], false, "altered delivered");
        check(Fate::Kept, &[("a@x", Held, b"as it came")], false, "altered clean_withheld held");
        check(Fate::Kept, &[("a@x", Inbox, b"")], false, "altered delivered");
        check(Fate::Refused, &[("a@x", Inbox, GOOD)], false, "stray");
        check(Fate::Refused, &[("a@x", Held, GOOD)], false, "stray");
        check(Fate::Refused, &[("a@x", Elsewhere, GOOD)], false, "stray");
        check(Fate::Kept, &[("a@x", Elsewhere, GOOD)], false, "delivered stray");
        check(Fate::Kept, &[("a@x", Inbox, GOOD), ("a@x", Elsewhere, GOOD)], false, "delivered doubled stray");
        check(Fate::Kept, &[("b@x", Inbox, GOOD)], false, "lost stray");
        check(Fate::Kept, &[("a@x", Inbox, GOOD), ("b@x", Inbox, GOOD)], false, "delivered stray");
    }

    #[test]
    fn a_virus_belongs_in_no_mailbox() {
        let verdict = |place| books(Kind::Virus, Fate::Kept, &[("a@x", place, GOOD)]).verdict();
        assert!(verdict(Place::Held).is_good());
        assert_eq!(verdict(Place::Held).clean_withheld, 0);
        for place in [Place::Inbox, Place::Junk, Place::Elsewhere] {
            assert_eq!((verdict(place).is_good(), verdict(place).infected), (false, 1));
        }
    }

    #[test]
    fn what_others_have_sent_is_none_of_ours() {
        let mut books = books(Kind::Plain, Fate::Kept, &[("a@x", Place::Inbox, GOOD)]);
        books.found("other.1", "a@x", copy(Place::Inbox, b""));
        assert!(books.verdict().is_good());
        books.found.clear();
        assert_eq!(books.verdict().lost, 1);
    }

    #[test]
    fn what_is_missing_is_what_was_kept() {
        for (fate, want) in [(Fate::Kept, 1), (Fate::Refused, 0), (Fate::Unsent, 0)] {
            let books = books(Kind::Plain, fate, &[]);
            assert_eq!(books.missing(&HashSet::new()).values().sum::<usize>(), want);
            assert!(books.missing(&[("r.1".to_owned(), "a@x".to_owned())].into()).is_empty());
        }
    }

    #[test]
    fn lines_that_are_none() {
        let digest = blake3::hash(GOOD).to_hex();
        let line = format!("r.1\t{digest}\tPlain\ta@x\tKept");
        assert!(Books::default().read(&line).is_some());
        for bad in
            ["a", "r.1\txx\tPlain\ta@x\tKept", "r.1\t\tPlain\ta@x\tKept", &line[..line.len() - 1], &format!("{line}\t")]
        {
            assert!(Books::default().read(bad).is_none(), "{bad}");
        }
    }
}
