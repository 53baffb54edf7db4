//! THREAD (RFC 5256): messages as trees of who answers whom. Pure.
//!
//! Whatever the headers say, each message is in the result once: there are no loops, and a message id that several have
//! counts for the first of them. What mail of strangers can make of it has a bound: beyond so many steps no more
//! references are followed.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::facts::Facts;
use super::sort::OVERHEAD;

/// Steps that are spent on looking for loops: a tenth of a second's work, for which other sessions wait. Mail of people
/// needs some for each message.
const STEPS: usize = 10_000_000;

/// How messages are put into threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// By subject alone (section 3, ORDEREDSUBJECT).
    OrderedSubject,
    /// By who refers to whom (section 3, REFERENCES).
    References,
}

/// Messages that are to be put into threads. Texts are kept once each, by number.
#[derive(Debug)]
pub(super) struct Threading {
    algorithm: Algorithm,
    texts: HashMap<String, usize>,
    messages: Vec<Message>,
    /// What texts and references take.
    bytes: usize,
}

#[derive(Debug)]
struct Message {
    uid: u32,
    sent: i64,
    /// None if it is empty.
    subject: Option<usize>,
    is_answer: bool,
    id: Option<usize>,
    references: Vec<usize>,
}

impl Threading {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, texts: HashMap::new(), messages: Vec::new(), bytes: 0 }
    }

    /// The bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.messages) + self.bytes
    }

    /// Adds a message; they come by UID.
    pub(super) fn add(&mut self, uid: u32, facts: Facts) {
        let mut number = |text: String| {
            let (next, length) = (self.texts.len(), text.len());
            *self.texts.entry(text).or_insert_with(|| {
                self.bytes += length + OVERHEAD;
                next
            })
        };
        let Facts { sent, subject, is_answer, .. } = facts;
        let subject = if subject.is_empty() { None } else { Some(number(subject)) };
        let (id, references) = match self.algorithm {
            Algorithm::OrderedSubject => (None, Vec::new()),
            Algorithm::References => {
                (facts.id.map(&mut number), facts.references.into_iter().map(&mut number).collect::<Vec<_>>())
            }
        };
        self.bytes += size_of_val(&*references);
        self.messages.push(Message { uid, sent, subject, is_answer, id, references });
    }

    pub(super) fn thread(self) -> Forest {
        match self.algorithm {
            Algorithm::OrderedSubject => ordered_subject(self.messages),
            Algorithm::References => references(self.messages),
        }
    }
}

/// The first message of each subject, and the others as its children, all by date.
fn ordered_subject(messages: Vec<Message>) -> Forest {
    let mut forest = Forest::of(messages);
    let mut order: Vec<usize> = (0..forest.nodes.len()).collect();
    order.sort_unstable_by_key(|node| forest.date(*node));
    let mut first: HashMap<Option<usize>, usize> = HashMap::new();
    for node in order {
        let subject = forest.message(node).and_then(|message| message.subject);
        match first.get(&subject) {
            Some(root) => forest.nodes[*root].children.push(node),
            None => {
                first.insert(subject, node);
                forest.roots.push(node);
            }
        }
    }
    forest
}

fn references(messages: Vec<Message>) -> Forest {
    let mut forest = Forest::of(messages);
    forest.link();
    forest.plant();
    forest.prune();
    forest.sort_roots();
    forest.join_subjects();
    forest.sort_children();
    forest.sort_roots();
    forest
}

/// Trees.
#[derive(Debug)]
pub(super) struct Forest {
    messages: Vec<Message>,
    nodes: Vec<Node>,
    roots: Vec<usize>,
}

#[derive(Debug, Default)]
struct Node {
    /// None for a message that is not here but referred to.
    message: Option<usize>,
    parent: Option<usize>,
    children: Vec<usize>,
}

