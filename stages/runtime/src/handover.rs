//! From the gate into an accept stage of the same process, without a connection between them.
//!
//! What the PROXY header would say goes along, and what would hold for the connection holds: the listener's places and
//! its busy line. The client's place at the gate stays taken until all is said, since the gate waits for that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use proto::GateFacts;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::linger::linger;
use crate::listener::{FAREWELL, Settings};
use crate::tasks::Tasks;
use crate::telemetry;

/// A client that the gate has let in. Whoever serves it says the last word, and lingers behind that.
#[derive(Debug)]
pub struct Handed {
    /// Its connection.
    pub client: TcpStream,
    /// Where it comes from.
    pub address: SocketAddr,
    /// What the gate found out.
    pub facts: GateFacts,
    /// How long nothing may move on a connection through the gate.
    pub idle: Duration,
}

/// The accept stage of this process, as the gate sees it.
#[derive(Clone)]
pub struct Handover {
    settings: Settings,
    tasks: Tasks,
    serve: Arc<dyn Fn(Handed) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Handover {
    /// The way to what listens with these settings, and serves with `serve`.
    pub fn new<Fut>(settings: Settings, tasks: Tasks, serve: impl Fn(Handed) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self { settings, tasks, serve: Arc::new(move |handed| Box::pin(serve(handed))) }
    }

    /// Whether a connection to this address would be taken, and by it.
    pub fn is_at(&self, node: SocketAddr) -> bool {
        let listens = |address: &SocketAddr| {
            let everywhere = address.ip().is_unspecified() && address.is_ipv4() == node.is_ipv4();
            address.port() == node.port() && (address.ip() == node.ip() || (everywhere && node.ip().is_loopback()))
        };
        !self.tasks.is_stopping() && self.settings.addresses.iter().any(listens)
    }

    /// Serves a client to its end, or tells it that there is no room.
    pub async fn serve(&self, mut handed: Handed) {
        match self.settings.room.take(self.settings.name, handed.address.ip()) {
            Ok(_place) => (self.serve)(handed).await,
            Err(limit) => {
                telemetry::turned_away(self.settings.name, limit);
                // It is told once; whether it listens is its own affair.
                let _ = tokio::time::timeout(FAREWELL, handed.client.write_all(self.settings.busy)).await;
                linger(&mut handed.client, &self.tasks).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::listener::Room;

    fn handover(addresses: &[&str], most: usize, tasks: &Tasks) -> Handover {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let settings = Settings { name: "test", addresses, room: Room::new(most, most), busy: b"421 busy\r\n" };
        let tasks_there = tasks.clone();
        Handover::new(settings, tasks.clone(), move |mut handed| {
            let tasks = tasks_there.clone();
            async move {
                handed.client.write_all(b"220 here\r\n").await.unwrap();
                let _ = handed.client.read_u8().await;
                linger(&mut handed.client, &tasks).await;
            }
        })
    }

    #[test]
    fn only_what_listens_there_is_meant() {
        #[track_caller]
        fn check(listens: &[&str], node: &str, want: bool) {
            assert_eq!(handover(listens, 1, &Tasks::default()).is_at(node.parse().unwrap()), want);
        }
        check(&["127.0.0.1:2526"], "127.0.0.1:2526", true);
        check(&["127.0.0.1:2526"], "127.0.0.1:2527", false);
        check(&["127.0.0.1:2526"], "127.0.0.2:2526", false);
        check(&["192.0.2.1:1", "[::1]:2526"], "[::1]:2526", true);
        check(&["0.0.0.0:2526"], "127.0.0.1:2526", true);
        check(&["0.0.0.0:2526"], "192.0.2.1:2526", false);
        check(&["0.0.0.0:2526"], "[::1]:2526", false);
        check(&["[::]:2526"], "[::1]:2526", true);
        check(&[], "127.0.0.1:2526", false);
    }

    #[test]
    fn what_is_stopping_is_not_there() {
        let tasks = Tasks::default();
        let handover = handover(&["127.0.0.1:2526"], 1, &tasks);
        tasks.stop();
        assert!(!handover.is_at("127.0.0.1:2526".parse().unwrap()));
    }

    async fn handed() -> (TcpStream, Handed) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (accepted, address) = accepted.unwrap();
        let handed = Handed { client: accepted, address, facts: GateFacts::default(), idle: Duration::from_secs(60) };
        (client.unwrap(), handed)
    }

    /// One too many hears so, even if it talks and talks; and the place that is given back is had by the next.
    #[tokio::test]
    async fn the_listeners_places_hold() {
        let handover = handover(&[], 1, &Tasks::default());
        let (mut first, handed_first) = handed().await;
        let (second, handed_second) = handed().await;
        let first_heard = async {
            let mut heard = [0; 10];
            first.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"220 here\r\n");
            let flooded = async {
                let (mut read, mut write) = second.into_split();
                let mut heard = String::new();
                let flood = async { while write.write_all(&[b'x'; 4096]).await.is_ok() {} };
                tokio::select! {
                    () = flood => {}
                    read = read.read_to_string(&mut heard) => { read.unwrap(); }
                }
                heard
            };
            let ((), heard) = tokio::join!(handover.serve(handed_second), flooded);
            assert_eq!(heard, "421 busy\r\n");
            drop(first);
        };
        tokio::join!(handover.serve(handed_first), first_heard);
        let (mut third, handed_third) = handed().await;
        let heard = async {
            third.write_all(b"x").await.unwrap();
            third.shutdown().await.unwrap();
            let mut heard = String::new();
            third.read_to_string(&mut heard).await.unwrap();
            heard
        };
        let ((), heard) = tokio::join!(handover.serve(handed_third), heard);
        assert_eq!(heard, "220 here\r\n");
    }
}
