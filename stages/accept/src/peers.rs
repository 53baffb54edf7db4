//! Doubtful mails of the other accept nodes: a sender whose connection broke may come again to another node, and that
//! node must not make a second copy (RFC 1047).
//!
//! Before a node keeps a mail it tells the others by what the mail is recognised, and when its sender went on it tells
//! them that it is over. Whoever is sent such a mail meanwhile asks the node that took it up: if that node has it, the
//! answer is 250; if it has not, the mail is a new one; if it cannot be asked, the sender is told to come again, since
//! either answer could be wrong. What is told is kept in memory, bounded; a word lost on the way may cost a second copy,
//! never a mail. A node that knows of no other tells nobody.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use proto::{MailId, Millis, NodeName, subjects};
use runtime::broker::Broker;
use runtime::clock;
use runtime::tasks::Tasks;

use crate::intake::Intake;
use crate::journal::Doubt;

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
}

/// What another node makes of a mail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Other {
    /// Nobody else has it.
    Nobody,
    /// It is kept there, under this id.
    Keeps(MailId),
    /// The node that took it up cannot say.
    Unsure,
}

/// What is known of the other nodes.
#[derive(Debug, Default)]
struct Known {
    /// When each was heard of last, and the number of its process.
    nodes: HashMap<NodeName, (Millis, u64)>,
    /// Who has taken a mail up, and when that was said last.
    marks: HashMap<Doubt, (NodeName, Millis)>,
    /// Each mark once, in the order in which they were said first.
    order: VecDeque<(Millis, Doubt)>,
}

impl Known {
    /// Forgets what is too old, and what is too much. What was said again meanwhile is as old as that.
    fn forget(&mut self, now: Millis, keep: Duration, most: usize) {
        let is_old = |at: Millis| now.since(at) > keep;
        while self.order.len() > most || self.order.front().is_some_and(|(at, _)| is_old(*at)) {
            let is_surplus = self.order.len() > most;
            let Some((_, mark)) = self.order.pop_front() else { break };
            match self.marks.get(&mark).map(|(_, said)| *said) {
                Some(said) if !is_surplus && !is_old(said) => self.order.push_back((said, mark)),
                _ => drop(self.marks.remove(&mark)),
            }
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

    /// Whether somebody else has taken this mail up, and has it.
    pub(crate) async fn look(&self, broker: &Broker, mark: &Doubt) -> Other {
        let Some(node) = self.holder(mark, clock::now()) else { return Other::Nobody };
        let asked = broker.ask(subjects::ask_doubtful(&node), Bytes::copy_from_slice(mark), PATIENCE).await;
        let answer = asked.unwrap_or_default();
        match <[u8; 16]>::try_from(answer.as_ref()) {
            Ok(id) => Other::Keeps(MailId::from_bytes(id)),
            Err(_) if answer.as_ref() == NO => Other::Nobody,
            Err(_) => {
                tracing::warn!(%node, "the node that took a mail up cannot say whether it has it; its sender is told to come again");
                Other::Unsure
            }
        }
    }

    fn holder(&self, mark: &Doubt, now: Millis) -> Option<NodeName> {
        let mut known = self.known();
        known.forget(now, self.keep, self.most);
        let (node, said) = known.marks.get(mark)?;
        (now.since(*said) <= self.keep).then(|| node.clone())
    }

    /// Tells the others, before the mail is kept: returns when the broker has it.
    pub(crate) async fn take_up(&self, broker: &Broker, marks: &[Doubt]) {
        if self.has_others(clock::now()) && broker.is_connected() {
            for marks in marks.chunks(MARKS) {
                broker.announce(subjects::DOUBTFUL.to_owned(), self.encode(Said::TakenUp, marks)).await;
            }
        }
    }

    /// Tells the others that nobody will ask for this mail again.
    pub(crate) async fn over(&self, broker: &Broker, marks: &[Doubt]) {
        if self.has_others(clock::now()) && broker.is_connected() {
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
                Said::TakenUp => {
                    // What is said again keeps its place: it would push the others out.
                    if known.marks.insert(*mark, (node.clone(), now)).is_none() {
                        known.order.push_back((now, *mark));
                    }
                }
                Said::Over if known.marks.get(mark).is_some_and(|(holder, _)| *holder == node) => {
                    known.marks.remove(mark);
                }
                Said::Over | Said::Hello => {}
            }
        }
        // What is over leaves its place in the order behind; those are swept when they are the most.
        if known.order.len() > 2 * known.marks.len() + 1000 {
            let Known { marks, order, .. } = &mut *known;
            order.retain(|(_, mark)| marks.contains_key(mark));
        }
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
                if peers.hear(said, node, process, &marks, clock::now()) {
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
    let say = async |said, marks: &[Doubt]| {
        intake.broker.notify(subjects::DOUBTFUL.to_owned(), intake.peers.encode(said, marks)).await;
    };
    say(Said::Hello, &[]).await;
    for marks in intake.journal.doubts().chunks(MARKS) {
        say(Said::TakenUp, marks).await;
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
    let said = [Said::Hello, Said::TakenUp, Said::Over].into_iter().find(|word| *word as u8 == said)?;
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
        for (said, marks) in
            [(Said::Hello, vec![]), (Said::TakenUp, vec![[1; 32], [2; 32]]), (Said::Over, vec![[3; 32]])]
        {
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
        assert!(!peers.hear(Said::TakenUp, node("own"), 1, &[[9; 32]], at(0)), "one's own words");
        assert_eq!(peers.holder(&[9; 32], at(0)), None);
        assert!(peers.hear(Said::TakenUp, node("mx2"), 1, &[[1; 32]], at(0)));
        assert!(!peers.hear(Said::TakenUp, node("mx2"), 1, &[[2; 32]], at(5)));
        assert_eq!(peers.holder(&[1; 32], at(5)), Some(node("mx2")));
        peers.hear(Said::Over, node("mx3"), 1, &[[1; 32]], at(5));
        assert_eq!(peers.holder(&[1; 32], at(5)), Some(node("mx2")), "nobody speaks for another");
        assert_eq!(peers.holder(&[1; 32], at(11)), None, "too old");
        peers.hear(Said::Over, node("mx2"), 1, &[[2; 32]], at(11));
        assert_eq!(peers.holder(&[2; 32], at(11)), None);
        for number in 3..6 {
            peers.hear(Said::TakenUp, node("mx2"), 1, &[[number; 32]], at(12));
        }
        // Its sender came again after so long: that is another mail, with a time of its own.
        peers.hear(Said::TakenUp, node("mx2"), 1, &[[5; 32]], at(20));
        assert_eq!(peers.holder(&[5; 32], at(23)), Some(node("mx2")));
        assert_eq!(peers.holder(&[4; 32], at(23)), None);
        assert_eq!(peers.holder(&[5; 32], at(31)), None);
        for number in 3..6 {
            peers.hear(Said::TakenUp, node("mx2"), 1, &[[number; 32]], at(12));
        }
        assert!(!peers.hear(Said::Hello, node("mx2"), 1, &[], at(12)));
        assert!(peers.hear(Said::Hello, node("mx2"), 2, &[], at(12)), "it was started anew and has forgotten all");
        let left = (3..6).filter(|&number| peers.holder(&[number; 32], at(12)).is_some()).count();
        assert_eq!(left, 2, "bounded");
    }
}
