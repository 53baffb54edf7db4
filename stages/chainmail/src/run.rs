//! `chainmail run`: the whole chain, or one stage of it. Same code, same subjects.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use accept::journal::Journal;
use anyhow::{Context as _, bail};
use directory::Directory;
use proto::{NodeName, subjects};
use runtime::admin::{self, Readiness};
use runtime::bodies::Bodies;
use runtime::broker::Broker;
use runtime::handover::Handover;
use runtime::tasks::{Tasks, termination};
use runtime::worker::{self, Place, Workshop};
use runtime::{Stage, streams, telemetry, tls};
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::nats::{self, NatsServer};
use crate::{bounds, first_run, reports};

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The whole chain in this process, with its broker.
    All,
    /// DNS lists, in front of accept.
    Gate,
    /// SMTP and the journal.
    Accept,
    /// Spam scoring.
    Score,
    /// Virus scanning.
    Scan,
    /// Routing.
    Deliver,
    /// The store node.
    Store,
}

/// How long the broker may take to be there at the start.
const BROKER_START: Duration = Duration::from_secs(60);
/// How often clamd is asked whether it is there and finds something.
const PROBE: Duration = Duration::from_secs(1);

struct Process {
    config: Config,
    part: Part,
    tasks: Tasks,
    readiness: Readiness,
    broker: Broker,
    bodies: Bodies,
    directory: Directory,
    tls: TlsAcceptor,
}

/// Runs until SIGTERM, SIGINT, or the failure of something vital.
///
/// # Errors
/// When something cannot be started, or the shutdown took longer than its grace.
pub(crate) async fn run(config: Config, part: Part) -> anyhow::Result<()> {
    let tasks = Tasks::default();
    let mut signal = pin!(termination()?);
    let readiness = Readiness::default();
    readiness.waiting("start", "starting");
    let metrics = telemetry::set_up_metrics()?;
    let socket = admin::bind(config.admin).await?;
    tasks.spawn_vital("admin", admin::run(socket, readiness.clone(), metrics, tasks.clone()));
    let server = if part == Part::All && config.broker.embedded { Some(NatsServer::start(&config)?) } else { None };
    let grace = config.grace;
    let child = server.as_ref().map(NatsServer::child);
    // What waits for its broker is asked to end like everything else.
    let work = async {
        start(config, part, child, tasks.clone(), readiness.clone()).await?;
        readiness.ready("start");
        std::future::pending::<anyhow::Result<()>>().await
    };
    let worked: anyhow::Result<()> = tokio::select! {
        worked = work => worked,
        () = tasks.stopping() => Ok(()),
        () = &mut signal => {
            tracing::info!("shutting down");
            Ok(())
        }
    };
    let failed = tasks.is_stopping();
    if failed {
        tracing::error!("something vital has ended; shutting down");
    }
    tasks.stop();
    let in_time = tasks.finished(grace).await;
    if let Some(server) = server {
        server.stop();
    }
    worked?;
    if failed {
        bail!("something vital has ended; see the log");
    }
    if !in_time {
        bail!("the shutdown took longer than its grace of {grace:?}");
    }
    Ok(())
}

async fn start(
    config: Config,
    part: Part,
    child: Option<nats::Child>,
    tasks: Tasks,
    readiness: Readiness,
) -> anyhow::Result<()> {
    let broker = Broker::connect(config.broker.clone(), "chainmail", BROKER_START).await?;
    streams::prepare(&broker, &config.chain, BROKER_START).await?;
    tasks.spawn_vital("streams", streams::keep(broker.clone(), config.chain.clone(), tasks.clone()));
    let directory = Directory::open(config.directory.clone()).await?;
    if part == Part::All {
        first_run::make(&config, &directory).await?;
    }
    first_run::refuse_in_public(&config, &directory).await?;
    bounds::tell(&config, part)?;
    let tls = tls::acceptor(&config.tls, &[config.hostname.clone(), "localhost".to_owned()])?;
    let bodies = Bodies::new(broker.clone());
    let process = Process { config, part, tasks, readiness, broker, bodies, directory, tls };
    process.tasks.spawn_vital(
        "directory",
        reports::changes(process.broker.clone(), process.directory.clone(), process.tasks.clone()),
    );
    let watch = nats::watch(process.broker.clone(), child, process.readiness.clone(), process.tasks.clone());
    process.tasks.spawn("broker", watch);
    let (journal, handover) = if process.runs(Part::Accept) { Some(process.accept()?) } else { None }.unzip();
    let accept = journal.map(|journal| (journal, process.bodies.clone()));
    process.tasks.spawn_vital(
        "reports",
        reports::answer(process.broker.clone(), process.config.node.clone(), accept, process.tasks.clone()),
    );
    if process.filters(Part::Score, "score")? {
        let score = score::Score::new(process.config.score.clone(), process.config.hostname.clone())?;
        process.stage("score", score, process.config.score.work.clone());
    }
    if process.runs(Part::Scan) {
        process.scan();
    }
    if process.runs(Part::Deliver) {
        process.deliver();
    }
    if process.runs(Part::Store) {
        process.store()?;
    }
    if process.runs(Part::Gate) {
        gate::start(process.config.gate.clone(), handover, process.tasks.clone())?;
    }
    Ok(())
}

