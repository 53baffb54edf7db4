//! The whole of `pipeline.yaml`: read, checked, and printed as it was understood.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, bail};
use proto::{NodeName, subjects};
use runtime::config::{ByteSize, Entry, Section, Sheet};
use runtime::{broker, telemetry, tls};

/// A configuration that has been checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The name of this machine's accept and store nodes.
    pub(crate) node: NodeName,
    /// What we call ourselves in greetings and Received fields.
    pub(crate) hostname: String,
    /// The domain of a first run.
    pub(crate) first_domain: String,
    /// The filters between accept and deliver, in the order of flow.
    pub(crate) chain: Vec<String>,
    /// Where the admin server listens.
    pub(crate) admin: SocketAddr,
    /// How long a shutdown may take.
    pub(crate) grace: std::time::Duration,
    /// Logging.
    pub(crate) log: telemetry::Config,
    /// Certificate and key.
    pub(crate) tls: tls::Config,
    /// The broker.
    pub(crate) broker: broker::Config,
    /// The directory.
    pub(crate) directory: directory::Config,
    /// The gate.
    pub(crate) gate: gate::config::Config,
    /// Accept.
    pub(crate) accept: accept::config::Config,
    /// The spam filter.
    pub(crate) score: score::config::Config,
    /// The scanner.
    pub(crate) scan: scan::config::Config,
    /// Delivery.
    pub(crate) deliver: deliver::config::Config,
    /// The store.
    pub(crate) store: store::Config,
    /// Where everything is kept that has no place of its own.
    pub(crate) var: PathBuf,
}

/// The file that is read when none is named.
const USUAL: &str = "pipeline.yaml";

/// Reads a file, or the usual one; without either, everything has its default.
///
/// # Errors
/// Every mistake in the file, a line each.
pub(crate) fn load(path: Option<&Path>) -> anyhow::Result<(Config, Vec<Entry>)> {
    let text = match path {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        None if Path::new(USUAL).exists() => {
            std::fs::read_to_string(USUAL).with_context(|| format!("reading {USUAL}"))?
        }
        None => String::new(),
    };
    parse(&text)
}

/// Checks the text of a configuration.
///
/// # Errors
/// Every mistake in it, a line each.
pub(crate) fn parse(text: &str) -> anyhow::Result<(Config, Vec<Entry>)> {
    let value = if text.trim().is_empty() {
        serde_json::Value::Null
    } else {
        serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("the file is not YAML: {error}"))?
    };
    let sheet = Rc::new(RefCell::new(Sheet::default()));
    let config = read(Section::root(value, Rc::clone(&sheet)));
    let sheet = sheet.take();
    if !sheet.problems.is_empty() {
        bail!("the configuration is wrong:\n{}", sheet.problems);
    }
    Ok((config, sheet.entries))
}

fn read(mut root: Section) -> Config {
    let var = root.file("var", "var", "The folder for everything that has no place of its own.");
    let node = node(&mut root);
    let mut stages = root.section("stages");
    let mut config = Config {
        node,
        hostname: root.text(
            "hostname",
            "localhost",
            "What we call ourselves in greetings and Received fields: the name that the world's MX record points to.",
        ),
        first_domain: root.text(
            "first_domain",
            "example.org",
            "On a first run on loopback, this domain is made, with alice and bob to try it out.",
        ),
        chain: chain(&mut root),
        admin: root.section("admin").only_listen(),
        grace: root
            .span("grace", "30s", "1s"..="10min", "How long a shutdown may take: what was begun is finished within it.")
            .0,
        log: finished(root.section("log"), telemetry::Config::read),
        tls: finished(root.section("tls"), |section| tls::Config::read(section, &var)),
        broker: finished(root.section("broker"), broker::Config::read),
        directory: directory::Config::read(root.section("directory"), &var),
        gate: gate::config::Config::read(stages.section("gate")),
        accept: accept::config::Config::read(stages.section("accept"), &var),
        score: score::config::Config::read(stages.section("score")),
        scan: scan::config::Config::read(stages.section("scan"), &var),
        deliver: deliver::config::Config::read(stages.section("deliver")),
        store: store::Config::read(stages.section("store"), &var),
        var,
    };
    stages.finish();
    config.store.message = config.accept.limits.message;
    // Or one large mail fills the stream for all others, and may never fit.
    let least = config.accept.limits.message.saturating_mul(4);
    if config.broker.bodies_bytes.0 < least {
        let least = ByteSize(least);
        root.wrong(
            "broker",
            format_args!("bodies_bytes must be at least {least}: four times stages.accept.limits.message"),
        );
    }
    root.finish();
    config
}

fn node(root: &mut Section) -> NodeName {
    let text =
        root.text("node", "node1", "The name of this machine's accept and store nodes; no two machines share one.");
    text.parse().unwrap_or_else(|error| {
        root.wrong("node", error);
        usual_node()
    })
}

fn usual_node() -> NodeName {
    "node1".parse().expect("the usual name follows the rules for names")
}

