//! What every process tells the others: its figures for `chainmail status`, and, for accept, what an operator asks of
//! its journal. And what it hears: that the directory has changed.

use std::collections::BTreeMap;

use accept::journal::{Books, Journal};
use directory::{Change, Directory};
use futures::StreamExt as _;
use proto::{MailId, NodeName, subjects};
use runtime::bodies::{Bodies, CHUNK};
use runtime::broker::Broker;
use runtime::clock;
use runtime::tasks::Tasks;
use runtime::telemetry::{self, StageFigures};
use serde::{Deserialize, Serialize};

/// One process's answer to `ask.status`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Its node.
    pub(crate) node: String,
    /// Its stages.
    pub(crate) stages: BTreeMap<String, StageFigures>,
    /// Its journal's books, if it is an accept node.
    pub(crate) books: Option<Books>,
}

/// What an operator asks of an accept node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Send these buried recipients of a mail round again; all that are buried if none is named.
    Replay(String, Vec<u32>),
    /// Give them up.
    Drop(String, Vec<u32>),
}

/// Answers until the shutdown.
///
/// # Errors
/// When the subscriptions end.
pub(crate) async fn answer(
    broker: Broker,
    node: NodeName,
    accept: Option<(Journal, Bodies)>,
    tasks: Tasks,
) -> anyhow::Result<()> {
    let mut status = broker.subscribe(subjects::STATUS.to_owned()).await?;
    let mut requests = broker.subscribe(subjects::ask_accept(&node)).await?;
    loop {
        tokio::select! {
            () = tasks.stopping() => return Ok(()),
            message = status.next() => {
                let Some(message) = message else { anyhow::bail!("the subscription ended") };
                let books = accept.as_ref().map(|(journal, _)| journal.books());
                let report = Report { node: node.to_string(), stages: telemetry::stage_figures(), books };
                if let Some(reply) = message.reply {
                    broker.reply(reply, serde_json::to_vec(&report)?.into()).await;
                }
            }
            message = requests.next() => {
                let Some(message) = message else { anyhow::bail!("the subscription ended") };
                let (Some((journal, bodies)), Some(reply)) = (&accept, message.reply) else { continue };
                let done = match serde_json::from_slice::<Request>(&message.payload) {
                    Ok(request) => obey(journal, bodies, &request).await,
                    Err(error) => Err(error.to_string()),
                };
                broker.reply(reply, serde_json::to_vec(&done)?.into()).await;
            }
        }
    }
}

/// Says whether there was anything to do.
async fn obey(journal: &Journal, bodies: &Bodies, request: &Request) -> Result<bool, String> {
    match request {
        Request::Replay(id, recipients) => journal.replay(id.parse()?, recipients, clock::now()).await,
        Request::Drop(id, recipients) => give_up(journal, bodies, id.parse()?, recipients).await,
    }
    .map_err(|error| format!("{error:#}"))
}

/// A mail of which nothing is left has ended: its body goes.
async fn give_up(journal: &Journal, bodies: &Bodies, id: MailId, recipients: &[u32]) -> anyhow::Result<bool> {
    let size = journal.body_size(id);
    let is_changed = journal.drop_buried(id, recipients).await?;
    if let Some(size) = size.filter(|_| is_changed && journal.pending(id).is_none()) {
        bodies.purge(id, u32::try_from(size.div_ceil(CHUNK as u64)).unwrap_or(u32::MAX)).await;
    }
    Ok(is_changed)
}

/// Hears of changes of the directory until the shutdown. After a lost connection some may have been missed.
///
/// # Errors
/// When the subscription ends.
pub(crate) async fn changes(broker: Broker, directory: Directory, tasks: Tasks) -> anyhow::Result<()> {
    let mut changes = broker.subscribe(subjects::DIRECTORY_CHANGED.to_owned()).await?;
    let mut epoch = broker.epoch();
    loop {
        tokio::select! {
            () = tasks.stopping() => return Ok(()),
            changed = epoch.changed() => {
                changed?;
                directory.forget_all();
            }
            message = changes.next() => {
                let Some(message) = message else { anyhow::bail!("the subscription ended") };
                if let Some(change) = Change::from_bytes(&message.payload) {
                    directory.forget(&change);
                }
            }
        }
    }
}
