//! Spam scoring: authentication, rules, and a score with its reasons.
//!
//! Mail goes on, into Junk, or is refused, by the sum of its symbols' points. It fails open: what DNS does not answer
//! weighs nothing, a name server that is silent is left alone for a while, and a mail that cannot be parsed is scored
//! for that.

mod authenticate;
pub mod config;
pub mod decide;
pub mod facts;
pub mod fields;
pub mod html;
pub mod rules;

pub use authenticate::{Asked, Authentication, QUESTIONS, Word};

use std::sync::Arc;

use bytes::Bytes;
use proto::Envelope;
use runtime::name_server::NameServer;
use runtime::{Fault, Mail, Outcome, Stage};
use tokio::runtime::Handle;

use config::Config;
use facts::Facts;
use fields::Forged;

/// Mail of more bytes is scored on a thread of its own, so that everything else goes on meanwhile.
const LARGE: usize = 256 * 1024;

/// The stage.
#[derive(Clone)]
pub struct Score {
    config: Arc<Config>,
    host: String,
    name_server: Arc<NameServer>,
}

impl Score {
    /// Scoring under the name of this host, which stands in Authentication-Results (RFC 8601 section 2.5).
    ///
    /// # Errors
    /// When the resolver cannot be set up.
    pub fn new(config: Config, host: String) -> anyhow::Result<Self> {
        let name_server = NameServer::new("score", config.resolver, config.deadline, config.silence)?;
        Ok(Self { config: Arc::new(config), host, name_server: Arc::new(name_server) })
    }

    /// The outcome for one mail.
    pub async fn score(&self, envelope: &Envelope, body: &Bytes) -> Outcome {
        let deadline = self.config.deadline;
        let told = authenticate::authenticate(&self.name_server, &self.host, deadline, envelope, body).await;
        let forged = Forged::find(body, &self.host);
        let mut facts = Facts::read(envelope, &self.host, body);
        facts.authentication = told.results;
        facts.forged_results = forged.results;
        let symbols = decide::symbols(&self.config.points, &facts);
        let mut outcome = decide::decide(self.config.thresholds, symbols);
        if let Outcome::Pass(verdict) | Outcome::Reject(verdict) = &mut outcome {
            verdict.headers.splice(0..0, told.field);
            verdict.cuts = forged.cuts;
        }
        outcome
    }

    async fn score_apart(&self, envelope: Envelope, body: Bytes) -> Result<Outcome, Fault> {
        let (score, runtime) = (self.clone(), Handle::current());
        let scored = tokio::task::spawn_blocking(move || runtime.block_on(score.score(&envelope, &body))).await;
        scored.map_err(|ended| match ended.try_into_panic() {
            // The worker loop counts it.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(ended) => Fault::later(ended),
        })
    }
}

impl Stage for Score {
    async fn handle(&self, mail: &Mail) -> Result<Outcome, Fault> {
        let body = mail.body().await?;
        if body.len() > LARGE {
            return self.score_apart(mail.envelope().clone(), body).await;
        }
        Ok(self.score(mail.envelope(), &body).await)
    }
}