impl Forest {
    /// A node for each message, with its number.
    fn of(messages: Vec<Message>) -> Self {
        let nodes = (0..messages.len()).map(|at| Node { message: Some(at), ..Node::default() }).collect();
        Self { messages, nodes, roots: Vec::new() }
    }

    fn message(&self, node: usize) -> Option<&Message> {
        self.nodes[node].message.map(|at| &self.messages[at])
    }

    /// The message of a node, or for one that has none its first child's.
    fn speaker(&self, node: usize) -> Option<&Message> {
        self.message(node).or_else(|| self.message(*self.nodes[node].children.first()?))
    }

    /// What siblings are ordered by: the date, then the sequence number, of a message or of the first of its children.
    fn date(&self, node: usize) -> (i64, u32) {
        let of = |message: &Message| (message.sent, message.uid);
        match self.message(node) {
            Some(message) => of(message),
            None => self.nodes[node]
                .children
                .iter()
                .filter_map(|child| self.message(*child))
                .map(of)
                .min()
                .unwrap_or_default(),
        }
    }

    /// Step 1: parents, by references.
    fn link(&mut self) {
        let mut by_id: HashMap<usize, usize> = HashMap::new();
        for (node, message) in self.messages.iter().enumerate() {
            // Of several with one id the first has it, the others have none.
            if let Some(id) = message.id {
                by_id.entry(id).or_insert(node);
            }
        }
        let mut steps = STEPS;
        for at in 0..self.messages.len() {
            let mut last = None;
            for id in std::mem::take(&mut self.messages[at].references) {
                let node = *by_id.entry(id).or_insert_with(|| {
                    self.nodes.push(Node::default());
                    self.nodes.len() - 1
                });
                // (A): links that are there stay, and none makes a loop.
                if let Some(parent) = last
                    && self.nodes[node].parent.is_none()
                    && !self.is_above(node, parent, &mut steps)
                {
                    self.nodes[node].parent = Some(parent);
                }
                last = Some(node);
            }
            // (B): the last reference is the parent, whatever others have said.
            self.nodes[at].parent = None;
            self.nodes[at].parent = last.filter(|parent| !self.is_above(at, *parent, &mut steps));
        }
    }

    /// Whether a node is another one or above it. When the steps are used up, it may be.
    fn is_above(&self, node: usize, other: usize, steps: &mut usize) -> bool {
        let mut at = Some(other);
        while let Some(here) = at {
            *steps = steps.saturating_sub(1);
            if here == node || *steps == 0 {
                return true;
            }
            at = self.nodes[here].parent;
        }
        false
    }

    /// Step 2: children, and those without parents.
    fn plant(&mut self) {
        for node in 0..self.nodes.len() {
            match self.nodes[node].parent {
                Some(parent) => self.nodes[parent].children.push(node),
                None => self.roots.push(node),
            }
        }
    }

    /// Nodes, each before what is below it.
    fn downward(&self) -> Vec<usize> {
        let mut order = self.roots.clone();
        let mut at = 0;
        while let Some(node) = order.get(at) {
            order.extend_from_slice(&self.nodes[*node].children);
            at += 1;
        }
        order
    }

    /// Step 3: who has no message goes, and its children take its place; but among the roots only a single child does.
    fn prune(&mut self) {
        for node in self.downward().into_iter().rev() {
            let children = std::mem::take(&mut self.nodes[node].children);
            self.nodes[node].children = self.without_empty(children, usize::MAX);
        }
        let roots = std::mem::take(&mut self.roots);
        self.roots = self.without_empty(roots, 1);
    }

    /// Siblings, with up to so many children in the place of one without a message.
    fn without_empty(&mut self, siblings: Vec<usize>, most: usize) -> Vec<usize> {
        let mut kept = Vec::with_capacity(siblings.len());
        for node in siblings {
            if self.nodes[node].message.is_none() && self.nodes[node].children.len() <= most {
                kept.append(&mut self.nodes[node].children);
            } else {
                kept.push(node);
            }
        }
        kept
    }

