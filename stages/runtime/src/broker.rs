//! The connection to NATS: publishing with confirmation, notices, questions.
//!
//! It outlives restarts of the broker. While the broker is away, publishing fails at once instead of piling up in
//! memory; whoever publishes has the mail in the journal or in a stream, so nothing is lost by that. Each time the
//! connection comes back, or lost streams were made anew, the *epoch* rises: streams are verified again, pulls are
//! bound again, and the journal sends its pending mail round again.
#![allow(clippy::disallowed_methods)]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::connection::State;
use async_nats::jetstream::{self, context::PublishErrorKind};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, PublishError as ClientPublishError, Subscriber};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::subjects;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::config::{ByteSize, Section};
use crate::health::{Health, Trouble};
use crate::{trace, version};

/// The header by which the broker knows a duplicate.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// How long something without confirmation may wait to be sent. While a broker is away that nobody has noticed yet,
/// senders wait for this: mail is taken all the same.
const NOTICE: Duration = Duration::from_secs(1);

/// How long the broker may take to say whether it has streams at all.
const LOOK: Duration = Duration::from_secs(2);

/// How the broker is reached and what its streams may take.
#[derive(Debug, Clone)]
pub struct Config {
    /// `nats://host:port`, or several, separated by commas.
    pub url: String,
    /// Whether `run all` starts a nats-server of its own.
    pub embedded: bool,
    /// Copies of every stream.
    pub replicas: usize,
    /// How long a publish may take to be confirmed.
    pub publish_timeout: Duration,
    /// Bound of each work stream.
    pub stream_bytes: ByteSize,
    /// Bound of the stream of bodies.
    pub bodies_bytes: ByteSize,
    /// After that a body goes even if nobody has said that its mail has ended.
    pub bodies_age: Duration,
    /// Bound of this process's cache of bodies.
    pub cache: ByteSize,
    /// Bound of the bodies that a stage works on in this process.
    pub in_hand: ByteSize,
}

impl Config {
    /// Reads the section `broker`.
    pub fn read(section: &mut Section) -> Self {
        Self {
            url: section.text("url", "nats://127.0.0.1:4250", "Where nats-server listens; several, separated by commas, for a cluster."),
            embedded: section.switch("embedded", "true", "Whether `run all` starts a nats-server of its own at that address. Off when the operator runs one."),
            replicas: usize::try_from(section.count("replicas", 1, 1..=5, "Copies of every stream: 1 on one machine, 3 on a cluster.")).unwrap_or(1),
            publish_timeout: section.span("publish_timeout", "5s", "100ms"..="1min", "How long the broker may take to confirm a message. Short: the journal keeps the mail anyway.").0,
            stream_bytes: section.size("stream_bytes", "1GiB", "1MiB"..="1TiB", "What each work stream may hold. A million envelopes of 1 KiB; a full stream refuses and the mail waits in the journal."),
            bodies_bytes: section.size("bodies_bytes", "8GiB", "16MiB"..="16TiB", "What the stream of bodies may hold. The journal's own bound is the same."),
            bodies_age: section.span("bodies_age", "7days", "1h"..="60days", "A body goes after that, ended or not; longer than a mail is tried.").0,
            cache: section.size("cache", "64MiB", "1MiB"..="64GiB", "Bodies that a process keeps in memory, so that `run all` fetches none twice. Some 800 mails of 75 KiB."),
            in_hand: section.size("in_hand", "64MiB", "1MiB"..="4GiB", "Bodies that each stage of a process works on at once, whatever its workers; the others wait. A larger one is worked on alone."),
        }
    }
}

/// Why a message is not on its stream.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no connection at the moment.
    #[error("the broker is not connected")]
    Disconnected,
    /// No stream takes this subject: the broker has lost its streams, or they were never made.
    #[error("no stream takes {0}")]
    NoStream(String),
    /// The broker did not confirm in time. The message may be there all the same.
    #[error("the broker did not confirm {0} in time")]
    TimedOut(String),
    /// The broker said no; a full stream does.
    #[error("the broker refused {subject}: {reason}")]
    Refused {
        /// The subject.
        subject: String,
        /// What the broker said.
        reason: String,
    },
}

