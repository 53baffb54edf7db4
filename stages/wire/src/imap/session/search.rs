//! Searching the selected mailbox: what the rows tell is told at once, for the rest the world is asked in batches.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use imap_types::command::{Command, CommandBody};
use imap_types::core::Vec1;
use imap_types::search::SearchKey;

use super::job::{Job, Running, UidForm};
use super::messages::form;
use super::order::Order;
use super::{ImapSession, decode};
use crate::imap::extended::quoted;
use crate::imap::extended::search::{Returns, rid};
use crate::imap::question::{Answer, MessageRow, Question};
use crate::imap::search::{self, Criteria};
use crate::imap::set;

/// Messages that one question is about: some hundredths of a second of work.
pub(super) const BATCH: usize = 1000;
/// And bytes of text, unless it is one message.
const BATCH_BYTES: u64 = 32 << 20;
/// Criteria, times messages, that are judged at once where other sessions wait for it: some hundredths of a second of
/// work. The world is asked about all messages where there is more to do, and about no more with one question, for the
/// same reason.
const AT_ONCE: usize = 5_000_000;
/// What stands for a set without members: no message has this number.
const NOBODY: u32 = u32::MAX;

/// A search on its way.
#[derive(Debug)]
pub(super) struct Searching {
    criteria: Arc<Criteria>,
    /// UIDs of those whose rows leave it open. None as long as the rows have not been looked at.
    open: Option<VecDeque<u32>>,
    found: Vec<u32>,
    form: UidForm,
    returns: Option<Returns>,
    /// The order in which they are to be told, if it is not their own.
    order: Option<Order>,
}

impl Searching {
    /// Whether the next step may be to put what was found in order.
    pub(super) fn is_to_order(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.is_gathered(self.found.len()))
    }
}

