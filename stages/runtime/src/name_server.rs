//! The name server of a stage that asks much of it for each mail, left alone while it is silent: otherwise each mail would
//! wait in vain for all its answers.
//!
//! Names whose own servers are silent say nothing about ours, or a sender could choose that nobody is asked any more. So when
//! something was not answered, ours is asked for what each knows, the servers of the root; any answer counts. It fails open:
//! mail goes on with results that are not known.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RecordType;

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

    /// Whether to ask it now. If it was silent and the time has come to try it, this waits for its answer, and no longer
    /// than `patience`.
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
        let said = tokio::time::timeout(patience, self.prober.lookup(".", RecordType::NS)).await;
        // An error that it has sent is an answer.
        let is_there = matches!(said, Ok(Ok(_) | Err(NetError::Dns(_))));
        let stage = self.stage;
        if is_there && self.breaker.answered() {
            telemetry::dns_silent(stage, false);
            tracing::info!(stage, "the name server answers again");
        } else if !is_there && self.breaker.silent() {
            telemetry::dns_silent(stage, true);
            tracing::warn!(stage, "the name server is silent; mail goes on, and what DNS would say of it is not known");
        }
        is_there
    }
}
