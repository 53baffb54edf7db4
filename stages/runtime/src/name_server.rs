//! The name server of a stage that asks much of it for each mail, left alone while it is silent: otherwise each mail
//! would wait in vain for all its answers.
//!
//! Names whose own servers are silent say nothing about ours, or a sender could choose that nobody is asked any more.
//! So when something was not answered, ours is asked for what each knows, the servers of the root; any answer counts.
//! It fails open: mail goes on with results that are not known.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RecordType;
use tokio::time::{Instant, timeout};

use crate::breaker::{Advice, Breaker, Settings};
use crate::{dns, telemetry};

/// A name server and whether it answers.
pub struct NameServer {
    /// The stage that asks it, for the operator.
    stage: &'static str,
    resolver: TokioResolver,
    /// Remembers nothing: what it hears was said just now.
    prober: TokioResolver,
    breaker: Breaker,
}

impl NameServer {
    /// The name server at this address, or the system's. A look-up ends within `deadline`.
    ///
    /// # Errors
    /// When the system's configuration cannot be read.
    pub fn new(
        stage: &'static str,
        address: Option<SocketAddr>,
        deadline: Duration,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let (resolver, prober) = (dns::resolver(address, deadline)?, dns::forgetful(address, deadline)?);
        Ok(Self { stage, resolver, prober, breaker: Breaker::new(settings) })
    }

    /// What asks it.
    pub fn resolver(&self) -> &TokioResolver {
        &self.resolver
    }

    /// Whether to ask it now. If it was silent and the time has come to try it, this waits for its answer, and no
    /// longer than `patience`.
    pub async fn is_to_be_asked(&self, patience: Duration) -> bool {
        match self.breaker.advice() {
            Advice::Ask => true,
            Advice::Leave => false,
            Advice::Try => self.look(patience).await,
        }
    }

    /// Something was not answered. Finds out within `patience` whether it was this name server that was silent.
    pub async fn doubt(&self, patience: Duration) {
        self.look(patience).await;
    }

    async fn look(&self, patience: Duration) -> bool {
        let asked = Instant::now();
        let is_there = match timeout(patience, self.prober.lookup(".", RecordType::NS)).await {
            // An error that it has sent is an answer.
            Ok(Ok(_) | Err(NetError::Dns(_))) => true,
            // It could not be asked: nothing is known of it.
            Ok(Err(error)) if !dns::is_silence(&error) => {
                tracing::debug!(self.stage, %error, "the name server could not be asked");
                return false;
            }
            Ok(Err(_)) | Err(_) => false,
        };
        let stage = self.stage;
        if is_there && self.breaker.answered() {
            telemetry::dns_silent(stage, false);
            tracing::info!(stage, "the name server answers again");
        } else if !is_there && self.breaker.silent(asked) {
            telemetry::dns_silent(stage, true);
            tracing::warn!(stage, "the name server is silent; mail goes on, and what DNS would say of it is not known");
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::future::join_all;
    use tokio::net::UdpSocket;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    /// What is advised after so many doubts that came at once, and this as often one after another.
    async fn check(address: SocketAddr, at_once: usize, times: usize, want: Advice) {
        let settings = Settings { silent_after: 5, silent_for: Duration::from_secs(60) };
        let name_server = NameServer::new("test", Some(address), Duration::from_secs(1), settings).unwrap();
        for _ in 0..times {
            join_all((0..at_once).map(|_| name_server.doubt(PATIENCE))).await;
        }
        assert_eq!(name_server.breaker.advice(), want);
    }

    /// A burst of mail waited for one answer together, and so it was silent as often as there were mails.
    #[tokio::test]
    async fn a_moment_of_silence_is_one() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        check(address, 20, 1, Advice::Ask).await;
        check(address, 20, 4, Advice::Ask).await;
        check(address, 1, 5, Advice::Leave).await;
    }

    /// Without descriptors nobody could be asked, and everybody was taken for silent. Here nothing can be sent.
    #[tokio::test]
    async fn what_fails_in_this_process_is_not_its_silence() {
        check("127.0.0.1:0".parse().unwrap(), 1, 10, Advice::Ask).await;
    }
}
