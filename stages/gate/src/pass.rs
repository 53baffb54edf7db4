//! Passing a connection through to an accept node, or handing it over to the one of this process, or refusing it.
//! Nothing is read of the mail.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use proto::{GateFacts, Listing};
use runtime::at_once::{MOST, read_at_once, wait};
use runtime::handover::{Handed, Handover};
use runtime::linger::linger;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use wire::proxy::Header;
use wire::smtp::Reply;

use crate::Gate;

/// An accept node that does not take a connection within that is passed over.
const CONNECT: Duration = Duration::from_secs(2);
/// A refused client may take so long to read why.
const REFUSED: Duration = Duration::from_secs(10);

/// Tells a listed client why it is not served: 554 in place of the greeting (RFC 5321 section 3.1), then 221 to QUIT.
pub(crate) async fn refuse(gate: &Gate, mut client: TcpStream, peer: SocketAddr, listing: &Listing) {
    let refusal = Reply::listed(&peer.ip().to_canonical().to_string(), &listing.zone, &listing.text).encode();
    // Whether the client listens is its own affair.
    let _ = tokio::time::timeout(REFUSED, async {
        client.write_all(&refusal).await?;
        let mut said = [0; 512];
        let count = client.read(&mut said).await?;
        if said[..count].to_ascii_uppercase().starts_with(b"QUIT") {
            client.write_all(&Reply::bye().encode()).await?;
        }
        linger(&mut client, &gate.tasks).await;
        io::Result::Ok(())
    })
    .await;
}

/// An accept node.
enum Node<'a> {
    /// In this process.
    Here(&'a Handover),
    /// Behind this connection.
    There(TcpStream),
}

/// Finds an accept node, says who the client is, and copies both ways until both are done.
pub(crate) async fn through(gate: &Gate, mut client: TcpStream, peer: SocketAddr, facts: GateFacts) -> io::Result<()> {
    let mut node = match next(gate).await {
        Some(Node::There(node)) => node,
        Some(Node::Here(accept)) => {
            accept.serve(handed(gate, client, peer, facts)).await;
            return Ok(());
        }
        None => {
            tracing::warn!("no accept node can be reached; clients are told to come again");
            client.write_all(b"421 4.3.2 Service not available; try again later\r\n").await?;
            linger(&mut client, &gate.tasks).await;
            return Ok(());
        }
    };
    let header = Header { addresses: Some((peer, client.local_addr()?)), facts: facts.encode() };
    node.write_all(&header.encode()).await?;
    let passed = both_ways(&mut client, &mut node, gate.config.idle).await;
    drop(node);
    if !matches!(&passed, Err(error) if error.kind() == io::ErrorKind::TimedOut) {
        linger(&mut client, &gate.tasks).await;
    }
    passed
}

/// What accept would read out of the header.
fn handed(gate: &Gate, client: TcpStream, peer: SocketAddr, facts: GateFacts) -> Handed {
    let address = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let facts = if Header::carries(&facts.encode()) { facts } else { GateFacts::default() };
    Handed { client, address, facts, idle: gate.config.idle }
}

/// Copies both ways until the node is done. What it says last must reach the client; what the client says to a node
/// that is gone need not reach anybody.
async fn both_ways(client: &mut TcpStream, node: &mut TcpStream, idle: Duration) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_node, mut to_node) = node.split();
    let moved = AtomicU64::new(0);
    let up = copy(&mut from_client, &mut to_node, &moved);
    let down = copy(&mut from_node, &mut to_client, &moved);
    tokio::pin!(up, down);
    let done = async {
        tokio::select! {
            down = &mut down => down,
            // However it ended: the node knows now that nothing more comes, and may still have something to say.
            _ = &mut up => down.await,
        }
    };
    tokio::select! {
        done = done => done,
        () = silence(&moved, idle) => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing moved for too long")),
    }
}

/// Ends when nothing has moved for `idle`, or half as long again. It counts for both directions together: while a large
/// mail comes in, the node has nothing to say.
async fn silence(moved: &AtomicU64, idle: Duration) {
    let (mut last, mut looks) = (0, 0);
    while looks < 2 {
        tokio::time::sleep(idle / 2).await;
        let now = moved.load(Ordering::Relaxed);
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
    }
}