/// A connection to the broker, shared by everything in the process.
#[derive(Debug, Clone)]
pub struct Broker {
    client: Client,
    jetstream: jetstream::Context,
    config: Arc<Config>,
    signs: Arc<Signs>,
    epoch: watch::Receiver<u64>,
}

/// What is heard of the connection and of the streams behind it.
#[derive(Debug)]
struct Signs {
    rise: watch::Sender<u64>,
    lost: tokio::sync::Notify,
    health: Mutex<Health>,
}

impl Signs {
    fn health<T>(&self, look: impl FnOnce(&mut Health) -> T) -> T {
        look(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Broker {
    /// Connects, and keeps trying for `patience`.
    ///
    /// # Errors
    /// When the broker cannot be reached in that time, or is too old.
    pub async fn connect(config: Config, name: &str, patience: Duration) -> anyhow::Result<Self> {
        let (rise, epoch) = watch::channel(0_u64);
        let signs = Arc::new(Signs { rise, lost: tokio::sync::Notify::new(), health: Mutex::default() });
        let url = config.url.clone();
        let attempt = || {
            let signs = Arc::clone(&signs);
            ConnectOptions::new()
                .name(name)
                .event_callback(move |event| {
                    let signs = Arc::clone(&signs);
                    async move { on_event(&event, &signs) }
                })
                .reconnect_delay_callback(|attempts| Duration::from_millis(50 * (1 + attempts.min(19)) as u64))
                .ping_interval(Duration::from_secs(5))
                .subscription_capacity(1 << 14)
                .connection_timeout(Duration::from_secs(2))
                .connect(config.url.split(',').map(str::trim).collect::<Vec<_>>())
        };
        let deadline = Instant::now() + patience;
        let client = loop {
            match attempt().await {
                Ok(client) => break client,
                Err(error) if Instant::now() < deadline => {
                    tracing::debug!(%error, "the broker is not there yet");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => anyhow::bail!("the broker at {url} cannot be reached: {error}"),
            }
        };
        version::check(&format!("the broker at {url}"), &client.server_info().version)?;
        let jetstream = jetstream::ContextBuilder::new().timeout(config.publish_timeout).build(client.clone());
        Ok(Self { client, jetstream, config: Arc::new(config), signs, epoch })
    }

    /// Publishes and waits for the broker's confirmation. `message_id` makes a repetition within the broker's duplicate
    /// window count once, and the message part of its mail's trace.
    ///
    /// # Errors
    /// See [`PublishError`]; after any of them the message may or may not be on the stream.
    pub async fn publish(&self, subject: String, message_id: Option<&str>, payload: Bytes) -> Result<(), PublishError> {
        if self.client.connection_state() != State::Connected {
            return Err(PublishError::Disconnected);
        }
        let mut headers = HeaderMap::new();
        if let Some(id) = message_id {
            headers.insert(MESSAGE_ID, id);
            if let Some(parent) = trace::parent(id) {
                headers.insert(trace::HEADER, parent);
            }
        }
        let began = Instant::now();
        let published = async { self.jetstream.publish_with_headers(subject.clone(), headers, payload).await?.await };
        match published.await {
            Ok(confirmed) => {
                self.signs.health(|health| health.confirmed(&confirmed.stream, Instant::now()));
                Ok(())
            }
            Err(error) => Err(self.explain(subject, began, &error)),
        }
    }

    fn explain(&self, subject: String, began: Instant, error: &jetstream::context::PublishError) -> PublishError {
        match error.kind() {
            PublishErrorKind::StreamNotFound => {
                self.miss_stream();
                PublishError::NoStream(subject)
            }
            PublishErrorKind::TimedOut => {
                self.signs.health(|health| health.silent(&subjects::stream_of(&subject), began, Instant::now()));
                PublishError::TimedOut(subject)
            }
            PublishErrorKind::BrokenPipe => PublishError::Disconnected,
            _ => PublishError::Refused { subject, reason: error.to_string() },
        }
    }

    /// Sends without confirmation. Only for what costs nothing but time when it is lost.
    pub async fn notify(&self, subject: String, payload: Bytes) {
        match self.send(subject, payload).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a notice was not sent"),
            Err(_) => tracing::debug!("a notice was not sent: the broker takes nothing"),
        }
    }

    async fn send(&self, subject: String, payload: Bytes) -> Result<Result<(), ClientPublishError>, Elapsed> {
        tokio::time::timeout(NOTICE, self.client.publish(subject, payload)).await
    }

    /// Asks a question and waits for its one answer.
    ///
    /// # Errors
    /// When nobody answers within `deadline`.
    pub async fn ask(&self, subject: String, payload: Bytes, deadline: Duration) -> anyhow::Result<Bytes> {
        let asked = self.client.request(subject.clone(), payload);
        let reply = tokio::time::timeout(deadline, asked)
            .await
            .map_err(|_| anyhow::anyhow!("nobody answered {subject} within {deadline:?}"))?;
        Ok(reply.map_err(|error| anyhow::anyhow!("{subject}: {error}"))?.payload)
    }

    /// Asks everybody who listens, and gathers what they answer within `window`.
    ///
    /// # Errors
    /// When the question cannot be sent.
    pub async fn ask_all(&self, subject: String, window: Duration) -> anyhow::Result<Vec<Bytes>> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await?;
        self.client.publish_with_reply(subject, inbox, Bytes::new()).await?;
        let deadline = Instant::now() + window;
        let mut gathered = Vec::new();
        while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, answers.next()).await {
            // Nobody listens: the broker's own word, not an answer.
            if answer.status.is_none() {
                gathered.push(answer.payload);
            }
        }
        Ok(gathered)
    }

    /// Sends without confirmation, and waits until it is on its way: for a program that ends right afterwards.
    pub async fn announce(&self, subject: String, payload: Bytes) {
        if let Err(error) = self.announce_all(&subject, [payload]).await {
            tracing::debug!(%error, "an announcement may not have been sent");
        }
    }

    /// The same for many. They are waited for once, and the first that is not taken is the last that is tried: a broker
    /// that is silent would take as long for each.
    ///
    /// # Errors
    /// When they were not all sent.
    pub async fn announce_all(&self, subject: &str, all: impl IntoIterator<Item = Bytes>) -> anyhow::Result<()> {
        let silent = "the broker takes nothing";
        for payload in all {
            self.send(subject.to_owned(), payload).await.context(silent)??;
        }
        tokio::time::timeout(NOTICE, self.client.flush()).await.context(silent)??;
        Ok(())
    }

    /// Answers a question that came with this reply subject.
    pub async fn reply(&self, subject: async_nats::Subject, payload: Bytes) {
        self.notify(subject.to_string(), payload).await;
    }

    /// The names of a stream's consumers.
    ///
    /// # Errors
    /// When the broker does not have the stream, or does not answer.
    pub async fn consumers(&self, stream: &str) -> anyhow::Result<Vec<String>> {
        let found = self.jetstream.get_stream(stream).await.with_context(|| format!("stream {stream}"))?;
        found.consumer_names().try_collect().await.with_context(|| format!("consumers of stream {stream}"))
    }

    /// What a stream holds.
    ///
    /// # Errors
    /// When the broker does not have the stream, or does not answer.
    pub async fn state(&self, stream: &str) -> anyhow::Result<jetstream::stream::State> {
        let found = self.jetstream.get_stream(stream).await.with_context(|| format!("stream {stream}"))?;
        Ok(found.cached_info().state.clone())
    }

    /// Whether a stream holds anything on the subjects of this filter.
    ///
    /// # Errors
    /// When the broker does not have the stream, or does not answer.
    pub async fn holds(&self, stream: &str, filter: &str) -> anyhow::Result<bool> {
        let found = self.jetstream.get_stream_no_info(stream).await.with_context(|| format!("stream {stream}"))?;
        let mut subjects = found.info_with_subjects(filter).await.with_context(|| format!("stream {stream}"))?;
        Ok(subjects.try_next().await?.is_some())
    }

    /// Listens to a subject of core NATS. The subscription outlives reconnects.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn subscribe(&self, subject: String) -> anyhow::Result<Subscriber> {
        Ok(self.client.subscribe(subject).await?)
    }

