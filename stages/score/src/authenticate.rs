//! Who really sent this mail: SPF, DKIM, DMARC and ARC, by mail-auth. It fails open: what DNS does not answer within the
//! deadline is a temporary error, and temporary errors weigh nothing.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    ArcOutput, AuthenticatedMessage, AuthenticationResults, DkimOutput, DkimResult, DmarcOutput, DmarcResult,
    IprevResult, MessageAuthenticator, SpfOutput, SpfResult,
};
use proto::Envelope;
use runtime::dns;

/// Signatures that are looked at. Each costs a look-up and a verification that its sender chooses (RFC 6376
/// section 8.4); real mail has one to three.
const SIGNATURES: usize = 8;

/// One method's result (RFC 8601 section 2.7), as far as rules tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Word {
    /// Nothing to judge by.
    #[default]
    None,
    /// Proven.
    Pass,
    /// Disproven.
    Fail,
    /// Probably not (SPF).
    SoftFail,
    /// The domain says nothing.
    Neutral,
    /// DNS did not answer.
    TempError,
    /// The domain's record is broken.
    PermError,
}

/// What a domain asks for when DMARC fails (RFC 7489 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asked {
    /// Nothing.
    #[default]
    Nothing,
    /// Junk.
    Quarantine,
    /// Refusal.
    Reject,
}

/// The results for one mail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Authentication {
    /// Of the reverse path, or of HELO for the null sender (RFC 7208).
    pub spf: Word,
    /// The best of all signatures (RFC 6376).
    pub dkim: Word,
    /// Whether one of the two is aligned with the author's domain (RFC 7489).
    pub dmarc: Word,
    /// What the author's domain asks for.
    pub policy: Asked,
    /// The chain of sealers (RFC 8617).
    pub arc: Word,
    /// Whether the client's reverse name leads back to it (RFC 8601 section 2.7.3).
    pub iprev: Word,
}

/// The results, and the header field that tells them, its line end included.
pub(crate) struct Told {
    pub(crate) results: Authentication,
    pub(crate) field: Vec<u8>,
}

/// Asks DNS about a mail.
pub(crate) async fn authenticate(
    resolver: &TokioResolver,
    host: &str,
    deadline: Duration,
    envelope: &Envelope,
    raw: &[u8],
) -> Told {
    let asked = tokio::time::timeout(deadline, ask(resolver, host, envelope, raw)).await;
    asked.unwrap_or_else(|_| Told {
        results: Authentication { spf: Word::TempError, ..Authentication::default() },
        field: format!("Authentication-Results: {host};\r\n\tspf=temperror (DNS did not answer in time)\r\n")
            .into_bytes(),
    })
}

async fn ask(resolver: &TokioResolver, host: &str, envelope: &Envelope, raw: &[u8]) -> Told {
    let ask = MessageAuthenticator(resolver.clone());
    let client = envelope.client.address;
    let (helo, from) = (envelope.client.helo.as_str(), envelope.reverse_path.as_str());
    let identity = if from.is_empty() {
        SpfParameters::verify_ehlo(client, helo, host)
    } else {
        SpfParameters::verify_mail_from(client, helo, host, from)
    };
    let reverse =
        async { if dns::is_private(client) { Word::None } else { iprev(&ask.verify_iprev(client).await.result) } };
    let (spf, iprev) = tokio::join!(ask.verify_spf(identity), reverse);
    let mut results = Authentication { spf: spf_word(spf.result()), iprev, ..Authentication::default() };
    let mut told = AuthenticationResults::new(host);
    told = with_spf(told, &spf, envelope);
    // Strict: signatures with a body length limit prove nothing about what follows it (RFC 6376 section 8.2).
    if let Some(mut message) = AuthenticatedMessage::parse(raw) {
        message.dkim_headers.truncate(SIGNATURES);
        let (dkim, arc) = tokio::join!(ask.verify_dkim(&message), ask.verify_arc(&message));
        let domain = from.rsplit_once('@').map_or(helo, |(_, domain)| domain);
        let dmarc = ask.verify_dmarc(DmarcParameters::new(&message, &dkim, domain, &spf)).await;
        told = with_message(told, &mut results, &message, &dkim, &arc, &dmarc, client);
    }
    Told { results, field: format!("Authentication-Results: {told}\r\n").into_bytes() }
}