impl ImapSession {
    /// Reads a command with what the codec does not know; none if there is nothing of that in it.
    pub(super) fn read_extended(&mut self) -> Option<Command<'static>> {
        self.returns = None;
        if !self.is_whole() {
            return None;
        }
        let plain = rid(self.fragments.message_bytes(), |form| self.saved(form))?;
        let utf8 = if self.tells.utf8() { quoted::rid(&plain.command) } else { None };
        let command = decode(&utf8.unwrap_or(plain.command))?;
        self.returns = plain.returns;
        Some(command)
    }

    /// What `$` stands for: those that are still there.
    fn saved(&self, form: UidForm) -> String {
        let uids = self.selected.iter().flat_map(|selected| &selected.saved).filter(|uid| self.number(**uid).is_some());
        let numbers: Vec<u32> = uids.filter_map(|uid| self.told(*uid, form)).collect();
        set::compress(if numbers.is_empty() { &[NOBODY] } else { &numbers })
    }

    /// The number by which the client knows a message.
    fn told(&self, uid: u32, form: UidForm) -> Option<u32> {
        if form == UidForm::Uid { Some(uid) } else { self.number(uid) }
    }

    pub(super) fn in_search(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            // RFC 6855 section 3: it has said that all is in UTF-8.
            CommandBody::Search { charset: Some(_), .. } if self.tells.accepts_utf8 => {
                self.mistake(&tag, "CHARSET does not go with UTF8=ACCEPT");
            }
            CommandBody::Search { charset: Some(charset), .. }
            | CommandBody::Sort { charset, .. }
            | CommandBody::Thread { charset, .. }
                if !search::knows(&charset) =>
            {
                self.done(&tag, "NO [BADCHARSET (US-ASCII UTF-8)] this charset is not known");
            }
            CommandBody::Search { criteria, uid, .. } => self.search(tag, "SEARCH", criteria, form(uid), None),
            CommandBody::Sort { sort_criteria, search_criteria, uid, .. } => {
                let order = Order::sort(sort_criteria);
                self.search(tag, "SORT", search_criteria, form(uid), Some(order));
            }
            CommandBody::Thread { algorithm, search_criteria, uid, .. } => match Order::thread(&algorithm) {
                Some(order) => self.search(tag, "THREAD", search_criteria, form(uid), Some(order)),
                None => self.mistake(&tag, "this algorithm is not known"),
            },
            _ => self.done(&tag, "NO [CANNOT] this command is not supported"),
        }
    }

    fn search(
        &mut self,
        tag: String,
        name: &'static str,
        criteria: Vec1<SearchKey<'_>>,
        form: UidForm,
        order: Option<Order>,
    ) {
        let mut reading = search::Reading { last: self.last(), texts: self.limits.search_texts };
        let read = reading.read(&SearchKey::And(criteria));
        // RFC 9051 section 6.4.4: a SEARCH that does not say what is returned wants all.
        let all = (self.tells.rev2 && name == "SEARCH").then(|| Returns { all: true, ..Returns::default() });
        let returns = self.returns.take().or(all);
        // RFC 5182 section 2.1: what is saved goes if the search fails.
        if returns.is_some_and(|returns| returns.save)
            && let Some(selected) = &mut self.selected
        {
            selected.saved = Vec::new();
        }
        match read {
            Ok(_) if order.is_some() && self.messages().len() > self.limits.sorted => {
                self.done(&tag, "NO [LIMIT] the mailbox has too many messages to be put in order");
            }
            Ok(criteria) => {
                // RFC 7162 section 3.1: from now on the client is told of them.
                self.asked_modseq(criteria.asks_modseq());
                let criteria = Arc::new(criteria);
                let job = Job::Search(Searching { criteria, open: None, found: Vec::new(), form, returns, order });
                self.running = Some(Running { tag, name, job, refreshing: false });
            }
            Err(why) => self.done(&tag, &format!("NO {why}")),
        }
    }

    /// Says whether it is known what is to be told; else a question has been put.
    pub(super) fn search_next(&mut self, searching: &mut Searching) -> bool {
        let Searching { criteria, open, found, .. } = searching;
        let weight = criteria.weight();
        let open = open.get_or_insert_with(|| {
            if weight.steps(self.messages().iter()) > AT_ONCE {
                return self.messages().iter().map(|row| row.uid).collect();
            }
            let mut open = VecDeque::new();
            for (number, row) in (1..).zip(self.messages().iter()) {
                match criteria.judge(number, &self.shown(row), |_| None) {
                    Some(true) => found.push(row.uid),
                    Some(false) => {}
                    None => open.push_back(row.uid),
                }
            }
            open
        });
        let (mut asked, mut bytes, mut steps): (Vec<(u32, MessageRow)>, u64, usize) = (Vec::new(), 0, 0);
        while let Some(uid) = open.front()
            && asked.len() < BATCH
        {
            if let Some((index, row)) = self.messages().find(*uid) {
                bytes = bytes.saturating_add(row.size);
                steps = steps.saturating_add(weight.steps(std::iter::once(row)));
                if (bytes > BATCH_BYTES || steps > AT_ONCE) && !asked.is_empty() {
                    break;
                }
                asked.push((u32::try_from(index + 1).unwrap_or(u32::MAX), self.shown(row).into_owned()));
            }
            open.pop_front();
        }
        if asked.is_empty() {
            found.sort_unstable();
            let Searching { order, found, .. } = searching;
            return order.as_mut().is_none_or(|order| self.order_next(order, found));
        }
        self.question = Some(Question::Search { criteria: Arc::clone(criteria), asked });
        false
    }

    pub(super) fn answered_of_search(&mut self, mut running: Running, answer: Answer) {
        match (&mut running.job, answer) {
            (Job::Search(searching), Answer::Found(uids)) => {
                searching.found.extend(uids);
                self.running = Some(running);
            }
            // There is room for what is gathered, or it is given back.
            (Job::Search(_), Answer::Done) => self.running = Some(running),
            (Job::Search(_), Answer::Refused) => {
                self.done(&running.tag, "NO [LIMIT] this takes too much memory to be put in order");
            }
            (Job::Search(Searching { order: Some(order), .. }), Answer::Outlines(count, outlines)) => {
                self.take_outlines(order, count, &outlines);
                self.running = Some(running);
            }
            _ => self.done(&running.tag, "NO [SERVERBUG] an answer did not fit its question"),
        }
    }

    /// The highest MODSEQ of those that are told of; none if there are none.
    fn modseq(&self, found: &[u32], returns: Option<Returns>) -> Option<u64> {
        let found = match returns {
            Some(returns) if only_ends(returns) => saved(found, returns),
            _ => found.to_vec(),
        };
        found.iter().filter_map(|uid| self.messages().find(*uid)).map(|(_, row)| row.modseq).max()
    }

    /// Tells what was found, in the way that was asked for.
    pub(super) fn put_found(&mut self, running: &Running, searching: &Searching) {
        let Searching { form, returns, order, .. } = searching;
        let found = match order {
            Some(Order::Threaded(forest)) => {
                let line = forest.write(|uid| self.told(uid, *form).unwrap_or(0));
                let space = if line.is_empty() { "" } else { " " };
                return self.put(format!("* THREAD{space}{line}\r\n"));
            }
            Some(Order::Sorted(uids)) => uids,
            _ => &searching.found,
        };
        let told: Vec<u32> = found.iter().filter_map(|uid| self.told(*uid, *form)).collect();
        let modseq = searching.criteria.asks_modseq().then(|| self.modseq(found, *returns)).flatten();
        match returns {
            None => {
                let mut line = format!("* {}", running.name);
                for number in told {
                    let _ = write!(line, " {number}");
                }
                // RFC 7162 section 3.1.5
                if let Some(modseq) = modseq {
                    let _ = write!(line, " (MODSEQ {modseq})");
                }
                self.put(line + "\r\n");
            }
            Some(returns) => {
                if returns.save
                    && let Some(selected) = &mut self.selected
                {
                    selected.saved = saved(found, *returns);
                    // `$` is a set, whatever the order.
                    selected.saved.sort_unstable();
                }
                if returns.min || returns.max || returns.all || returns.count {
                    let list = set::compress(&told);
                    self.put(extended(&running.tag, *form, *returns, &told, &list, modseq));
                }
            }
        }
    }
}