    /// Rises by one each time the connection comes back or lost streams were made anew: whatever was under way before
    /// may be lost.
    pub fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.clone()
    }

    /// Says that whatever was under way may be lost, and why.
    pub(crate) fn raise_epoch(&self, why: &'static str) {
        tracing::warn!(why, "what is under way comes again");
        self.signs.rise.send_modify(|epoch| *epoch += 1);
    }

    /// Says that a stream is missing.
    pub(crate) fn miss_stream(&self) {
        self.signs.lost.notify_one();
    }

    /// Resolves when a stream was found missing.
    pub async fn streams_lost(&self) {
        self.signs.lost.notified().await;
    }

    /// The streams were looked after, and could be brought in order or not.
    pub(crate) async fn looked_after(&self, result: Result<(), &anyhow::Error>) {
        let trouble = match result {
            Ok(()) => None,
            Err(error) => {
                let answers = tokio::time::timeout(LOOK, self.jetstream.query_account()).await;
                let has_streams = answers.is_ok_and(|answer| answer.is_ok());
                Some(if has_streams { Trouble::Disorder(format!("{error:#}")) } else { Trouble::NoStreams })
            }
        };
        self.signs.health(|health| health.looked_after(trouble));
    }

    /// What is wrong with the broker, if it is connected.
    pub fn trouble(&self) -> Option<Trouble> {
        // A publish fails after one such time. Only when nothing is confirmed for as long again is it not mere
        // slowness.
        let patience = self.config.publish_timeout * 2;
        self.signs.health(|health| health.trouble(Instant::now(), patience))
    }

    /// What may be wrong with it, which one lost confirmation shows as well.
    pub fn suspect(&self) -> Option<Trouble> {
        self.signs.health(|health| health.suspect())
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// What was configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// JetStream itself, for what is not a publish.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }
}

