//! Accepts connections: bounded in number, for everybody together and for each address, and drained at shutdown.
//!
//! A connection over a limit is closed after one line of the protocol's own, so that the peer knows to come back. An
//! error of the accepting itself (no file descriptors left) waits a moment and goes on: a listener never ends by
//! itself.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::tasks::Tasks;
use crate::telemetry;

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: i32 = 1024;

/// How long a peer that is turned away may take to read why.
pub(crate) const FAREWELL: Duration = Duration::from_millis(500);

/// What a listener is called, where it listens, and how many it serves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For logs and metrics.
    pub name: &'static str,
    /// Where.
    pub addresses: Vec<SocketAddr>,
    /// The places for its connections.
    pub room: Room,
    /// What a peer over a limit is told, with its line end.
    pub busy: &'static [u8],
}

/// Places for connections, of one listener or of several together.
#[derive(Debug, Clone)]
pub struct Room {
    most: usize,
    most_per_network: usize,
    open: Arc<Mutex<Open>>,
}

impl Room {
    /// Places for `most` connections at once, of which one network may have `most_per_network`.
    pub fn new(most: usize, most_per_network: usize) -> Self {
        Self { most, most_per_network, open: Arc::default() }
    }

    pub(crate) fn take(&self, name: &'static str, address: IpAddr) -> Result<Place, &'static str> {
        let network = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.most {
            return Err("connections");
        }
        let from_there = open.by_network.entry(network).or_default();
        if *from_there >= self.most_per_network {
            return Err("connections_per_address");
        }
        *from_there += 1;
        open.all += 1;
        let here = open.by_listener.entry(name).or_default();
        *here += 1;
        telemetry::connections(name, *here);
        Ok(Place { open: Arc::clone(&self.open), network, name })
    }
}

/// How many connections are open, and from where.
#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_listener: HashMap<&'static str, usize>,
    by_network: HashMap<IpAddr, usize>,
}

/// A place among the open connections; giving it back is dropping it.
pub(crate) struct Place {
    open: Arc<Mutex<Open>>,
    network: IpAddr,
    name: &'static str,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        if let Some(count) = open.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&self.network);
            }
        }
        if let Some(count) = open.by_listener.get_mut(self.name) {
            *count -= 1;
            telemetry::connections(self.name, *count);
        }
    }
}

/// Binds every address at once, so that a port that is taken is told at start.
///
/// # Errors
/// When an address cannot be had; the error names it.
pub fn bind(settings: &Settings) -> anyhow::Result<Vec<TcpListener>> {
    settings.addresses.iter().map(|address| bind_one(*address)).collect()
}

fn bind_one(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    };
    listen().with_context(|| format!("cannot listen on {address}"))
}

/// Serves every connection with `serve` until the shutdown; then takes no new ones. The connections themselves are
/// waited for by whoever waits for `tasks`.
///
/// # Errors
/// None at present; the loop ends with the shutdown.
pub async fn run<F, Fut>(settings: Settings, sockets: Vec<TcpListener>, tasks: Tasks, serve: F) -> anyhow::Result<()>
where
    F: Fn(TcpStream, SocketAddr) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let loops = sockets.into_iter().map(|socket| accept_loop(settings.clone(), socket, tasks.clone(), serve.clone()));
    futures::future::join_all(loops).await;
    // Without an address there is nothing to serve, and nothing wrong either.
    tasks.stopping().await;
    Ok(())
}

async fn accept_loop<F, Fut>(settings: Settings, socket: TcpListener, tasks: Tasks, serve: F)
where
    F: Fn(TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            () = tasks.stopping() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match settings.room.take(settings.name, peer.ip()) {
                Ok(place) => {
                    // Small replies must not wait for each other (Nagle); an error here means the peer is gone already.
                    let _ = stream.set_nodelay(true);
                    let served = serve(stream, peer);
                    tasks.spawn("connection", async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(limit) => {
                    telemetry::turned_away(settings.name, limit);
                    let busy = settings.busy;
                    tasks.spawn("farewell", turn_away(stream, busy));
                }
            },
            Err(error) => {
                tracing::warn!(listener = settings.name, %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn turn_away(mut stream: TcpStream, busy: &'static [u8]) {
    // The peer is told once; whether it listens is its own affair.
    let _ = tokio::time::timeout(FAREWELL, async {
        stream.write_all(busy).await?;
        stream.shutdown().await
    })
    .await;
}

/// What counts as one peer: an IPv4 address, or the /64 of an IPv6 address, which is what one customer has (RFC 6177).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn a_customer_is_one_network() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    fn settings(most: usize, most_per_address: usize) -> Settings {
        let addresses = vec!["127.0.0.1:0".parse().unwrap()];
        Settings { name: "test", addresses, room: Room::new(most, most_per_address), busy: b"421 busy\r\n" }
    }

    #[track_caller]
    fn check(settings: &Settings, from: &[u8], want: &[Result<(), &str>]) {
        let mut places = Vec::new();
        for (last, want) in from.iter().zip(want) {
            let place = settings.room.take("test", IpAddr::from([127, 0, 0, *last]));
            assert_eq!(place.as_ref().map(|_| ()).map_err(|limit| *limit), *want);
            places.extend(place);
        }
        drop(places);
        let open = settings.room.open.lock().unwrap();
        assert_eq!((open.all, open.by_network.len()), (0, 0));
    }

    #[test]
    fn limits_for_all_and_for_each_address() {
        check(
            &settings(3, 2),
            &[1, 1, 1, 2, 3],
            &[Ok(()), Ok(()), Err("connections_per_address"), Ok(()), Err("connections")],
        );
    }

    #[tokio::test]
    async fn one_too_many_is_told_so_and_the_place_is_given_back() {
        let settings = settings(1, 9);
        let sockets = bind(&settings).unwrap();
        let address = sockets[0].local_addr().unwrap();
        let tasks = Tasks::default();
        let serve = |mut stream: TcpStream, _| async move {
            let _ = stream.read(&mut [0; 1]).await;
        };
        tasks.spawn_vital("listener", run(settings, sockets, tasks.clone(), serve));
        let first = TcpStream::connect(address).await.unwrap();
        let mut told = String::new();
        while told.is_empty() {
            let mut second = TcpStream::connect(address).await.unwrap();
            second.read_to_string(&mut told).await.unwrap();
        }
        assert_eq!(told, "421 busy\r\n");
        drop(first);
        tasks.stop();
        assert!(tasks.finished(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let settings = Settings { addresses: vec![address], ..settings(1, 1) };
        assert_eq!(bind(&settings).unwrap_err().to_string(), format!("cannot listen on {address}"));
    }
}
