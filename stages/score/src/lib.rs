//! Spam scoring: authentication, rules, and a score with its reasons.
//!
//! Mail goes on, into Junk, or is refused, by the sum of its symbols' points. It fails open: what DNS does not answer
//! weighs nothing, and a mail that cannot be parsed is scored for that.

mod authenticate;
pub mod config;
pub mod decide;
pub mod facts;
pub mod fields;
pub mod html;
pub mod rules;

pub use authenticate::{Asked, Authentication, Word};

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use mail_parser::{Message, MessageParser};
use proto::Envelope;
use runtime::{Fault, Mail, Outcome, Stage, dns};

use config::Config;
use facts::Facts;

/// The stage.
pub struct Score {
    config: Config,
    host: String,
    resolver: TokioResolver,
}

impl Score {
    /// Scoring under the name of this host, which stands in Authentication-Results (RFC 8601 section 2.5).
    ///
    /// # Errors
    /// When the resolver cannot be set up.
    pub fn new(config: Config, host: String) -> anyhow::Result<Self> {
        let resolver = dns::resolver(config.resolver, config.deadline)?;
        Ok(Self { config, host, resolver })
    }

    /// The outcome for one mail.
    pub async fn score(&self, envelope: &Envelope, body: &Bytes) -> Outcome {
        let parsed = parse(body);
        let told = authenticate::authenticate(
            &self.resolver,
            &self.host,
            self.config.deadline,
            envelope,
            parsed.as_ref(),
            body,
        )
        .await;
        let cuts = fields::forged_results(body, &self.host);
        let mut facts = Facts::read(envelope, &self.host, parsed.as_ref(), body);
        facts.authentication = told.results;
        facts.forged_results = cuts.len();
        let symbols = decide::symbols(&self.config.points, &facts);
        let mut outcome = decide::decide(self.config.thresholds, symbols);
        if let Outcome::Pass(verdict) | Outcome::Reject(verdict) = &mut outcome {
            verdict.headers.splice(0..0, told.field);
            verdict.cuts = cuts;
        }
        outcome
    }
}

impl Stage for Score {
    async fn handle(&self, mail: &Mail) -> Result<Outcome, Fault> {
        let body = mail.body().await?;
        Ok(self.score(mail.envelope(), &body).await)
    }
}

/// The parsed mail; none when it is no mail, or when the parser gives up on it in whatever way.
pub fn parse(body: &[u8]) -> Option<Message<'_>> {
    std::panic::catch_unwind(|| MessageParser::default().parse(body))
        .inspect_err(|_| tracing::warn!("the parser panicked at a mail; it is scored as unparsable"))
        .ok()
        .flatten()
}