fn on_event(event: &Event, signs: &Signs) {
    match event {
        Event::Connected => {
            signs.health(|health| health.connected(Instant::now()));
            signs.rise.send_modify(|epoch| *epoch += 1);
            tracing::info!("the broker is connected");
        }
        Event::Disconnected => tracing::warn!("the broker is gone; mail waits in the journal"),
        Event::SlowConsumer(subscription) => tracing::warn!(subscription, "a subscription overflowed"),
        other => tracing::warn!(event = %other, "the broker's client reports"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A broker of this version that answers, and then takes nothing: how it is reached, and its end of the connection.
    async fn stand_in(version: &str) -> (Config, impl Future<Output = TcpStream> + use<>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::read(&mut Section::root(serde_json::json!({}), std::rc::Rc::default()));
        config.url = listener.local_addr().unwrap().to_string();
        let hello = format!(
            "INFO {{\"server_id\":\"x\",\"version\":\"{version}\",\"max_payload\":8388608,\"proto\":1,\"headers\":true}}\r\n"
        );
        let serve = async move {
            let (mut client, _) = listener.accept().await.unwrap();
            client.write_all(hello.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"PING\r\n") {
                client.read_buf(&mut heard).await.unwrap();
            }
            client.write_all(b"PONG\r\n").await.unwrap();
            client
        };
        (config, serve)
    }

    #[tokio::test]
    async fn a_broker_that_is_too_old_is_refused() {
        let (config, serve) = stand_in("2.9.25").await;
        let url = config.url.clone();
        let (broker, _client) = tokio::join!(Broker::connect(config, "test", LOOK), serve);
        let error = broker.unwrap_err().to_string();
        let want = format!("the broker at {url} is nats-server \"2.9.25\", and 2.12 or later is needed");
        assert!(error.starts_with(&want), "{error}");
    }

    /// Each of them was waited for by itself: an import of 3,600 accounts, announced to a broker that had fallen
    /// silent, took an hour.
    #[tokio::test]
    async fn a_silent_broker_is_waited_for_once() {
        let (config, silent) = stand_in("2.12.0").await;
        let (broker, client) = tokio::join!(Broker::connect(config, "test", LOOK), silent);
        let (broker, began) = (broker.unwrap(), Instant::now());
        // More than the sockets hold, so that it is not on its way.
        let all = std::iter::repeat_n(Bytes::from(vec![0; 4 << 20]), 8);
        broker.announce_all("changed", all).await.unwrap_err();
        assert!(began.elapsed() < NOTICE * 2, "{:?}", began.elapsed());
        drop(client);
    }
}
