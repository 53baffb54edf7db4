//! What the server has promised to anybody, and what therefore must be so: written by all clients, each before and
//! after what it does.

use std::collections::{BTreeMap, BTreeSet};

use super::view::View;

/// A message that somebody was told of with OK.
#[derive(Debug)]
pub struct Entry {
    pub marker: String,
    /// Flags whose state is known. One that is being written, or whose writing broke off, is not.
    pub flags: BTreeMap<String, bool>,
    /// Who alone writes its flags, but for the keywords of others.
    pub owner: usize,
    /// Somebody has asked for its end.
    pub may_go: bool,
}

/// A mailbox.
#[derive(Debug, Default)]
pub struct Book {
    uidvalidity: u32,
    uidnext: u32,
    modseq: u64,
    pub entries: BTreeMap<u32, Entry>,
    /// Which message a UID is, whether or not its client has heard its OK already.
    markers: BTreeMap<u32, String>,
    /// What somebody was told to be gone.
    gone: BTreeSet<u32>,
}

/// All promises.
#[derive(Debug, Default)]
pub struct Ledger {
    pub books: BTreeMap<String, Book>,
    /// Messages that are being put somewhere, or were when the connection broke.
    pub maybe: BTreeSet<String>,
    /// Messages that were being moved when the connection broke: each is in one mailbox or the other.
    pub moving: BTreeSet<String>,
    /// The UIDs that were told of each name with each UIDVALIDITY.
    pub eras: BTreeMap<String, BTreeSet<u32>>,
}

/// What was promised at the moment when somebody asked for a mailbox.
#[derive(Debug)]
pub struct Promise {
    there: BTreeSet<u32>,
    gone: BTreeSet<u32>,
    uidnext: u32,
}

impl Ledger {
    /// How many messages somebody was told of.
    pub fn made(&self) -> usize {
        self.books.values().map(|book| book.entries.len()).sum()
    }

    pub fn book(&mut self, mailbox: &str) -> &mut Book {
        self.books.entry(mailbox.to_owned()).or_default()
    }

    /// One more message, whose UID the client was told.
    pub fn register(&mut self, mailbox: &str, uid: u32, entry: Entry) -> Result<(), String> {
        let marker = entry.marker.clone();
        self.maybe.remove(&marker);
        self.named(mailbox, uid, &marker)?;
        let book = self.book(mailbox);
        book.uidnext = book.uidnext.max(uid + 1);
        if book.gone.contains(&uid) && !entry.may_go {
            return Err(format!("{mailbox}: {uid} is gone, and nobody asked for it"));
        }
        book.entries.insert(uid, entry);
        Ok(())
    }

    /// A UID stands for one message for ever.
    pub fn named(&mut self, mailbox: &str, uid: u32, marker: &str) -> Result<(), String> {
        let known = self.book(mailbox).markers.entry(uid).or_insert_with(|| marker.to_owned());
        if known == marker { Ok(()) } else { Err(format!("{mailbox}: {uid} was {known} and now is {marker}")) }
    }

    /// A client was told that a message is gone.
    pub fn gone(&mut self, mailbox: &str, uid: u32) -> Result<(), String> {
        let book = self.book(mailbox);
        book.gone.insert(uid);
        match book.entries.get(&uid) {
            Some(entry) if !entry.may_go => Err(format!("{mailbox}: {uid} is gone, and nobody asked for it")),
            _ => Ok(()),
        }
    }

    pub fn promise(&mut self, mailbox: &str) -> Promise {
        let book = self.book(mailbox);
        let there = book.entries.iter().filter(|(_, entry)| !entry.may_go).map(|(uid, _)| *uid).collect();
        Promise { there, gone: book.gone.clone(), uidnext: book.uidnext }
    }

    /// Compares a mailbox just selected, with the UIDs read, with what was promised before.
    pub fn selected(&mut self, mailbox: &str, view: &View, promise: &Promise) -> Result<(), String> {
        let book = self.book(mailbox);
        if book.uidvalidity != 0 && book.uidvalidity != view.uidvalidity {
            return Err(format!("{mailbox}: UIDVALIDITY was {} and now is {}", book.uidvalidity, view.uidvalidity));
        }
        book.uidvalidity = view.uidvalidity;
        if view.uidnext < promise.uidnext {
            return Err(format!("{mailbox}: UIDNEXT is {}, and was {}", view.uidnext, promise.uidnext));
        }
        book.uidnext = book.uidnext.max(view.uidnext);
        if let Some(uid) = view.uids().intersection(&promise.gone).next() {
            return Err(format!("{mailbox}: {uid} was gone, and is there again"));
        }
        // One that somebody asked to end since then may have ended.
        let may_go = |uid: &u32| book.entries.get(uid).is_some_and(|entry| entry.may_go);
        match promise.there.difference(&view.uids()).find(|uid| !may_go(uid)) {
            Some(uid) => Err(format!("{mailbox}: {uid} is lost")),
            None => Ok(()),
        }
    }

