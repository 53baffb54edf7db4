//! The books: what was sent to whom and what the chain said, against what was found in the mailboxes. Pure.
//!
//! They fail closed: a mail that was kept by a chain's word and is in no mailbox is lost, whatever the reason.

use std::collections::{BTreeMap, HashMap};

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
    /// In the quarantine.
    Held,
}

/// A copy that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Where.
    pub(crate) place: Place,
    /// What it is now.
    pub(crate) digest: blake3::Hash,
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
    /// Never kept, and nowhere.
    pub(crate) unsent: u64,
    /// Kept, and nowhere.
    pub(crate) lost: u64,
    /// In more places than one, or more than once.
    pub(crate) doubled: u64,
    /// Not as they were sent.
    pub(crate) altered: u64,
    /// Refused, or sent to somebody else, and in a mailbox all the same.
    pub(crate) stray: u64,
    /// Viruses in mailboxes.
    pub(crate) infected: u64,
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

    /// How many copies were kept and are not found yet.
    pub(crate) fn missing(&self) -> usize {
        let fates = self.sent.iter().flat_map(|(id, sent)| sent.fates.iter().map(move |(to, fate)| (id, to, fate)));
        fates.filter(|(id, to, fate)| **fate == Fate::Kept && !self.is_found(id, to)).count()
    }

    fn is_found(&self, id: &str, to: &str) -> bool {
        self.found.contains_key(&(id.to_owned(), to.to_owned()))
    }

    /// How it stands.
    pub(crate) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
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

    /// The books as lines: mail, digest, kind, recipient, fate.
    pub(crate) fn to_lines(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for (id, sent) in &self.sent {
            for (to, fate) in &sent.fates {
                lines.push(format!("{id}\t{}\t{:?}\t{to}\t{fate:?}\n", sent.digest.to_hex(), sent.kind));
            }
        }
        lines.sort();
        lines.concat()
    }

    /// The books of an earlier run.
    ///
    /// # Errors
    /// The line that is none.
    pub(crate) fn from_lines(lines: &str) -> Result<Self, String> {
        let mut books = Self::default();
        for line in lines.lines() {
            let mut parts = line.split('\t');
            let mut next = || parts.next().unwrap_or_default();
            let (id, digest, kind, to, fate) = (next(), next(), next(), next(), next());
            let digest = blake3::Hash::from_hex(digest).map_err(|_| line.to_owned())?;
            let kind = match kind {
                "Plain" => Kind::Plain,
                "Spam" => Kind::Spam,
                "Virus" => Kind::Virus,
                _ => return Err(line.to_owned()),
            };
            let fate = match fate {
                "Kept" => Fate::Kept,
                "Refused" => Fate::Refused,
                "Unsent" => Fate::Unsent,
                _ => return Err(line.to_owned()),
            };
            books.begin(id, digest, kind, [to.to_owned()]);
            books.end(id, to, fate);
        }
        Ok(books)
    }

    /// Everybody to whom something was sent.
    pub(crate) fn people(&self) -> Vec<String> {
        let people = self.sent.values().flat_map(|sent| sent.fates.keys().cloned());
        people.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// How many mails were sent to how many recipients in all.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.sent.len(), self.sent.values().map(|sent| sent.fates.len()).sum())
    }
}

impl Verdict {
    /// Whether the chain has kept its word.
    pub(crate) fn is_good(&self) -> bool {
        [self.lost, self.doubled, self.altered, self.stray, self.infected] == [0; 5]
    }