/// Whether only the ends of what was found are asked for.
fn only_ends(returns: Returns) -> bool {
    !returns.all && !returns.count && (returns.min || returns.max)
}

/// What is remembered (RFC 5182 section 2.4): all of them, unless only the ends were asked for.
fn saved(found: &[u32], returns: Returns) -> Vec<u32> {
    if !only_ends(returns) {
        return found.to_vec();
    }
    let min = found.first().filter(|_| returns.min);
    let max = found.last().filter(|_| returns.max);
    let mut ends: Vec<u32> = min.into_iter().chain(max).copied().collect();
    ends.dedup();
    ends
}

/// An ESEARCH response (RFC 4731 section 3.1) about these, in their order, which `list` has as a set.
fn extended(tag: &str, form: UidForm, returns: Returns, told: &[u32], list: &str, modseq: Option<u64>) -> String {
    let mut line = format!("* ESEARCH (TAG \"{tag}\")");
    if form == UidForm::Uid {
        line.push_str(" UID");
    }
    // RFC 5267 section 3.1: for SORT these are the first and the last.
    let (min, max) = (told.first(), told.last());
    for (name, end) in [("MIN", min.filter(|_| returns.min)), ("MAX", max.filter(|_| returns.max))] {
        if let Some(end) = end {
            let _ = write!(line, " {name} {end}");
        }
    }
    if returns.all && !told.is_empty() {
        let _ = write!(line, " ALL {list}");
    }
    if returns.count {
        let _ = write!(line, " COUNT {}", told.len());
    }
    // RFC 7162 section 3.1.10
    if let Some(modseq) = modseq {
        let _ = write!(line, " MODSEQ {modseq}");
    }
    line + "\r\n"
}