/// The node whose turn it is, or the first behind it that is there.
async fn next(gate: &Gate) -> Option<Node<'_>> {
    let nodes = &gate.config.accept;
    let first = gate.turn.fetch_add(1, Ordering::Relaxed);
    for offset in 0..nodes.len() {
        let node = nodes[(first.wrapping_add(offset)) % nodes.len()];
        if let Some(accept) = gate.here.as_ref().filter(|accept| accept.is_at(node)) {
            return Some(Node::Here(accept));
        }
        match tokio::time::timeout(CONNECT, TcpStream::connect(node)).await {
            Ok(Ok(stream)) => {
                // Small replies must not wait for each other.
                let _ = stream.set_nodelay(true);
                return Some(Node::There(stream));
            }
            Ok(Err(error)) => tracing::debug!(%node, %error, "an accept node does not answer"),
            Err(_) => tracing::debug!(%node, "an accept node does not answer in time"),
        }
        if gate.tasks.is_stopping() {
            return None;
        }
    }
    None
}

/// Copies until the end of the input, then closes the output's side, after an error too. Counts in `moved`.
async fn copy(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, moved: &AtomicU64) -> io::Result<()> {
    let copied = pump(from, to, moved).await;
    let closed = to.shutdown().await;
    copied.and(closed)
}

/// Nothing is kept while neither side moves: most connections are silent.
async fn pump(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, moved: &AtomicU64) -> io::Result<()> {
    loop {
        let mut kept = Ok(Vec::new());
        match read_at_once(from, MOST, |bytes| kept = write_at_once(to, bytes)) {
            None => wait(from.readable()).await?,
            Some(read) => {
                if read? == 0 {
                    return Ok(());
                }
                moved.fetch_add(1, Ordering::Relaxed);
            }
        }
        let kept = kept?;
        let mut left = &kept[..];
        while !left.is_empty() {
            let taken = to.write(left).await?;
            moved.fetch_add(1, Ordering::Relaxed);
            left = &left[taken..];
        }
    }
}