    fn count(&mut self, name: &str, sent: &Sent, fate: &Fate, copies: &[Copy]) {
        match (fate, copies) {
            (Fate::Kept, []) => {
                self.lost += 1;
                self.example(format!("{name} is lost"));
            }
            (Fate::Unsent, []) => self.unsent += 1,
            (Fate::Refused, []) => self.refused += 1,
            (Fate::Refused, _) => {
                self.stray += 1;
                self.example(format!("{name} was refused, and is in a mailbox"));
            }
            (fate, [first, more @ ..]) => {
                match first.place {
                    Place::Held => self.held += 1,
                    Place::Inbox | Place::Junk => self.delivered += 1,
                }
                self.junk += u64::from(first.place == Place::Junk);
                self.unheard += u64::from(*fate == Fate::Unsent);
                if !more.is_empty() {
                    self.doubled += 1;
                    self.example(format!("{name} is there {} times", copies.len()));
                }
            }
        }
        if copies.iter().any(|copy| copy.digest != sent.digest) {
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
            "held": self.held, "refused": self.refused, "unsent": self.unsent, "lost": self.lost,
            "doubled": self.doubled, "altered": self.altered, "stray": self.stray, "infected": self.infected,
            "examples": self.examples,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &[u8] = b"as sent";

    fn copy(place: Place, body: &[u8]) -> Copy {
        Copy { place, digest: blake3::hash(body) }
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
        assert_eq!((verdict.is_good(), verdict.examples.is_empty()), (good, good), "{verdict:?}");
        // What the books say is the same after they were written and read.
        let again = Books::from_lines(&books(Kind::Plain, fate, copies).to_lines()).unwrap();
        assert_eq!(
            again.to_lines(),
            books(Kind::Plain, Fate::Unsent, &[]).to_lines().replace("Unsent", again_fate(&again))
        );
    }

    fn again_fate(books: &Books) -> &'static str {
        match books.sent["r.1"].fates["a@x"] {
            Fate::Kept => "Kept",
            Fate::Refused => "Refused",
            Fate::Unsent => "Unsent",
        }
    }

    #[test]
    fn every_way_it_can_stand() {
        use Place::{Held, Inbox, Junk};
        check(Fate::Kept, &[("a@x", Inbox, GOOD)], true, "delivered");
        check(Fate::Kept, &[("a@x", Junk, GOOD)], true, "delivered junk");
        check(Fate::Kept, &[("a@x", Held, GOOD)], true, "held");
        check(Fate::Refused, &[], true, "refused");
        check(Fate::Unsent, &[], true, "unsent");
        check(Fate::Unsent, &[("a@x", Inbox, GOOD)], true, "delivered unheard");
        check(Fate::Kept, &[], false, "lost");
        check(Fate::Kept, &[("a@x", Inbox, GOOD), ("a@x", Inbox, GOOD)], false, "delivered doubled");
        check(Fate::Kept, &[("a@x", Inbox, GOOD), ("a@x", Junk, GOOD)], false, "delivered doubled");
        check(Fate::Unsent, &[("a@x", Inbox, GOOD), ("a@x", Inbox, GOOD)], false, "delivered doubled unheard");
        check(Fate::Kept, &[("a@x", Inbox, b"as it came")], false, "altered delivered");
        check(Fate::Kept, &[("a@x", Held, b"as it came")], false, "altered held");
        check(Fate::Refused, &[("a@x", Inbox, GOOD)], false, "stray");
        check(Fate::Kept, &[("b@x", Inbox, GOOD)], false, "lost stray");
        check(Fate::Kept, &[("a@x", Inbox, GOOD), ("b@x", Inbox, GOOD)], false, "delivered stray");
    }

    #[test]
    fn a_virus_belongs_in_no_mailbox() {
        let verdict = |place| books(Kind::Virus, Fate::Kept, &[("a@x", place, GOOD)]).verdict();
        assert!(verdict(Place::Held).is_good());
        for place in [Place::Inbox, Place::Junk] {
            assert_eq!((verdict(place).is_good(), verdict(place).infected), (false, 1));
        }
    }

    #[test]
    fn what_others_have_sent_is_none_of_ours() {
        let mut books = books(Kind::Plain, Fate::Kept, &[("a@x", Place::Inbox, GOOD)]);
        books.found("other.1", "a@x", copy(Place::Inbox, b""));
        assert!(books.verdict().is_good());
        assert_eq!(books.missing(), 0);
        books.found.clear();
        assert_eq!((books.missing(), books.verdict().lost), (1, 1));
    }

    #[test]
    fn books_that_are_none() {
        for bad in ["a", "r.1\txx\tPlain\ta@x\tKept", "r.1\t\tPlain\ta@x\tKept"] {
            assert!(Books::from_lines(bad).is_err());
        }
    }
}
