//! SMTP, the journal, and the verdict before the 250.
//!
//! Accept takes responsibility for mail: a 250 rests on its journal's synced record, never on the broker's word. It
//! keeps each mail until every recipient has ended, sends round again what has not, and is the arbiter between a sender
//! that waits and the stages that judge. When the journal is full or the directory cannot say, senders are told to come
//! again.

mod arbiter;
mod arrival;
mod budget;
pub mod config;
mod intake;
pub mod journal;
mod peers;
mod recognise;
mod rounds;
mod serve;
mod taking;

use std::sync::Arc;

use directory::Directory;
use proto::NodeName;
use runtime::bodies::Bodies;
use runtime::broker::Broker;
use runtime::driver::Terms;
use runtime::handover::Handover;
use runtime::listener::{self, Room, Settings};
use runtime::tasks::Tasks;
use tokio_rustls::TlsAcceptor;

use arbiter::Arbiter;
use budget::Budget;
use config::Config;
use intake::Intake;
use journal::Journal;
use peers::Peers;
use serve::Desk;
use taking::Takings;

/// What accept is given by the program around it.
pub struct Surroundings {
    /// What the node calls itself in its greeting and in Received.
    pub hostname: String,
    /// The node's name.
    pub node: NodeName,
    /// The stage behind accept.
    pub first: String,
    /// The stage without whose verdict nothing is held either, if the chain has it: held mail may be released.
    pub scanner: Option<String>,
    /// The broker.
    pub broker: Broker,
    /// The bodies.
    pub bodies: Bodies,
    /// Who exists.
    pub directory: Directory,
    /// For STARTTLS.
    pub tls: Option<TlsAcceptor>,
    /// Background work.
    pub tasks: Tasks,
}

/// Opens the journal, listens, and starts everything that accept does. Gives the journal, for the books, and the way in
/// for a gate of this process.
///
/// # Errors
/// When the journal cannot be opened or an address cannot be had.
pub fn start(config: Config, around: Surroundings) -> anyhow::Result<(Journal, Handover)> {
    let (journal, recovery) = Journal::open(config.journal.clone(), around.node.as_str(), runtime::clock::now())?;
    tracing::info!(
        pending = recovery.pending,
        cut = recovery.cut,
        damaged = recovery.damage.len(),
        "the journal is open"
    );
    let settings = Settings {
        name: "accept",
        addresses: config.listen.clone(),
        // Every connection comes from a gate, which counts its clients itself.
        room: Room::new(config.connections, config.connections),
        busy: b"421 4.3.2 Too many connections; try again later\r\n",
    };
    let sockets = listener::bind(&settings)?;
    let terms = Terms {
        idle: config.idle,
        stalled: config.idle,
        // A mail may be slow: its room is its size on the disk.
        slowest: 0,
        login: config.idle,
        life: config.life,
        tls: around.tls,
        tasks: around.tasks.clone(),
    };
    let budget = Budget::new(config.memory);
    let peers = Peers::new(around.node.clone(), config.journal.doubt_most, config.journal.doubt_for);
    let intake = Arc::new(Intake {
        peers,
        takings: Takings::default(),
        config,
        hostname: around.hostname,
        node: around.node,
        journal: journal.clone(),
        arbiter: Arbiter::default(),
        refill: Budget::new(around.broker.config().in_hand),
        broker: around.broker,
        bodies: around.bodies,
        first: around.first,
        scanner: around.scanner,
    });
    let tasks = around.tasks;
    tasks.spawn_vital("journal", journal.clone().watch(tasks.clone()));
    tasks.spawn_vital("notices", rounds::notices(Arc::clone(&intake), tasks.clone()));
    tasks.spawn_vital("ends", rounds::ends(Arc::clone(&intake), tasks.clone()));
    tasks.spawn_vital("peers", peers::talk(Arc::clone(&intake), tasks.clone()));
    tasks.spawn_vital("refill", rounds::refill(Arc::clone(&intake), tasks.clone()));
    let desk = Desk { intake, directory: around.directory, budget, terms };
    let at_once = desk.clone();
    let handover = Handover::new(settings.clone(), tasks.clone(), move |handed| at_once.clone().take_over(handed));
    let serve = move |stream, peer| desk.clone().serve(stream, peer);
    tasks.spawn_vital("accept", listener::run(settings, sockets, tasks.clone(), serve));
    Ok((journal, handover))
}