    /// MODSEQ as anybody was told: it never goes back, across all sessions one after the other.
    pub fn modseq(&mut self, mailbox: &str, before: u64, now: u64) -> Result<(), String> {
        let book = self.book(mailbox);
        book.modseq = book.modseq.max(now);
        if now < before { Err(format!("{mailbox}: HIGHESTMODSEQ was {before} and now is {now}")) } else { Ok(()) }
    }

    pub fn highest_modseq(&mut self, mailbox: &str) -> u64 {
        self.book(mailbox).modseq
    }

    /// Compares a mailbox with everything that was promised, when nobody does anything any more.
    pub fn final_state(&self, mailbox: &str, truth: &View) -> Result<(), String> {
        let Some(book) = self.books.get(mailbox) else { return Ok(()) };
        for row in &truth.rows {
            let (uid, marker) = row.uid.zip(row.marker.as_ref()).ok_or("a message without a UID or a subject")?;
            let Some(entry) = book.entries.get(&uid) else {
                if self.maybe.contains(marker) {
                    continue;
                }
                return Err(format!("{mailbox}: nobody was told of {uid}, {marker}"));
            };
            for (flag, is_set) in &entry.flags {
                if row.flags.contains(flag) != *is_set {
                    return Err(format!("{mailbox}: {flag} of {uid} should be {is_set}; it has {:?}", row.flags));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::Numbers;
    use super::*;
    use crate::imaptest::item::parse;

    fn entry(marker: &str, may_go: bool) -> Entry {
        let flags = BTreeMap::from([("\\seen".to_owned(), true)]);
        Entry { marker: marker.to_owned(), flags, owner: 0, may_go }
    }

    fn view(messages: &[(u32, &str, &str)]) -> View {
        let mut view = View::default();
        let mut hear = |reply: String| drop(view.hear(&parse(reply.as_bytes()), Numbers::Move).unwrap());
        hear(format!("{} EXISTS", messages.len()));
        for (at, (uid, marker, flags)) in messages.iter().enumerate() {
            let subject = format!("Subject: {marker}");
            hear(format!(
                "{} FETCH (UID {uid} FLAGS ({flags}) BODY[HEADER] {{{}}}\r\n{subject})",
                at + 1,
                subject.len()
            ));
        }
        hear("OK [UIDVALIDITY 7] x".to_owned());
        hear("OK [UIDNEXT 10] x".to_owned());
        view
    }

    /// Three messages: the first stays, the second may go, the third was seen to be gone. The fourth broke off.
    #[track_caller]
    fn check(messages: &[(u32, &str, &str)], wrong: &str) {
        let mut ledger = Ledger::default();
        ledger.maybe.insert("d".to_owned());
        for (uid, marker, may_go) in [(1, "a", false), (2, "b", true), (3, "c", true)] {
            ledger.register("m", uid, entry(marker, may_go)).unwrap();
        }
        ledger.gone("m", 3).unwrap();
        let promise = ledger.promise("m");
        let view = view(messages);
        let result = ledger.selected("m", &view, &promise).and_then(|()| ledger.final_state("m", &view));
        let why = result.err().unwrap_or_default();
        assert!(if wrong.is_empty() { why.is_empty() } else { why.contains(wrong) }, "{why}");
    }

    #[test]
    fn promises_are_held() {
        check(&[(1, "a", "\\Seen"), (2, "b", "\\Seen")], "");
        check(&[(1, "a", "\\Seen \\Flagged"), (4, "d", "")], "");
        check(&[(2, "b", "\\Seen")], "1 is lost");
        check(&[(1, "a", "")], "\\seen of 1 should be true");
        check(&[(1, "a", "\\Seen"), (3, "c", "\\Seen")], "3 was gone");
        check(&[(1, "a", "\\Seen"), (4, "e", "")], "nobody was told of 4");
    }

    #[test]
    fn nothing_goes_by_itself_and_no_uid_changes_its_message() {
        let mut ledger = Ledger::default();
        ledger.register("m", 1, entry("a", false)).unwrap();
        assert!(ledger.named("m", 1, "b").is_err());
        assert!(ledger.gone("m", 1).is_err());
        ledger.gone("m", 2).unwrap();
        assert!(ledger.register("m", 2, entry("b", false)).is_err());
        let promise = ledger.promise("m");
        let mut low = view(&[]);
        low.uidnext = 2;
        assert!(ledger.selected("m", &low, &promise).is_err());
    }
}