/// Writes what is taken without waiting, and gives the rest.
fn write_at_once(to: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let taken = to.write(bytes).now_or_never().transpose()?.unwrap_or(0);
    Ok(bytes[taken..].to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::rc::Rc;
    use std::sync::atomic::AtomicUsize;

    use runtime::config::Section;
    use runtime::listener::{Room, Settings};
    use runtime::tasks::Tasks;
    use serde_json::json;
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::config::Config;
    use crate::lists::Lists;

    fn gate(accept: &[SocketAddr]) -> Gate {
        let settings = json!({"accept": accept, "resolver": "127.0.0.1:9"});
        let config = Config::read(Section::root(settings, Rc::default()));
        let lists = Lists::new(&config).unwrap();
        Gate { config, lists, turn: AtomicUsize::new(0), here: None, tasks: Tasks::default() }
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Both ends of a connection: the client's, and the one that the gate has.
    async fn connection() -> (TcpStream, TcpStream) {
        let (listener, address) = listener().await;
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// Passes a connection through that gate, while client and node do their part.
    async fn pass(
        gate: &Gate,
        client: impl AsyncFnOnce(TcpStream) -> String,
        node: impl Future<Output = ()>,
    ) -> (io::Result<()>, String) {
        let (theirs, ours) = connection().await;
        let peer = theirs.local_addr().unwrap();
        let (passed, heard, ()) = tokio::join!(through(gate, ours, peer, GateFacts::default()), client(theirs), node);
        (passed, heard)
    }

    async fn hear(mut client: TcpStream) -> String {
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        heard
    }

    /// The node's side of a connection, behind the PROXY header.
    async fn taken(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        while Header::decode(&bytes).unwrap().is_none() {
            bytes.push(stream.read_u8().await.unwrap());
        }
        stream
    }

    /// An address at which nobody listens, nor will as long as the socket is there.
    fn nobody() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn a_node_that_is_gone_is_passed_over() {
        let (listener, address) = listener().await;
        let (_kept, gone) = nobody();
        let gate = gate(&[gone, address]);
        for _ in 0..3 {
            let node = async { taken(&listener).await.write_all(b"220 here\r\n").await.unwrap() };
            let (passed, heard) = pass(&gate, hear, node).await;
            passed.unwrap();
            assert_eq!(heard, "220 here\r\n");
        }
    }

    #[tokio::test]
    async fn without_any_node_the_client_is_told_to_come_again() {
        let (_kept, gone) = nobody();
        let gate = gate(&[gone, gone]);
        let (passed, heard) = pass(&gate, hear, async {}).await;
        passed.unwrap();
        assert_eq!(heard, "421 4.3.2 Service not available; try again later\r\n");
    }

    /// A client that has closed its side still wants to know what became of its mail.
    #[tokio::test]
    async fn a_late_reply_reaches_a_client_that_sends_no_more() {
        let (listener, address) = listener().await;
        let node = async {
            let mut node = taken(&listener).await;
            let mut said = String::new();
            node.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, ".\r\n");
            node.write_all(b"250 kept\r\n").await.unwrap();
        };
        let client = async |mut client: TcpStream| {
            client.write_all(b".\r\n").await.unwrap();
            client.shutdown().await.unwrap();
            hear(client).await
        };
        let (passed, heard) = pass(&gate(&[address]), client, node).await;
        passed.unwrap();
        assert_eq!(heard, "250 kept\r\n");
    }

    /// A large mail over a slow line: for long the node has nothing to say.
    #[tokio::test]
    async fn a_connection_on_which_one_side_is_silent_is_not_idle() {
        let (listener, address) = listener().await;
        let node = async {
            let mut node = taken(&listener).await;
            let mut said = Vec::new();
            node.read_to_end(&mut said).await.unwrap();
            node.write_all(format!("{}\r\n", said.len()).as_bytes()).await.unwrap();
        };
        let client = async |mut client: TcpStream| {
            for _ in 0..40 {
                client.write_all(b"x").await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            client.shutdown().await.unwrap();
            hear(client).await
        };
        let mut gate = gate(&[address]);
        gate.config.idle = Duration::from_secs(2);
        let (passed, heard) = pass(&gate, client, node).await;
        passed.unwrap();
        assert_eq!(heard, "40\r\n");
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed() {
        let (listener, address) = listener().await;
        let mut gate = gate(&[address]);
        gate.config.idle = Duration::from_millis(50);
        let node = async { assert_eq!(taken(&listener).await.read(&mut [0]).await.unwrap(), 0) };
        let (passed, heard) = pass(&gate, hear, node).await;
        assert_eq!(passed.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(heard, "");
    }

    /// What a client hears that sends and sends, and waits for nothing.
    async fn flood(client: TcpStream) -> String {
        let (mut read, mut write) = client.into_split();
        let mut heard = String::new();
        let flood = async { while write.write_all(&[b'x'; 4096]).await.is_ok() {} };
        tokio::select! {
            () = flood => {}
            () = async { read.read_to_string(&mut heard).await.map(drop).unwrap_or_default() } => {}
        }
        heard
    }

    /// The node has had enough and closes, the client is in the middle of a flood.
    async fn last_word(tasks: Tasks) -> String {
        let (listener, address) = listener().await;
        let node = async {
            let mut node = taken(&listener).await;
            node.read_u8().await.unwrap();
            node.write_all(b"421 enough\r\n").await.unwrap();
        };
        pass(&Gate { tasks, ..gate(&[address]) }, flood, node).await.1
    }

    #[tokio::test]
    async fn a_last_word_reaches_a_client_that_goes_on_sending() {
        assert_eq!(last_word(Tasks::default()).await, "421 enough\r\n");
    }

    #[tokio::test]
    async fn a_last_word_reaches_it_in_a_shutdown_too() {
        let tasks = Tasks::default();
        tasks.stop();
        assert_eq!(last_word(tasks).await, "421 enough\r\n");
    }

    #[tokio::test]
    async fn who_talks_early_hears_that_there_is_no_node() {
        let (_kept, gone) = nobody();
        let gate = gate(&[gone]);
        let (_, heard) = pass(&gate, flood, async {}).await;
        assert!(heard.starts_with("421 4.3.2 "), "{heard}");
    }

    #[tokio::test]
    async fn who_talks_early_hears_why_it_is_refused() {
        let gate = gate(&[]);
        let (client, ours) = connection().await;
        let peer = client.local_addr().unwrap();
        let listing = Listing { zone: "bl.example".into(), code: "127.0.0.2".into(), weight: 1.0, text: String::new() };
        let ((), heard) = tokio::join!(refuse(&gate, ours, peer, &listing), flood(client));
        assert!(heard.starts_with("554 "), "{heard}");
    }

    /// An accept stage of this process at that address, which tells each client who it is.
    fn here(address: SocketAddr, tasks: &Tasks) -> Handover {
        let room = Room::new(1, 1);
        let settings = Settings { name: "test", addresses: vec![address], room, busy: b"421 busy\r\n" };
        let stops = tasks.clone();
        Handover::new(settings, tasks.clone(), move |mut handed: Handed| {
            let tasks = stops.clone();
            async move {
                let told = format!("220 {} {}\r\n", handed.address, handed.facts.unknown.join(","));
                handed.client.write_all(told.as_bytes()).await.unwrap();
                linger(&mut handed.client, &tasks).await;
            }
        })
    }

    /// Nobody listens, and the client is served.
    #[tokio::test]
    async fn a_client_is_handed_over_within_the_process() {
        let (_kept, nobody) = nobody();
        let mut gate = gate(&[nobody]);
        gate.here = Some(here(nobody, &gate.tasks));
        let (client, ours) = connection().await;
        let peer = client.local_addr().unwrap();
        let facts = GateFacts { unknown: vec!["bl.example".into()], ..GateFacts::default() };
        let passed = through(&gate, ours, peer, facts);
        let (passed, heard) = tokio::join!(passed, flood(client));
        passed.unwrap();
        assert_eq!(heard, format!("220 {peer} bl.example\r\n"));
    }

    #[tokio::test]
    async fn the_turn_goes_round_all_the_same() {
        let (listener, there) = listener().await;
        let (_kept, nobody) = nobody();
        let mut gate = gate(&[nobody, there]);
        gate.here = Some(here(nobody, &gate.tasks));
        for turn in 0..4 {
            if turn % 2 == 0 {
                let (passed, heard) = pass(&gate, flood, async {}).await;
                passed.unwrap();
                assert!(heard.starts_with("220 127.0.0.1:"), "{heard}");
            } else {
                let node = async { taken(&listener).await.write_all(b"220 there\r\n").await.unwrap() };
                let (passed, heard) = pass(&gate, hear, node).await;
                passed.unwrap();
                assert_eq!(heard, "220 there\r\n");
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_handed_over_in_a_shutdown() {
        let (_kept, nobody) = nobody();
        let mut gate = gate(&[nobody]);
        gate.here = Some(here(nobody, &gate.tasks));
        gate.tasks.stop();
        let (passed, heard) = pass(&gate, flood, async {}).await;
        passed.unwrap();
        assert!(heard.starts_with("421 4.3.2 "), "{heard}");
    }

    /// The gate's place is given back by the end of the whole.
    #[tokio::test]
    async fn a_client_that_is_handed_over_keeps_its_place() {
        let (_kept, nobody) = nobody();
        let mut gate = gate(&[nobody]);
        gate.here = Some(here(nobody, &gate.tasks));
        let (mut client, ours) = connection().await;
        let peer = client.local_addr().unwrap();
        let passed = through(&gate, ours, peer, GateFacts::default());
        tokio::pin!(passed);
        let mut heard = String::new();
        tokio::select! {
            _ = &mut passed => panic!("its place was given back"),
            read = client.read_to_string(&mut heard) => { read.unwrap(); }
        }
        assert!(futures::poll!(&mut passed).is_pending());
        drop(client);
        passed.await.unwrap();
    }
}
