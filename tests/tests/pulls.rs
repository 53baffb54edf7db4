//! Pulling from a real nats-server that goes away, or loses what it had: the messages in hand, the numbers of a stream,
//! and what a sweep takes out.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::stream::{Config as StreamConfig, RetentionPolicy};
use futures::StreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::broker::{Broker, Config};
use runtime::config::ByteSize;
use runtime::in_hand::InHand;
use runtime::pull::{Pull, Settings};
use runtime::streams;
use runtime::tasks::Tasks;
use tempfile::TempDir;
use tests::chain::{free_port, program, wait_for};

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(60);

struct Nats {
    folder: TempDir,
    child: Child,
    port: u16,
}

impl Nats {
    fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let child = Self::spawn(folder.path(), port);
        Self { folder, child, port }
    }

    fn spawn(folder: &Path, port: u16) -> Child {
        let settings = format!("jetstream {{ store_dir: {:?}, max_file_store: 1TB }}", folder.join("broker"));
        fs::write(folder.join("nats.conf"), settings).unwrap();
        let mut command = Command::new(program("nats-server"));
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-c", "nats.conf"]).current_dir(folder);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("nats-server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends as an operator ends it: what it knows of its consumers is on disk then, which it writes behind the
    /// deliveries.
    fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = Self::spawn(self.folder.path(), self.port);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    async fn connect(&self, publish_timeout: Duration) -> Broker {
        let size = ByteSize(1 << 24);
        let config = Config {
            url: format!("nats://127.0.0.1:{}", self.port),
            embedded: false,
            replicas: 1,
            publish_timeout,
            stream_bytes: size,
            bodies_bytes: size,
            bodies_age: Duration::from_secs(3600),
            cache: size,
            in_hand: size,
        };
        Broker::connect(config, "test", PATIENCE).await.unwrap()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pull(broker: &Broker, tasks: &Tasks) -> Pull {
    pull_watched(broker, tasks, Duration::from_secs(1))
}

fn pull_watched(broker: &Broker, tasks: &Tasks, watchdog: Duration) -> Pull {
    let settings = Settings {
        stream: "SCORE".to_owned(),
        consumer: "score".to_owned(),
        subject: "mail.score".to_owned(),
        room: 8,
        ack_wait: Duration::from_secs(2),
        watchdog,
    };
    Pull::new(broker.clone(), settings, tasks.clone())
}

fn chain() -> Vec<String> {
    vec!["score".to_owned()]
}

/// The streams are there, and kept there.
async fn keep_streams(broker: &Broker, tasks: &Tasks) {
    streams::prepare(broker, &chain(), PATIENCE).await.unwrap();
    tasks.spawn_vital("streams", streams::keep(broker.clone(), chain(), tasks.clone()));
}

async fn publish(broker: &Broker, what: &'static str) {
    let once = || broker.publish("mail.score".to_owned(), None, what.into());
    let published = async { while once().await.is_err() {} };
    tokio::time::timeout(PATIENCE, published).await.expect("the broker takes it");
}

/// The next message with this text; others are let go.
async fn next(pull: &mut Pull, what: &str) -> InHand {
    let found = async {
        loop {
            let in_hand = pull.next().await.unwrap();
            if in_hand.message.payload == what {
                return in_hand;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

fn number(in_hand: &InHand) -> u64 {
    in_hand.message.info().unwrap().stream_sequence
}

async fn held(broker: &Broker) -> u64 {
    broker.state("SCORE").await.unwrap().messages
}

/// How often the broker was asked or told something.
fn asked(broker: &Broker) -> u64 {
    broker.jetstream().client().statistics().out_messages.load(Ordering::Relaxed)
}

/// How long it takes at most until a shutdown is heard: less than the 2 s after which a sweep gives up by itself.
const HEARD: Duration = Duration::from_millis(1500);

/// An acknowledgement of a message of the lost stream took a message of the new one with the same number.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_hand_says_nothing_of_a_new_stream() {
    let (mut nats, tasks) = (Nats::start(), Tasks::default());
    let broker = nats.connect(Duration::from_secs(5)).await;
    keep_streams(&broker, &tasks).await;
    let mut pull = pull(&broker, &tasks);
    publish(&broker, "old").await;
    let old = next(&mut pull, "old").await;
    broker.jetstream().delete_stream("SCORE").await.unwrap();
    publish(&broker, "new").await;
    let new = next(&mut pull, "new").await;
    assert!(number(&new) > number(&old), "{} after {}", number(&new), number(&old));
    old.tell(AckKind::Ack).await;
    drop(new);
    // Not acknowledged, so it comes again.
    next(&mut pull, "new").await;
    // Nor does a restart of the server take what lies in a stream that begins so high.
    nats.kill();
    nats.start_again();
    let new = next(&mut pull, "new").await;
    new.tell(AckKind::Ack).await;
    tasks.stop();
}

/// The same, when the broker has lost the end of a stream and numbers go on from before.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_hand_says_nothing_to_a_broker_that_has_lost_it() {
    let (mut nats, tasks) = (Nats::start(), Tasks::default());
    let broker = nats.connect(Duration::from_secs(5)).await;
    keep_streams(&broker, &tasks).await;
    let mut pull = pull(&broker, &tasks);
    publish(&broker, "first").await;
    next(&mut pull, "first").await.tell(AckKind::Ack).await;
    broker.jetstream().query_account().await.unwrap();
    nats.kill();
    let (now, before) = (nats.folder.path().join("broker"), nats.folder.path().join("before"));
    assert!(Command::new("cp").arg("-a").args([&now, &before]).status().unwrap().success());
    nats.start_again();
    publish(&broker, "old").await;
    let old = next(&mut pull, "old").await;
    nats.kill();
    fs::remove_dir_all(&now).unwrap();
    fs::rename(&before, &now).unwrap();
    nats.start_again();
    publish(&broker, "new").await;
    let new = next(&mut pull, "new").await;
    assert_eq!(number(&new), number(&old), "the case that is meant");
    old.tell(AckKind::Ack).await;
    drop(new);
    next(&mut pull, "new").await;
    tasks.stop();
}

/// What was said while the broker was away waited for it, and was said unlooked when it was back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_hand_says_nothing_while_the_broker_is_away() {
    let (mut nats, tasks) = (Nats::start(), Tasks::default());
    let broker = nats.connect(Duration::from_secs(5)).await;
    keep_streams(&broker, &tasks).await;
    let mut pull = pull(&broker, &tasks);
    publish(&broker, "old").await;
    let old = next(&mut pull, "old").await;
    let mut said = broker.subscribe("$JS.ACK.>".to_owned()).await.unwrap();
    broker.announce("$JS.ACK.before".to_owned(), Default::default()).await;
    let mut hear = async || tokio::time::timeout(PATIENCE, said.next()).await.unwrap().unwrap().subject.to_string();
    assert_eq!(hear().await, "$JS.ACK.before");
    nats.kill();
    let away = async {
        while broker.is_connected() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, away).await.expect("it is noticed");
    old.tell(AckKind::Ack).await;
    broker.notify("$JS.ACK.after".to_owned(), Default::default()).await;
    nats.start_again();
    assert_eq!(hear().await, "$JS.ACK.after", "that alone was said");
    tasks.stop();
}

/// The same work was done again after each loss of the connection, since nothing was said of what had been in hand.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_hand_is_told_to_a_broker_that_still_has_it() {
    let (mut nats, tasks) = (Nats::start(), Tasks::default());
    let broker = nats.connect(Duration::from_secs(5)).await;
    keep_streams(&broker, &tasks).await;
    let mut pull = pull(&broker, &tasks);
    publish(&broker, "old").await;
    let old = next(&mut pull, "old").await;
    let mut epoch = broker.epoch();
    epoch.mark_unchanged();
    nats.end();
    nats.start_again();
    tokio::time::timeout(PATIENCE, epoch.changed()).await.unwrap().unwrap();
    // More than once: a broker that has just started may not know its streams yet, and in doubt nothing is said.
    let taken = async {
        while broker.state("SCORE").await.map_or(1, |state| state.messages) > 0 {
            old.tell(AckKind::Ack).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("it is taken for done");
    tasks.stop();
}

/// What was confirmed and still lies there is taken out, by the floor alone only long after a bind; what is in hand is
/// not, and then everything goes round again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_over_is_swept() {
    let (nats, tasks) = (Nats::start(), Tasks::default());
    let broker = nats.connect(Duration::from_secs(5)).await;
    // Such a stream keeps what was confirmed, as one does that could not delete it.
    let stream = StreamConfig { name: "SCORE".into(), subjects: vec!["mail.score".into()], ..StreamConfig::default() };
    assert_eq!(stream.retention, RetentionPolicy::Limits);
    broker.jetstream().create_stream(stream).await.unwrap();
    let mut first = pull(&broker, &tasks);
    for what in ["one", "two", "three"] {
        publish(&broker, what).await;
    }
    for what in ["one", "two"] {
        next(&mut first, what).await.tell(AckKind::Ack).await;
    }
    let three = next(&mut first, "three").await;
    assert_eq!(held(&broker).await, 3);
    let mut made = broker.subscribe("streams.made".to_owned()).await.unwrap();
    // Another process binds, and takes none of it.
    let mut second = pull(&broker, &tasks);
    let busy = three.during(async {
        tokio::select! {
            _ = second.next() => panic!("nothing is left for it"),
            told = made.next() => assert!(told.is_some(), "everything goes round again"),
        }
    });
    tokio::time::timeout(PATIENCE, busy).await.expect("what lies below the floor is swept");
    assert_eq!(held(&broker).await, 1, "and what is in hand is not");
    three.tell(AckKind::Ack).await;
    let mut third = pull(&broker, &tasks);
    let idle = async {
        tokio::select! {
            _ = third.next() => panic!("nothing is left for it"),
            () = async { while held(&broker).await > 0 {} } => {}
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.expect("the last one is swept");
    tasks.stop();
}

/// A sweep asks the broker, which says nothing; the shutdown was not heard until it gave up.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_holds_up_nobody() {
    let (nats, tasks) = (Nats::start(), Tasks::default());
    let broker = nats.connect(PATIENCE).await;
    // Nobody looks after the streams, and the watchdog asks nothing: what is asked is the sweep's.
    streams::prepare(&broker, &chain(), PATIENCE).await.unwrap();
    let mut pull = pull_watched(&broker, &tasks, PATIENCE);
    publish(&broker, "one").await;
    next(&mut pull, "one").await.tell(AckKind::Ack).await;
    tokio::time::timeout(PATIENCE, async { while held(&broker).await > 0 {} }).await.expect("it is taken for done");
    tasks.spawn("pull", async move { while pull.next().await.is_some() {} });
    // A sweep is due every 20 s. When it asks, the broker must be silent, and not for so long that it is given up.
    assert!(!tasks.finished(Duration::from_secs(12)).await, "it goes on");
    nats.signal(Signal::SIGSTOP);
    let before = asked(&broker);
    wait_for("a sweep to ask", || asked(&broker) > before);
    tasks.stop();
    assert!(tasks.finished(HEARD).await, "it hears the shutdown");
    nats.signal(Signal::SIGCONT);
}

/// The same of who looks after the streams.
#[tokio::test(flavor = "multi_thread")]
async fn looking_after_the_streams_holds_up_nobody() {
    let (nats, tasks) = (Nats::start(), Tasks::default());
    let broker = nats.connect(PATIENCE).await;
    keep_streams(&broker, &tasks).await;
    let (mut epoch, mut before) = (broker.epoch(), 0);
    let looked_after = async {
        // Again until it has heard the tidings, of which the epoch is the sign; and the broker is silent before it
        // asks.
        loop {
            broker.announce("streams.made".to_owned(), "SCORE".into()).await;
            // Who listens has them before the answer to a later question.
            held(&broker).await;
            nats.signal(Signal::SIGSTOP);
            before = asked(&broker);
            epoch.mark_unchanged();
            if tokio::time::timeout(Duration::from_secs(2), epoch.changed()).await.is_ok() {
                break;
            }
            nats.signal(Signal::SIGCONT);
        }
    };
    tokio::time::timeout(PATIENCE, looked_after).await.expect("the tidings come");
    wait_for("the streams to be looked after", || asked(&broker) > before);
    tasks.stop();
    assert!(tasks.finished(HEARD).await, "it hears the shutdown");
    nats.signal(Signal::SIGCONT);
}