fn with_spf<'a>(told: AuthenticationResults<'a>, spf: &SpfOutput, envelope: &Envelope) -> AuthenticationResults<'a> {
    let client = &envelope.client;
    if envelope.reverse_path.is_empty() {
        told.with_spf_ehlo_result(spf, client.address, &client.helo)
    } else {
        told.with_spf_mailfrom_result(spf, client.address, &envelope.reverse_path, &client.helo)
    }
}

fn with_message<'a>(
    mut told: AuthenticationResults<'a>,
    results: &mut Authentication,
    message: &AuthenticatedMessage<'_>,
    dkim: &[DkimOutput<'_>],
    arc: &ArcOutput<'_>,
    dmarc: &DmarcOutput,
    client: IpAddr,
) -> AuthenticationResults<'a> {
    results.dkim = best(dkim);
    results.arc = dkim_word(arc.result());
    results.dmarc = dmarc_word(&dmarc.result(), results.spf);
    results.policy = match dmarc.policy() {
        Policy::Reject => Asked::Reject,
        Policy::Quarantine => Asked::Quarantine,
        Policy::None | Policy::Unspecified => Asked::Nothing,
    };
    if !dkim.is_empty() {
        told = told.with_dkim_results(dkim, message.from());
    }
    if results.arc != Word::None {
        told = told.with_arc_result(arc, client);
    }
    told.with_dmarc_result(dmarc)
}

/// One valid signature is enough, whatever else is there (RFC 6376 section 6.1).
fn best(outputs: &[DkimOutput<'_>]) -> Word {
    let words: Vec<Word> = outputs.iter().map(|output| dkim_word(output.result())).collect();
    let order = [Word::Pass, Word::TempError, Word::Fail, Word::PermError, Word::Neutral];
    order.into_iter().find(|word| words.contains(word)).unwrap_or_default()
}

fn spf_word(result: SpfResult) -> Word {
    match result {
        SpfResult::Pass => Word::Pass,
        SpfResult::Fail => Word::Fail,
        SpfResult::SoftFail => Word::SoftFail,
        SpfResult::Neutral => Word::Neutral,
        SpfResult::TempError => Word::TempError,
        SpfResult::PermError => Word::PermError,
        SpfResult::None => Word::None,
    }
}

fn dkim_word(result: &DkimResult) -> Word {
    match result {
        DkimResult::Pass => Word::Pass,
        DkimResult::Fail(_) => Word::Fail,
        DkimResult::Neutral(_) => Word::Neutral,
        DkimResult::PermError(_) => Word::PermError,
        DkimResult::TempError(_) => Word::TempError,
        DkimResult::None => Word::None,
    }
}

/// A failure is not one while SPF's half of it could not be asked: nobody is refused for a name server that is down.
fn dmarc_word(result: &DmarcResult, spf: Word) -> Word {
    match result {
        DmarcResult::Pass => Word::Pass,
        DmarcResult::Fail(_) if spf == Word::TempError => Word::TempError,
        DmarcResult::Fail(_) => Word::Fail,
        DmarcResult::TempError(_) => Word::TempError,
        DmarcResult::PermError(_) => Word::PermError,
        DmarcResult::None => Word::None,
    }
}

fn iprev(result: &IprevResult) -> Word {
    match result {
        IprevResult::Pass => Word::Pass,
        IprevResult::Fail(_) => Word::Fail,
        IprevResult::TempError(_) => Word::TempError,
        IprevResult::PermError(_) => Word::PermError,
        IprevResult::None => Word::None,
    }
}