    /// Step 4, and the last of step 6.
    fn sort_roots(&mut self) {
        let mut roots = std::mem::take(&mut self.roots);
        roots.sort_by_cached_key(|root| self.date(*root));
        self.roots = roots;
    }

    /// Step 5: threads with one subject become one.
    fn join_subjects(&mut self) {
        for root in self.roots.clone() {
            if self.nodes[root].message.is_none() {
                self.sort_children_of(root);
            }
        }
        let subject = |forest: &Self, root: usize| forest.speaker(root).and_then(|message| message.subject);
        // (B): for each subject the thread that the others join.
        let mut table: HashMap<usize, usize> = HashMap::new();
        for &root in &self.roots {
            let Some(subject) = subject(self, root) else { continue };
            let there = table.entry(subject).or_insert(root);
            let (is_empty, was_empty) = (self.message(root).is_none(), self.message(*there).is_none());
            let takes_over = !was_empty && (is_empty || (self.is_answer(*there) && !self.is_answer(root)));
            if takes_over {
                *there = root;
            }
        }
        // (C)
        let roots = std::mem::take(&mut self.roots);
        let mut moved = vec![false; self.nodes.len()];
        let mut instead: HashMap<usize, usize> = HashMap::new();
        for &root in &roots {
            let Some(subject) = subject(self, root) else { continue };
            let Some(&there) = table.get(&subject).filter(|there| **there != root) else { continue };
            let (is_empty, was_empty) = (self.message(root).is_none(), self.message(there).is_none());
            if is_empty && was_empty {
                let mut children = std::mem::take(&mut self.nodes[root].children);
                self.nodes[there].children.append(&mut children);
            } else if was_empty || (self.is_answer(root) && !self.is_answer(there)) {
                self.nodes[there].children.push(root);
            } else {
                self.nodes.push(Node { children: vec![there, root], ..Node::default() });
                moved.push(false);
                let both = self.nodes.len() - 1;
                instead.insert(there, both);
                table.insert(subject, both);
            }
            moved[root] = true;
        }
        let stay = roots.into_iter().filter(|root| !moved[*root]);
        self.roots = stay.map(|root| instead.get(&root).copied().unwrap_or(root)).collect();
    }

    fn is_answer(&self, node: usize) -> bool {
        self.message(node).is_some_and(|message| message.is_answer)
    }

    /// Step 6: siblings by date. Only roots may be without a message.
    fn sort_children(&mut self) {
        for node in self.downward() {
            self.sort_children_of(node);
        }
    }

    fn sort_children_of(&mut self, node: usize) {
        let mut children = std::mem::take(&mut self.nodes[node].children);
        children.sort_by_cached_key(|child| self.date(*child));
        self.nodes[node].children = children;
    }

    /// The threads as the client is told of them (section 5, `thread-data`), with the numbers that it knows.
    pub(super) fn write(&self, number: impl Fn(u32) -> u32) -> String {
        enum Step {
            Mark(&'static str),
            Node(usize),
        }
        let mut out = String::new();
        for root in &self.roots {
            let mut steps = vec![Step::Mark(")"), Step::Node(*root), Step::Mark("(")];
            while let Some(step) = steps.pop() {
                let node = match step {
                    Step::Mark(mark) => {
                        out.push_str(mark);
                        continue;
                    }
                    Step::Node(node) => node,
                };
                let children = &self.nodes[node].children;
                if let Some(message) = self.message(node) {
                    let _ = write!(out, "{}", number(message.uid));
                    if !children.is_empty() {
                        out.push(' ');
                    }
                }
                match children.as_slice() {
                    [only] => steps.push(Step::Node(*only)),
                    all => steps.extend(
                        all.iter().rev().flat_map(|child| [Step::Mark(")"), Step::Node(*child), Step::Mark("(")]),
                    ),
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