/// The filters that are known, each once. A program of the operator's own takes part under its own name.
fn chain(root: &mut Section) -> Vec<String> {
    let chain =
        root.texts("chain", &["score", "scan"], "The filters between accept and deliver, in the order of flow.");
    for (index, stage) in chain.iter().enumerate() {
        let reserved = ["gate", "accept", subjects::DELIVER_STAGE, subjects::STORE_STAGE, "ended", "dead", "bodies"];
        if reserved.contains(&stage.as_str()) || stage.parse::<NodeName>().is_err() {
            root.wrong("chain", format_args!("{stage:?} cannot be the name of a filter"));
        } else if chain[..index].contains(stage) {
            root.wrong("chain", format_args!("{stage:?} stands in it twice"));
        }
    }
    if !chain.iter().any(|stage| stage == "scan") {
        root.wrong("chain", "without `scan` mail would reach mailboxes unscanned");
    }
    chain
}

fn finished<T>(mut section: Section, read: impl FnOnce(&mut Section) -> T) -> T {
    let value = read(&mut section);
    section.finish();
    value
}

/// A section with nothing but an address.
trait OnlyListen {
    fn only_listen(self) -> SocketAddr;
}

impl OnlyListen for Section {
    fn only_listen(mut self) -> SocketAddr {
        let address = self.address(
            "listen",
            "127.0.0.1:8025",
            "Where /live, /ready and /metrics are served. They need no password: not for the world.",
        );
        self.finish();
        address
    }
}

/// The checked form, as `chainmail check` prints it: YAML with every default filled in.
pub(crate) fn print(entries: &[Entry]) -> String {
    let mut lines = String::new();
    for entry in entries {
        lines.push_str(&format!("{}: {}\n", entry.path, if entry.value.is_empty() { "\"\"" } else { &entry.value }));
    }
    lines
}

/// The reference of every field, in the order of flow, as `ops/config.md` holds it.
///
/// # Errors
/// None: the defaults follow their own rules.
pub(crate) fn reference() -> anyhow::Result<String> {
    let mut text = String::from(
        "# Everything that can be configured\n\nMade by `chainmail check --reference`; not edited by hand. A file \
         names only what differs from these defaults.\nLengths of time and sizes carry their units: `30s`, `5min`, \
         `25MiB`. Paths lie below the folder in which\nChainmail runs. A list of sections, like `stages.gate.lists`, \
         has no defaults: its fields are described where\n`pipeline.yaml` shows one.\n\n| key | default | allowed | \
         what it is for |\n|---|---|---|---|\n",
    );
    for entry in parse("")?.1 {
        let shown = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
        let (default, range) = (shown(&entry.default), shown(&entry.range));
        text.push_str(&format!("| `{}` | {default} | {range} | {} |\n", entry.path, entry.doc.replace('|', "\\|")));
    }
    Ok(text)
}

impl Config {
    /// Every address on which the world could reach us.
    pub(crate) fn listeners(&self) -> Vec<SocketAddr> {
        let (gate, store) = (&self.gate.listen, &self.store);
        [gate, &self.accept.listen, &store.listen.imap, &store.listen.imaps, &store.listen.pop3, &store.listen.pop3s]
            .into_iter()
            .flatten()
            .copied()
            .chain([self.admin])
            .collect()
    }

    /// The stage behind accept.
    pub(crate) fn first_stage(&self) -> String {
        self.chain.first().cloned().unwrap_or_else(|| subjects::DELIVER_STAGE.to_owned())
    }

    /// The virus scanner, if the chain has it.
    pub(crate) fn scanner(&self) -> Option<String> {
        self.chain.iter().find(|stage| *stage == "scan").cloned()
    }

    /// The stage behind a filter.
    pub(crate) fn next_stage(&self, stage: &str) -> String {
        let behind = self.chain.iter().skip_while(|name| *name != stage).nth(1);
        behind.cloned().unwrap_or_else(|| subjects::DELIVER_STAGE.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_empty_file_is_a_whole_configuration() {
        let (config, entries) = parse("").unwrap();
        assert_eq!((config.first_stage().as_str(), config.next_stage("scan").as_str()), ("score", "deliver"));
        assert!(config.listeners().iter().all(|address| address.ip().is_loopback()));
        assert!(print(&entries).contains("stages.gate.listen: [127.0.0.1:2525]\n"));
    }

    #[test]
    fn the_chain_is_followed() {
        let (config, _) = parse("chain: [own, scan, after]").unwrap();
        let next = |stage| config.next_stage(stage);
        assert_eq!(
            (config.first_stage(), next("own"), next("scan"), next("after")),
            ("own".into(), "scan".into(), "after".into(), "deliver".into())
        );
    }

    #[test]
    fn every_mistake_is_told() {
        let text = "node: a b\nchain: [deliver]\nstages: {scan: {deadline: 5}, sacn: {}}\nbroker: {replicas: 9}\n";
        let told = parse(text).unwrap_err().to_string();
        let paths: Vec<_> = told.lines().skip(1).filter_map(|line| line.split(':').next()).collect();
        assert_eq!(paths, ["node", "chain", "chain", "broker.replicas", "stages.scan.deadline", "stages.sacn"]);
    }
}