impl Process {
    fn runs(&self, part: Part) -> bool {
        self.part == Part::All || self.part == part
    }

    /// Whether a filter runs here: in `all` it does if the chain names it; alone it must be named.
    fn filters(&self, part: Part, name: &str) -> anyhow::Result<bool> {
        let named = self.config.chain.iter().any(|stage| stage == name);
        if self.part == part && !named {
            bail!("`chain` does not name {name}, so no mail would ever reach it");
        }
        Ok(named && self.runs(part))
    }

    fn shop(&self) -> Workshop {
        Workshop { broker: self.broker.clone(), bodies: self.bodies.clone(), tasks: self.tasks.clone() }
    }

    fn accept(&self) -> anyhow::Result<(Journal, Handover)> {
        let around = accept::Surroundings {
            hostname: self.config.hostname.clone(),
            node: self.config.node.clone(),
            first: self.config.first_stage(),
            scanner: self.config.scanner(),
            broker: self.broker.clone(),
            bodies: self.bodies.clone(),
            directory: self.directory.clone(),
            tls: Some(self.tls.clone()),
            tasks: self.tasks.clone(),
        };
        accept::start(self.config.accept.clone(), around)
    }

    /// Runs a stage whose stream is its own.
    fn stage<S: Stage>(&self, name: &'static str, stage: S, work: worker::Config) {
        let place = Place {
            stage: name.to_owned(),
            next: self.config.next_stage(name),
            stream: subjects::stream(name),
            consumer: subjects::consumer(name),
            subject: subjects::stage(name),
        };
        self.tasks.spawn_vital(name, worker::run(stage, place, work, self.shop()));
    }

    fn scan(&self) {
        let config = self.config.scan.clone();
        let scanner = scan::Scanner::new(&config);
        self.stage("scan", scan::Scan::new(config.clone(), scanner.clone()), config.work);
        let (readiness, tasks) = (self.readiness.clone(), self.tasks.clone());
        readiness.waiting("clamd", "not asked yet");
        self.tasks.spawn("clamd", async move {
            while !tasks.is_stopping() {
                let probed = tokio::select! {
                    () = tasks.stopping() => break,
                    probed = scanner.probe(PROBE) => probed,
                };
                match probed {
                    Ok(()) => readiness.ready("clamd"),
                    Err(error) => readiness.waiting("clamd", format!("{error:#}; mail waits")),
                }
                tokio::select! {
                    () = tasks.stopping() => {}
                    () = tokio::time::sleep(PROBE) => {}
                }
            }
        });
    }

    fn deliver(&self) {
        let stage = deliver::Deliver::new(self.directory.clone(), self.config.scanner());
        self.stage(subjects::DELIVER_STAGE, stage, self.config.deliver.work.clone());
    }

    fn store(&self) -> anyhow::Result<()> {
        let name = self.config.node.clone();
        let node = store::Node::open(&self.config.store, name.as_str())?;
        let place = Place {
            stage: subjects::STORE_STAGE.to_owned(),
            next: String::new(),
            stream: subjects::STORE.to_owned(),
            consumer: subjects::store_consumer(&name),
            subject: subjects::store(&name),
        };
        let ingest = store::Ingest::new(node.clone(), name, self.directory.clone());
        self.tasks.spawn_vital("store", worker::run(ingest, place, self.config.store.work.clone(), self.shop()));
        let quarantine = store::held::Quarantine {
            node: node.clone(),
            name: self.config.node.clone(),
            directory: self.directory.clone(),
            broker: self.broker.clone(),
            bodies: self.bodies.clone(),
        };
        self.tasks.spawn_vital("quarantine", quarantine.answer(self.tasks.clone()));
        store::serve(&self.config.store, &node, &self.directory, &self.tls, &self.tasks)
    }
}

/// Where a process that is one of several differs from its file.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Differences {
    /// Another name for this node.
    #[arg(long)]
    node: Option<NodeName>,
    /// Another address for the listener of the gate or of accept.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Another address for the admin server.
    #[arg(long)]
    admin: Option<SocketAddr>,
}

impl Differences {
    /// The configuration of this process.
    ///
    /// # Errors
    /// When a difference makes no sense for the part that is run.
    pub(crate) fn apply(self, mut config: Config, part: Part) -> anyhow::Result<Config> {
        if let Some(node) = self.node {
            config.node = node;
        }
        if let Some(admin) = self.admin {
            config.admin = admin;
        }
        match (self.listen, part) {
            (None, _) => {}
            (Some(listen), Part::Gate) => config.gate.listen = vec![listen],
            (Some(listen), Part::Accept) => config.accept.listen = vec![listen],
            (Some(_), _) => {
                return Err(anyhow::anyhow!("--listen is for `run gate` and `run accept`"))
                    .context("reading the command line");
            }
        }
        Ok(config)
    }
}
