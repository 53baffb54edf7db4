//! Doubtful mails of the other accept nodes: a sender whose connection broke may come again to another node, and that
//! node must not make a second copy (RFC 1047).
//!
//! Before a node keeps a mail it tells the others by what the mail is recognised, and when its sender went on it tells
//! them that it is over. Whoever is sent such a mail meanwhile asks the node that took it up: if that node has it, the
//! answer is 250; if it has not, the mail is a new one; if it cannot be asked, the sender is told to come again, since
//! either answer could be wrong. What is told is kept in memory, bounded; a word lost on the way may cost a second
//! copy, never a mail. A node that knows of no other tells nobody.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use proto::{MailId, Millis, NodeName, subjects};
use runtime::broker::Broker;
use runtime::clock;
use runtime::tasks::Tasks;

use crate::arrival::Keys;
use crate::intake::Intake;
use crate::journal::Doubt;
use crate::recognise::Lasts;

/// How often a node says that it is there.
const HELLO: Duration = Duration::from_secs(20);
/// A node that was not heard of for so long is no longer told anything.
const SILENT: Duration = Duration::from_secs(600);
/// How long the node that took a mail up may think before its sender is told to come again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Marks in one message.
const MARKS: usize = 1000;

/// A mail is not in doubt here.
pub(crate) const NO: &[u8] = b"no";

/// What a node says of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Hello = 0,
    TakenUp = 1,
    Over = 2,
    /// The marks of single recipients of mails that have several. A build that does not know the word leaves it at
    /// that.
    PartsTakenUp = 3,
}

/// What another node makes of a mail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Other {
    /// Nobody else has it.
    Nobody,
    /// It is kept there, under this id.
    Keeps(MailId),
    /// This node took it up, and cannot say.
    Unsure(NodeName),
}

/// What is known of the other nodes.
#[derive(Debug, Default)]
struct Known {
    /// When each was heard of last, and the number of its process.
    nodes: HashMap<NodeName, (Millis, u64)>,
    wholes: Marks,
    /// Of single recipients. Whoever sends to very many must not push out the mails of others.
    parts: Marks,
}

/// Marks, bounded.
#[derive(Debug, Default)]
struct Marks {
    by: HashMap<Doubt, Mark>,
    /// Each mark once by when it came in, and some that are over.
    order: VecDeque<(Millis, Doubt)>,
}

/// Who has taken a mail up.
#[derive(Debug)]
struct Mark {
    node: NodeName,
    /// When that was said last.
    said: Millis,
    /// As what it stands in the order.
    placed: Millis,
}

impl Known {
    fn forget(&mut self, now: Millis, keep: Duration, most: usize) {
        self.wholes.forget(now, keep, most);
        self.parts.forget(now, keep, most);
    }
}

impl Marks {
    fn take_up(&mut self, mark: Doubt, node: &NodeName, now: Millis) {
        // What is said again keeps its place: it would push the others out.
        let placed = self.by.get(&mark).map(|mark| mark.placed);
        if placed.is_none() {
            self.order.push_back((now, mark));
        }
        self.by.insert(mark, Mark { node: node.clone(), said: now, placed: placed.unwrap_or(now) });
    }

    fn is_over(&mut self, mark: &Doubt, node: &NodeName) {
        if self.by.get(mark).is_some_and(|mark| mark.node == *node) {
            self.by.remove(mark);
        }
    }

    /// Forgets what is too old, and what is too much. What was said again meanwhile is as old as that.
    fn forget(&mut self, now: Millis, keep: Duration, most: usize) {
        let is_old = |at: Millis| now.since(at) > keep;
        while self.by.len() > most || self.order.front().is_some_and(|(at, _)| is_old(*at)) {
            let is_surplus = self.by.len() > most;
            let Some((at, mark)) = self.order.pop_front() else { break };
            match self.by.get_mut(&mark).filter(|mark| mark.placed == at) {
                Some(known) if !is_surplus && !is_old(known.said) => {
                    known.placed = known.said;
                    self.order.push_back((known.said, mark));
                }
                Some(_) => drop(self.by.remove(&mark)),
                None => {}
            }
        }
        // What is over leaves its place in the order behind; those are swept when they are the most.
        if self.order.len() > 2 * self.by.len() + 1000 {
            self.order.retain(|(at, mark)| self.by.get(mark).is_some_and(|mark| mark.placed == *at));
        }
    }
}

