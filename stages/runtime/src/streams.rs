//! The streams: made when they are absent, verified when they are there, made again when the broker has lost them.
//!
//! A stream that could discard mail silently is refused: the program does not run on it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use proto::subjects;

use crate::broker::Broker;
use crate::tasks::Tasks;

/// How long the broker remembers message ids. Longer than any one publish takes to be tried again, and short: each
/// remembered id costs the broker memory.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(30);

/// Makes or verifies every stream of the chain.
///
/// # Errors
/// When a stream exists with settings that could lose mail, or the broker does not do as asked.
pub async fn ensure(broker: &Broker, chain: &[String]) -> anyhow::Result<()> {
    for wanted in wanted(broker, chain) {
        let name = wanted.name.clone();
        ensure_one(broker, wanted).await.with_context(|| format!("stream {name}"))?;
    }
    Ok(())
}

/// Keeps the streams there: verifies them after each reconnect, and when a publish finds none.
pub async fn keep(broker: Broker, chain: Vec<String>, tasks: Tasks) {
    let mut epoch = broker.epoch();
    loop {
        tokio::select! {
            () = tasks.stopping() => return,
            changed = epoch.changed() => if changed.is_err() { return },
            () = broker.streams_lost() => {}
        }
        loop {
            let done = ensure(&broker, &chain).await;
            broker.looked_after(done.as_ref().copied()).await;
            let Err(error) = done else { break };
            tracing::warn!(error = format!("{error:#}"), "the streams are not in order");
            tokio::select! {
                () = tasks.stopping() => return,
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }
}

fn wanted(broker: &Broker, chain: &[String]) -> Vec<Config> {
    let config = broker.config();
    let work = |name: String, subject: String| Config {
        name,
        subjects: vec![subject],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: config.replicas,
        max_bytes: i64::try_from(config.stream_bytes.0).unwrap_or(i64::MAX),
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    };
    let mut streams: Vec<Config> =
        chain.iter().map(|stage| work(subjects::stream(stage), subjects::stage(stage))).collect();
    streams.push(work(subjects::stream(subjects::DELIVER_STAGE), subjects::stage(subjects::DELIVER_STAGE)));
    streams.push(work(subjects::STORE.to_owned(), subjects::STORE_SUBJECTS.to_owned()));
    streams.push(work(subjects::ENDED.to_owned(), subjects::ENDED_SUBJECTS.to_owned()));
    let kept = |name: &str, subject: &str| Config {
        retention: RetentionPolicy::Limits,
        allow_direct: true,
        ..work(name.to_owned(), subject.to_owned())
    };
    streams.push(kept(subjects::DEAD, subjects::DEAD_SUBJECTS));
    streams.push(Config {
        max_bytes: i64::try_from(config.bodies_bytes.0).unwrap_or(i64::MAX),
        max_age: config.bodies_age,
        // A body that goes round again takes the place of itself.
        max_messages_per_subject: 1,
        ..kept(subjects::BODIES, subjects::BODIES_SUBJECTS)
    });
    streams
}

async fn ensure_one(broker: &Broker, wanted: Config) -> anyhow::Result<()> {
    let stream = broker.jetstream().get_or_create_stream(wanted.clone()).await?;
    let found = stream.cached_info().config.clone();
    if found.storage != StorageType::File {
        bail!("it keeps its messages in memory; delete it or set storage to file");
    }
    if found.retention != wanted.retention {
        bail!("its retention is {:?}, it must be {:?}; delete it once it is empty", found.retention, wanted.retention);
    }
    let same = found.discard == wanted.discard
        && found.subjects == wanted.subjects
        && found.max_bytes == wanted.max_bytes
        && found.max_age == wanted.max_age
        && found.num_replicas == wanted.num_replicas
        && found.allow_direct == wanted.allow_direct
        && found.max_messages <= 0
        && found.max_messages_per_subject.max(0) == wanted.max_messages_per_subject.max(0);
    if !same {
        tracing::info!(stream = wanted.name, "bringing the stream's settings in line");
        let each = if wanted.max_messages_per_subject > 0 { wanted.max_messages_per_subject } else { -1 };
        let wanted = Config { max_messages: -1, max_messages_per_subject: each, ..wanted };
        broker.jetstream().update_stream(wanted).await?;
    }
    Ok(())
}
