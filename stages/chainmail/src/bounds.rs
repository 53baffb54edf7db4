//! What a process may take at most, told at its start: memory and file descriptors.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use runtime::config::ByteSize;
use runtime::dns;

use crate::config::Config;
use crate::run::Part;

/// Bytes that a connection takes when it is open and says nothing, as measured with their buffers.
const GATE_CONNECTION: u64 = 20 << 10;
const ACCEPT_CONNECTION: u64 = 40 << 10;
const READER_CONNECTION: u64 = 40 << 10;
/// Descriptors beside the connections: databases, packs, segments, the broker, the scanner.
const RESERVE: u64 = 1_000;

fn runs(part: Part, other: Part) -> bool {
    part == Part::All || part == other
}

fn if_runs(part: Part, other: Part, number: u64) -> u64 {
    if runs(part, other) { number } else { 0 }
}

/// Whether this part looks at mail as that filter, which the chain may go without.
fn filters_here(config: &Config, part: Part, filter: Part, name: &str) -> bool {
    runs(part, filter) && config.chain.iter().any(|stage| stage == name)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The parts of the bound on memory: every cache, queue and connection has one.
fn memory(config: &Config, part: Part) -> [(&'static str, u64); 10] {
    let (accept, store, in_hand) = (&config.accept, &config.store, config.broker.in_hand.0);
    let connections = |number: usize, each: u64| count(number).saturating_mul(each);
    let filters = [(Part::Score, "score"), (Part::Scan, "scan")];
    let filters = filters.iter().filter(|(filter, name)| filters_here(config, part, *filter, name));
    // Accept sends mails round again, in the same measure.
    let stages = count(filters.count()) + if_runs(part, Part::Store, 1) + if_runs(part, Part::Accept, 1);
    [
        ("bodies", config.broker.cache.0),
        ("mail in hand", stages.saturating_mul(in_hand)),
        ("directory", config.directory.cache.0),
        ("gate", if_runs(part, Part::Gate, connections(config.gate.connections, GATE_CONNECTION))),
        ("accept", if_runs(part, Part::Accept, accept.memory.0 + connections(accept.connections, ACCEPT_CONNECTION))),
        ("journal", if_runs(part, Part::Accept, accept.journal.max_mails.saturating_mul(300))),
        ("readers", if_runs(part, Part::Store, connections(store.connections, READER_CONNECTION))),
        ("logins", if_runs(part, Part::Store, connections(config.directory.logins_at_once, directory::HASH_MOST))),
        ("views", if_runs(part, Part::Store, store.views.0)),
        ("texts", if_runs(part, Part::Store, store.most_of_texts())),
    ]
}

/// How many descriptors are needed at most: a client that the gate passes on has two there, and one in accept. Whoever
/// asks DNS has one for each time that a question is sent, and a sender whose servers are silent chooses how many are
/// open: were there too few, nobody's answers would be known.
fn descriptors(config: &Config, part: Part) -> u64 {
    let (gate, accept) = match part {
        Part::All => within_one_process(config),
        part => (if_runs(part, Part::Gate, 2), if_runs(part, Part::Accept, 1)),
    };
    let lists = if_runs(part, Part::Gate, count(config.gate.lists.len()) * dns::SOCKETS);
    let is_scored = filters_here(config, part, Part::Score, "score");
    let scored = if is_scored { count(config.score.work.workers * score::QUESTIONS) * dns::SOCKETS } else { 0 };
    RESERVE
        + (gate + lists) * count(config.gate.connections)
        + accept * count(config.accept.connections)
        + if_runs(part, Part::Store, count(config.store.connections))
        + scored
}

/// Descriptors for each connection of the gate and of accept where both are in one process: the gate hands its client
/// over, unless accept may be elsewhere, and then no other gate connects to accept, unless that listens for other
/// machines.
fn within_one_process(config: &Config) -> (u64, u64) {
    let listen = &config.accept.listen;
    let is_handed_over = config.gate.accept.iter().all(|node| listen.contains(node));
    let is_alone = is_handed_over && listen.iter().all(|address| address.ip().is_loopback());
    (if is_handed_over { 1 } else { 2 }, if is_alone { 0 } else { 1 })
}

/// Tells both, and takes as many descriptors as the system gives.
///
/// # Errors
/// When the system does not say how many it gives.
pub(crate) fn tell(config: &Config, part: Part) -> anyhow::Result<()> {
    let bounds = memory(config, part);
    let sum = bounds.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let parts = bounds.map(|(name, bytes)| format!("{name} {}", ByteSize(bytes >> 20 << 20))).join(", ");
    tracing::info!(most = %ByteSize(sum >> 20 << 20), parts, "memory is bounded");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = descriptors(config, part);
    if soft < needed.min(hard) {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard)?;
    }
    if hard < needed {
        tracing::warn!(
            needed,
            given = hard,
            "the configured connections and look-ups need more file descriptors than this process is given: raise its \
             limit (LimitNOFILE=, ulimit -n), or lower the numbers of connections and of workers"
        );
    } else {
        tracing::info!(needed, given = soft.max(needed), "file descriptors");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_part_counts_its_own() {
        let (config, _) = crate::config::load(None).unwrap();
        let sum = |part| memory(&config, part).iter().map(|(_, bytes)| bytes).sum::<u64>();
        let shared = config.broker.cache.0 + config.directory.cache.0;
        assert_eq!(sum(Part::Deliver), shared);
        assert_eq!(sum(Part::Scan), shared + config.broker.in_hand.0);
        assert!(sum(Part::All) > sum(Part::Store) + sum(Part::Accept) - 2 * shared);
        let (mut more, before) =
            (config.clone(), memory(&config, Part::Store).map(|(_, bytes)| bytes).iter().sum::<u64>());
        more.directory.logins_at_once += 1;
        let after = memory(&more, Part::Store).map(|(_, bytes)| bytes).iter().sum::<u64>();
        assert_eq!(after - before, 256 << 20, "an imported hash");
        assert_eq!(descriptors(&config, Part::Deliver), RESERVE);
        let gate = u64::try_from(config.gate.connections).unwrap();
        assert_eq!(descriptors(&config, Part::Gate), RESERVE + 2 * gate);
    }

    /// A sender with silent servers used up what there was, and everybody's look-ups failed.
    #[test]
    fn who_asks_dns_has_a_descriptor_for_each_question() {
        let settings = "stages: {gate: {lists: [{zone: a.example}, {zone: b.example}]}}";
        let (mut config, _) = crate::config::parse(settings).unwrap();
        (config.gate.connections, config.score.work.workers) = (100, 10);
        assert_eq!(descriptors(&config, Part::Gate), RESERVE + 100 * (2 + 6));
        assert_eq!(descriptors(&config, Part::Score), RESERVE + 10 * 13 * 3);
        config.chain.retain(|stage| stage != "score");
        assert_eq!(descriptors(&config, Part::Score), RESERVE);
    }

    /// The gate of the same process hands its client over: one socket, where three were counted.
    #[test]
    fn who_is_handed_over_has_one_descriptor() {
        #[track_caller]
        fn check(nodes: &[&str], listen: &[&str], want: u64) {
            let (mut config, _) = crate::config::load(None).unwrap();
            config.gate.accept = nodes.iter().map(|node| node.parse().unwrap()).collect();
            config.accept.listen = listen.iter().map(|address| address.parse().unwrap()).collect();
            (config.gate.connections, config.accept.connections, config.store.connections) = (100, 10, 5);
            config.chain.clear();
            assert_eq!(descriptors(&config, Part::All), RESERVE + want + 5);
        }
        check(&["127.0.0.1:2526"], &["127.0.0.1:2526"], 100);
        check(&["192.0.2.1:2526"], &["127.0.0.1:2526", "192.0.2.1:2526"], 110);
        check(&["127.0.0.1:2526", "192.0.2.2:2526"], &["127.0.0.1:2526"], 210);
    }
}