/// The other accept nodes.
#[derive(Debug)]
pub(crate) struct Peers {
    own: NodeName,
    /// Tells this process from an earlier one of the same node, which knew what this one does not.
    process: u64,
    most: usize,
    keep: Duration,
    known: Mutex<Known>,
}

impl Peers {
    /// Remembers `most` marks, each for `keep`.
    pub(crate) fn new(own: NodeName, most: usize, keep: Duration) -> Self {
        let process = clock::now().0;
        Self { own, process, most, keep, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody else has taken this mail up, and has it. What was said longer ago than this is as good as
    /// forgotten.
    pub(crate) async fn look(&self, broker: &Broker, mark: &Doubt, lasts: Lasts) -> Other {
        let Some(node) = self.holder(mark, lasts, clock::patient()) else { return Other::Nobody };
        let asked = broker.ask(subjects::ask_doubtful(&node), Bytes::copy_from_slice(mark), PATIENCE).await;
        let answer = asked.unwrap_or_default();
        match <[u8; 16]>::try_from(answer.as_ref()) {
            Ok(id) => Other::Keeps(MailId::from_bytes(id)),
            Err(_) if answer.as_ref() == NO => Other::Nobody,
            Err(_) => Other::Unsure(node),
        }
    }

    fn holder(&self, mark: &Doubt, lasts: Lasts, now: Millis) -> Option<NodeName> {
        let mut known = self.known();
        known.forget(now, self.keep, self.most);
        let found = [&known.wholes, &known.parts].into_iter().filter_map(|marks| marks.by.get(mark));
        let mark = found.max_by_key(|mark| mark.said)?;
        (now.since(mark.said) <= self.keep && lasts.covers(mark.said, now)).then(|| mark.node.clone())
    }

    /// Tells the others, before the mail is kept: returns when the broker has it.
    pub(crate) async fn take_up(&self, broker: &Broker, keys: &Keys) {
        if self.has_others(clock::patient()) && broker.is_connected() {
            let said = self.taken_up(&[keys.whole], &keys.each);
            if let Err(error) = broker.announce_all(subjects::DOUBTFUL, said).await {
                tracing::debug!(%error, "an announcement may not have been sent");
            }
        }
    }

    fn taken_up(&self, wholes: &[Doubt], parts: &[Doubt]) -> Vec<Bytes> {
        let wholes = wholes.chunks(MARKS).map(|marks| self.encode(Said::TakenUp, marks));
        wholes.chain(parts.chunks(MARKS).map(|marks| self.encode(Said::PartsTakenUp, marks))).collect()
    }

    /// Tells the others that nobody will ask for this mail again.
    pub(crate) async fn over(&self, broker: &Broker, marks: &[Doubt]) {
        if self.has_others(clock::patient()) && broker.is_connected() {
            for marks in marks.chunks(MARKS) {
                broker.notify(subjects::DOUBTFUL.to_owned(), self.encode(Said::Over, marks)).await;
            }
        }
    }

    fn has_others(&self, now: Millis) -> bool {
        self.known().nodes.values().any(|(heard, _)| now.since(*heard) < SILENT)
    }

    /// Takes in what a node said. Gives true when this process of it was not known.
    fn hear(&self, said: Said, node: NodeName, process: u64, marks: &[Doubt], now: Millis) -> bool {
        if node == self.own {
            return false;
        }
        let mut known = self.known();
        for mark in marks {
            match said {
                Said::TakenUp => known.wholes.take_up(*mark, &node, now),
                Said::PartsTakenUp => known.parts.take_up(*mark, &node, now),
                Said::Over => {
                    known.wholes.is_over(mark, &node);
                    known.parts.is_over(mark, &node);
                }
                Said::Hello => {}
            }
        }
        // Also a node that takes no mail itself, and so never asks, remembers no more than that.
        known.forget(now, self.keep, self.most);
        known.nodes.insert(node, (now, process)).is_none_or(|(_, before)| before != process)
    }

    fn encode(&self, said: Said, marks: &[Doubt]) -> Bytes {
        encode(said, &self.own, self.process, marks)
    }
}

/// Speaks with the other nodes until the shutdown.
///
/// # Errors
/// When a subscription ends.
pub(crate) async fn talk(intake: Arc<Intake>, tasks: Tasks) -> anyhow::Result<()> {
    let (broker, peers) = (&intake.broker, &intake.peers);
    let mut heard = broker.subscribe(subjects::DOUBTFUL.to_owned()).await?;
    let mut asked = broker.subscribe(subjects::ask_doubtful(&intake.node)).await?;
    let mut hello = tokio::time::interval(HELLO);
    let mut epoch = broker.epoch();
    loop {
        tokio::select! {
            () = tasks.stopping() => return Ok(()),
            _ = hello.tick() => {
                broker.notify(subjects::DOUBTFUL.to_owned(), peers.encode(Said::Hello, &[])).await;
            }
            // What was said while the connection was away was not heard.
            changed = epoch.changed() => {
                changed?;
                tell_all(&intake).await;
            }
            message = heard.next() => {
                let Some(message) = message else { anyhow::bail!("the subscription to doubtful mails ended") };
                let Some((said, node, process, marks)) = decode(&message.payload) else {
                    tracing::warn!("what another accept node said cannot be read");
                    continue;
                };
                if peers.hear(said, node, process, &marks, clock::patient()) {
                    tell_all(&intake).await;
                }
            }
            message = asked.next() => {
                let Some(message) = message else { anyhow::bail!("the subscription to questions ended") };
                let Some(reply) = message.reply else { continue };
                let answer = Doubt::try_from(message.payload.as_ref()).map(|mark| intake.says_of(&mark));
                broker.reply(reply, answer.unwrap_or_default()).await;
            }
        }
    }
}

/// Tells a node that has just come, or all after a lost connection, what is in doubt here.
async fn tell_all(intake: &Intake) {
    let (wholes, parts) = intake.journal.doubts();
    let hello = intake.peers.encode(Said::Hello, &[]);
    for said in std::iter::once(hello).chain(intake.peers.taken_up(&wholes, &parts)) {
        intake.broker.notify(subjects::DOUBTFUL.to_owned(), said).await;
    }
}

/// A byte for what is said, the length of the node's name and the name, the number of its process, then the marks.
fn encode(said: Said, node: &NodeName, process: u64, marks: &[Doubt]) -> Bytes {
    let name = node.as_str().as_bytes();
    let mut out = BytesMut::with_capacity(10 + name.len() + 32 * marks.len());
    out.put_u8(said as u8);
    out.put_u8(u8::try_from(name.len()).expect("a node's name is short"));
    out.put_slice(name);
    out.put_u64_le(process);
    for mark in marks {
        out.put_slice(mark);
    }
    out.freeze()
}

fn decode(bytes: &[u8]) -> Option<(Said, NodeName, u64, Vec<Doubt>)> {
    let (&[said, length], rest) = bytes.split_first_chunk()?;
    let said =
        [Said::Hello, Said::TakenUp, Said::Over, Said::PartsTakenUp].into_iter().find(|word| *word as u8 == said)?;
    let (name, marks) = rest.split_at_checked(length.into())?;
    let node = std::str::from_utf8(name).ok()?.parse().ok()?;
    let (process, marks) = marks.split_first_chunk()?;
    let (marks, rest) = marks.as_chunks::<32>();
    rest.is_empty().then(|| (said, node, u64::from_le_bytes(*process), marks.to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn what_is_said_is_understood() {
        for (said, marks) in [
            (Said::Hello, vec![]),
            (Said::TakenUp, vec![[1; 32], [2; 32]]),
            (Said::Over, vec![[3; 32]]),
            (Said::PartsTakenUp, vec![[4; 32]]),
        ] {
            let bytes = encode(said, &node("mx1"), 77, &marks);
            assert_eq!(decode(&bytes), Some((said, node("mx1"), 77, marks)));
            for length in 0..bytes.len() {
                let _ = decode(&bytes[..length]);
            }
        }
        for odd in [&b""[..], b"\x01", b"\x09\x03mx1", b"\x01\x09mx1", b"\x01\x03mx1", b"\x01\x03mx112345678short"] {
            assert_eq!(decode(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn marks_are_taken_up_over_and_forgotten() {
        let peers = Peers::new(node("own"), 2, Duration::from_secs(10));
        let at = |seconds: u64| Millis(1_000_000 + seconds * 1000);
        let holder = |mark: u8, seconds| {
            let lasts = Lasts::Named(Duration::from_secs(60));
            peers.holder(&[mark; 32], lasts, at(seconds))
        };
        assert!(!peers.hear(Said::TakenUp, node("own"), 1, &[[9; 32]], at(0)), "one's own words");
        assert_eq!(holder(9, 0), None);
        assert!(peers.hear(Said::TakenUp, node("mx2"), 1, &[[1; 32]], at(0)));
        assert!(!peers.hear(Said::TakenUp, node("mx2"), 1, &[[2; 32]], at(5)));
        assert_eq!(holder(1, 5), Some(node("mx2")));
        peers.hear(Said::Over, node("mx3"), 1, &[[1; 32]], at(5));
        assert_eq!(holder(1, 5), Some(node("mx2")), "nobody speaks for another");
        let bare = Lasts::Bare(Duration::from_secs(3));
        assert_eq!(peers.holder(&[1; 32], bare, at(3)), None, "what it says does not matter any more");
        assert_eq!(peers.holder(&[1; 32], bare, at(2)), Some(node("mx2")));
        assert_eq!(holder(1, 11), None, "too old");
        peers.hear(Said::Over, node("mx2"), 1, &[[2; 32]], at(11));
        assert_eq!(holder(2, 11), None);
        for number in 3..6 {
            peers.hear(Said::TakenUp, node("mx2"), 1, &[[number; 32]], at(12));
        }
        // Its sender came again after so long: that is another mail, with a time of its own.
        peers.hear(Said::TakenUp, node("mx2"), 1, &[[5; 32]], at(20));
        assert_eq!(holder(5, 23), Some(node("mx2")));
        assert_eq!(holder(4, 23), None);
        assert_eq!(holder(5, 31), None);
        assert!(!peers.hear(Said::Hello, node("mx2"), 1, &[], at(12)));
        assert!(peers.hear(Said::Hello, node("mx2"), 2, &[], at(12)), "it was started anew and has forgotten all");
    }

    /// A node that was taken out of the mail's way remembered all that its neighbours did not hear the end of.
    #[test]
    fn marks_are_bounded_also_where_nobody_asks() {
        let peers = Peers::new(node("own"), 10, Duration::from_secs(10));
        let marks: Vec<Doubt> = (0..50).map(|number| [number; 32]).collect();
        let hear = |said, marks: &[Doubt], second: u64| peers.hear(said, node("mx2"), 1, marks, Millis(second * 1000));
        let left = || {
            let known = peers.known();
            (known.wholes.by.len(), known.parts.by.len())
        };
        hear(Said::TakenUp, &marks[..9], 0);
        hear(Said::PartsTakenUp, &marks[9..], 0);
        assert_eq!(left(), (9, 10), "those of single recipients push out none of the others");
        // What is over and comes again is as young as that.
        hear(Said::Over, &marks[..1], 0);
        hear(Said::TakenUp, &marks[..1], 1);
        hear(Said::TakenUp, &marks[20..22], 1);
        assert_eq!(left().0, 10);
        let is_known = |mark: usize| peers.known().wholes.by.contains_key(&marks[mark]);
        assert_eq!([0, 1].map(is_known), [true, false]);
        hear(Said::Over, &marks, 1);
        assert_eq!(left(), (0, 0));
        for number in 0..3000_u32 {
            let mut mark = [0; 32];
            mark[..4].copy_from_slice(&number.to_le_bytes());
            hear(Said::TakenUp, &[mark], 1);
            hear(Said::Over, &[mark], 1);
        }
        assert!(peers.known().wholes.order.len() <= 1001);
        hear(Said::TakenUp, &marks[..5], 2);
        hear(Said::Hello, &[], 13);
        assert_eq!(left(), (0, 0), "too old");
    }
}
