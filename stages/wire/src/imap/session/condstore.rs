//! CONDSTORE and QRESYNC (RFC 7162): what a client is told that keeps what it has seen, and asks for what has changed
//! since.

use imap_types::command::{FetchModifier, SelectParameter};
use imap_types::extensions::enable::CapabilityEnable;
use imap_types::extensions::utf8::Utf8Kind;
use imap_types::fetch::MessageDataItemName as Item;
use imap_types::sequence::SequenceSet;

use super::ImapSession;
use super::job::{Job, Running, UidForm};
use crate::imap::question::{Answer, MessageRow, Question, View};
use crate::imap::set::{self, Set};

/// What the client has asked for, until it goes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tells {
    /// MODSEQ with the flags.
    pub(super) modseq: bool,
    /// UIDs that are gone in place of the numbers of the expunged.
    pub(super) vanished: bool,
    /// IMAP4rev2 (RFC 9051).
    pub(super) rev2: bool,
    /// UTF8=ACCEPT (RFC 6855).
    pub(super) accepts_utf8: bool,
}

impl Tells {
    /// Whether names, and what stands between quotes, are in UTF-8.
    pub(super) fn utf8(self) -> bool {
        self.rev2 || self.accepts_utf8
    }
}

/// What a client knew of a mailbox when it last had it open.
#[derive(Debug)]
pub(super) struct Known {
    uidvalidity: u32,
    modseq: u64,
    uids: Option<SequenceSet>,
}

/// A client that is told what went since a MODSEQ.
#[derive(Debug)]
pub(super) enum Since {
    /// It opens a mailbox, and is told what has changed, too. Then the command ends so.
    Opened(Known, String),
    /// It fetches.
    Fetched { set: SequenceSet, items: Vec<Item<'static>>, modseq: u64 },
}

impl ImapSession {
    pub(super) fn enable(&mut self, tag: &str, capabilities: &[CapabilityEnable<'_>]) {
        let (mut line, mut modseq) = (String::from("* ENABLED"), false);
        for capability in capabilities {
            match capability {
                CapabilityEnable::CondStore => {
                    modseq = true;
                    line.push_str(" CONDSTORE");
                }
                other if other.to_string().eq_ignore_ascii_case("QRESYNC") => {
                    (modseq, self.tells.vanished) = (true, true);
                    line.push_str(" QRESYNC");
                }
                CapabilityEnable::Utf8(Utf8Kind::Accept) => {
                    self.tells.accepts_utf8 = true;
                    line.push_str(" UTF8=ACCEPT");
                }
                other if other.to_string().eq_ignore_ascii_case("IMAP4rev2") => {
                    self.tells.rev2 = true;
                    line.push_str(" IMAP4rev2");
                }
                // RFC 5161 section 3.1: what is not known is passed over.
                _ => {}
            }
        }
        self.put(line + "\r\n");
        self.asked_modseq(modseq);
        self.done(tag, "OK ENABLE done");
    }

    /// Whoever asks for MODSEQ once is told of it from then on. With a mailbox open, it hears where that begins
    /// (RFC 7162 section 3.1).
    pub(super) fn asked_modseq(&mut self, asked: bool) {
        if !asked || self.tells.modseq {
            return;
        }
        self.tells.modseq = true;
        if let Some(selected) = &self.selected {
            let modseq = selected.modseq;
            self.put(format!("* OK [HIGHESTMODSEQ {modseq}] of all changes so far\r\n"));
        }
    }

    /// What a client says with SELECT; none, if it may not say that.
    pub(super) fn known(&mut self, parameters: Vec<SelectParameter>) -> Result<Option<Known>, &'static str> {
        let mut known = None;
        for parameter in parameters {
            match parameter {
                SelectParameter::CondStore => self.tells.modseq = true,
                SelectParameter::QResync { .. } if !self.tells.vanished => return Err("enable QRESYNC first"),
                SelectParameter::QResync { uid_validity, mod_sequence_value, known_uids, .. } => {
                    known = Some(Known {
                        uidvalidity: uid_validity.get(),
                        modseq: mod_sequence_value.get(),
                        uids: known_uids,
                    });
                }
            }
        }
        Ok(known)
    }

