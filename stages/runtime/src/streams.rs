//! The streams: made when they are absent, verified when they are there, made again when the broker has lost them.
//!
//! Whoever makes one tells every process: what was in a lost stream must come again out of the journals, and at once.
//!
//! A stream that could discard mail silently is refused: the program does not run on it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use futures::StreamExt as _;
use proto::subjects;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::clock;
use crate::tasks::Tasks;

/// How long the broker remembers message ids. Longer than any one publish takes to be tried again, and short: each
/// remembered id costs the broker memory.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(30);

/// How long tidings of streams that were made anew are gathered. A broker that has lost its disk has lost them all, and
/// each process may make some.
const GATHER: Duration = Duration::from_millis(500);

/// How long between two attempts to bring the streams in order.
const AGAIN: Duration = Duration::from_millis(500);

/// A stream that is there and could lose mail.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unsafe(String);

/// Makes or verifies every stream at the start of a program. A broker that goes away meanwhile is given `patience` to
/// come back: the program starts beside others that live on through that, and nobody may be there to start it again.
///
/// # Errors
/// When a stream exists with settings that could lose mail, at once; when the broker does not do as asked in that time.
pub async fn prepare(broker: &Broker, chain: &[String], patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    let mut told = String::new();
    loop {
        match ensure(broker, chain).await {
            Err(error) if Instant::now() < deadline && error.downcast_ref::<Unsafe>().is_none() => {
                if is_news(&mut told, &error) {
                    tracing::warn!(error = told, "the streams are not in order yet");
                }
                tokio::time::sleep(AGAIN).await;
            }
            done => return done,
        }
    }
}

/// Makes or verifies every stream of the chain. Tells every process when some were made.
///
/// # Errors
/// When a stream exists with settings that could lose mail, or the broker does not do as asked.
async fn ensure(broker: &Broker, chain: &[String]) -> anyhow::Result<()> {
    let mut made = Vec::new();
    let mut result = Ok(());
    for wanted in wanted(broker, chain) {
        let name = wanted.name.clone();
        match ensure_one(broker, wanted).await.with_context(|| format!("stream {name}")) {
            Ok(true) => made.push(name),
            Ok(false) => {}
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    if !made.is_empty() {
        tracing::info!(streams = made.join(" "), "made");
        tell_made(broker, &made.join(" ")).await;
    }
    result
}

/// Tells every process that what was in these streams must come again.
pub(crate) async fn tell_made(broker: &Broker, names: &str) {
    broker.announce(subjects::STREAMS_MADE.to_owned(), names.to_owned().into()).await;
}

/// Whether this is another trouble than the one told last. It is looked at twice a second, and told once.
fn is_news(told: &mut String, error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    let is_news = *told != text;
    *told = text;
    is_news
}

/// Keeps the streams there: verifies them after each reconnect, and when somebody finds one missing. Raises the epoch
/// when any process has made one anew.
///
/// # Errors
/// When the client is closed.
pub async fn keep(broker: Broker, chain: Vec<String>, tasks: Tasks) -> anyhow::Result<()> {
    let mut epoch = broker.epoch();
    let mut made = broker.subscribe(subjects::STREAMS_MADE.to_owned()).await?;
    let mut raise_at: Option<Instant> = None;
    loop {
        let gathered = async {
            match raise_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tasks.stopping() => return Ok(()),
            changed = epoch.changed() => changed?,
            () = broker.streams_lost() => {}
            tidings = made.next() => {
                tidings.context("the subscription ended")?;
                raise_at.get_or_insert(Instant::now() + GATHER);
                continue;
            }
            () = gathered => {
                raise_at = None;
                broker.raise_epoch("streams were made anew");
                continue;
            }
        }
        let mut told = String::new();
        loop {
            let look = async {
                let done = ensure(&broker, &chain).await;
                broker.looked_after(done.as_ref().copied()).await;
                done
            };
            // A broker that says nothing holds up nobody's end.
            let done = tokio::select! {
                () = tasks.stopping() => return Ok(()),
                done = look => done,
            };
            let Err(error) = done else { break };
            if is_news(&mut told, &error) {
                tracing::warn!(error = told, "the streams are not in order");
            }
            tokio::select! {
                () = tasks.stopping() => return Ok(()),
                () = tokio::time::sleep(AGAIN) => {}
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

/// Says whether it had to be made.
async fn ensure_one(broker: &Broker, wanted: Config) -> anyhow::Result<bool> {
    let found = match broker.jetstream().get_stream(&wanted.name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) if is_missing(&error.kind()) => {
            if make(broker, wanted.clone()).await? {
                return Ok(true);
            }
            broker.jetstream().get_stream(&wanted.name).await?.cached_info().config.clone()
        }
        Err(error) => return Err(error.into()),
    };
    if found.storage != StorageType::File {
        bail!(Unsafe("it keeps its messages in memory; delete it or set storage to file".to_owned()));
    }
    if found.retention != wanted.retention {
        let (found, wanted) = (found.retention, wanted.retention);
        bail!(Unsafe(format!("its retention is {found:?}, it must be {wanted:?}; delete it once it is empty")));
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
        let first_sequence = found.first_sequence;
        let wanted = Config { max_messages: -1, max_messages_per_subject: each, first_sequence, ..wanted };
        broker.jetstream().update_stream(wanted).await?;
    }
    Ok(false)
}

/// Says whether it was made here: another process may have been quicker, and tells of it.
async fn make(broker: &Broker, wanted: Config) -> anyhow::Result<bool> {
    let first_sequence = (wanted.retention == RetentionPolicy::WorkQueue).then(first_sequence);
    match broker.jetstream().create_stream(Config { first_sequence, ..wanted }).await {
        Ok(_) => Ok(true),
        Err(error) if is_taken(&error.kind()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Where the numbers of a work stream begin: above all that one of its name has ever had, as long as it took less than
/// a million messages a second, and the clock was not set back by as long as it has been there. Confirmations and
/// purges name messages by number only. One that is under way while the stream is lost and made anew would otherwise
/// take new mail, which nobody would miss until the journal's next round. (Letters and bodies are not confirmed, and
/// operators read the numbers of letters.)
fn first_sequence() -> u64 {
    clock::now().0.saturating_mul(1000)
}

fn is_taken(kind: &CreateStreamErrorKind) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once() {
        let mut told = String::new();
        for (text, want) in [("full", true), ("full", false), ("gone", true), ("full", true)] {
            assert_eq!(is_news(&mut told, &anyhow::anyhow!(text)), want, "{text}");
        }
    }
}