    /// The mailbox is open. Whoever has known it before is told what has changed before the command ends.
    pub(super) fn resync(&mut self, running: &Running, known: Option<Known>, view: &View, end: String) {
        match known {
            Some(known) if known.uidvalidity == view.uidvalidity && known.modseq < view.modseq => {
                let question = Question::Gone(known.modseq);
                self.ask(running.tag.clone(), running.name, question, Job::Since(Since::Opened(known, end)));
            }
            _ => self.done(&running.tag, &end),
        }
    }

    /// FETCH with CHANGEDSINCE, and VANISHED perhaps.
    pub(super) fn fetch_since(
        &mut self,
        tag: String,
        set: SequenceSet,
        mut items: Vec<Item<'static>>,
        form: UidForm,
        modifiers: &[FetchModifier],
    ) {
        let since = modifiers.iter().find_map(|modifier| match modifier {
            FetchModifier::ChangedSince(modseq) => Some(modseq.get()),
            FetchModifier::Vanished => None,
        });
        let vanished = modifiers.contains(&FetchModifier::Vanished);
        if vanished && (!self.tells.vanished || form == UidForm::Number || since.is_none()) {
            return self.mistake(&tag, "VANISHED goes with UID FETCH, CHANGEDSINCE and ENABLE QRESYNC");
        }
        if since.is_some() && !items.contains(&Item::ModSeq) {
            items.push(Item::ModSeq);
        }
        self.asked_modseq(items.contains(&Item::ModSeq));
        match since {
            Some(modseq) if vanished => {
                let job = Job::Since(Since::Fetched { set, items, modseq });
                self.ask(tag, "FETCH", Question::Gone(modseq), job);
            }
            Some(modseq) => self.fetch_changed(tag, &set, items, form, modseq),
            None => self.fetch(tag, &set, items, form),
        }
    }

    fn fetch_changed(&mut self, tag: String, set: &SequenceSet, items: Vec<Item<'static>>, form: UidForm, modseq: u64) {
        let is_newer = |uid: &u32| self.messages().find(*uid).is_some_and(|(_, row)| row.modseq > modseq);
        let uids = self.chosen(set, form).into_iter().filter(is_newer).collect();
        self.fetch_these(tag, uids, items);
    }

    /// What went is known, or it is not: then it is what is not there (RFC 7162 section 3.2.5.2).
    pub(super) fn answered_of_gone(&mut self, running: Running, answer: Answer) {
        let (Job::Since(since), Answer::Gone(gone)) = (running.job, answer) else {
            return self.done(&running.tag, "NO [SERVERBUG] an answer did not fit its question");
        };
        match since {
            Since::Opened(known, end) => {
                self.put_vanished(gone, known.uids.as_ref());
                let uids = known.uids.map(|uids| Set::new(&uids, self.last().1));
                let is_asked = |row: &&MessageRow| uids.as_ref().is_none_or(|uids| uids.contains(row.uid));
                let rows = self.messages().iter().filter(|row| row.modseq > known.modseq);
                let changed = rows.filter(is_asked).map(|row| row.uid).collect();
                self.tell_flags(running.tag, changed, end);
            }
            Since::Fetched { set, items, modseq } => {
                self.put_vanished(gone, Some(&set));
                self.fetch_changed(running.tag, &set, items, UidForm::Uid, modseq);
            }
        }
    }

    /// Of those that the client asks about; if it does not say which, of all that there were. Here `*` is the last that
    /// there was: were it the last that is there, nobody would hear of those that went from the end.
    fn put_vanished(&mut self, gone: Option<Vec<u32>>, asked: Option<&SequenceSet>) {
        let Some(selected) = &self.selected else { return };
        let last = selected.uidnext.saturating_sub(1);
        let asked = asked.map_or_else(|| Set::up_to(last), |asked| Set::new(asked, last));
        let messages = &selected.messages;
        let is_gone = |uid: &u32| asked.contains(*uid) && messages.find(*uid).is_none();
        let text = match gone {
            Some(mut gone) => {
                gone.retain(is_gone);
                gone.sort_unstable();
                gone.dedup();
                set::compress(&gone)
            }
            None => asked.without(messages.iter().map(|row| row.uid), selected.uidnext),
        };
        if !text.is_empty() {
            self.put(format!("* VANISHED (EARLIER) {text}\r\n"));
        }
    }
}
