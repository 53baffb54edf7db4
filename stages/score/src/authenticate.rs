//! Who really sent this mail: SPF, DKIM, DMARC and ARC, by mail-auth. It fails open: what DNS does not answer within
//! the deadline is a temporary error, and temporary errors weigh nothing. While our own name server is silent
//! everything is one, at once.

use std::net::IpAddr;
use std::time::Duration;

use mail_auth::common::headers::Header;
use mail_auth::dkim::Signature;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    ArcOutput, AuthenticatedMessage, AuthenticationResults, DkimOutput, DkimResult, DmarcOutput, DmarcResult, DnsError,
    Error, IprevResult, MessageAuthenticator, SpfOutput, SpfResult,
};
use proto::Envelope;
use runtime::dns;
use runtime::name_server::NameServer;
use tokio::time::{Instant, timeout_at};

/// Signatures that are looked at. Each costs a look-up and a verification that its sender chooses (RFC 6376
/// section 8.4); real mail has one to three.
const SIGNATURES: usize = 8;

/// Questions about one mail that wait for DNS at the same time: each signature's, those of SPF, the reverse name, ARC
/// and DMARC, and whether the name server is there.
pub const QUESTIONS: usize = SIGNATURES + 5;

/// Bytes of the field that tells the results. The sender chooses the names in it; what is longer than this has no
/// reader, and tells of SPF alone.
const FIELD: usize = 16 * 1024;

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

/// Until when something has to be answered; none where nothing is asked.
type Deadline = Option<Instant>;

async fn by<T>(until: Deadline, asked: impl Future<Output = T>) -> Option<T> {
    timeout_at(until?, asked).await.ok()
}

/// Asks DNS about a mail, unless our name server is known to be silent. Every question has its own time: a sender whose
/// name server is silent loses its own result, and takes no other with it.
pub(crate) async fn authenticate(
    name_server: &NameServer,
    host: &str,
    deadline: Duration,
    envelope: &Envelope,
    raw: &[u8],
) -> Told {
    let ask = MessageAuthenticator(name_server.resolver().clone());
    let client = envelope.client.address;
    let (helo, from) = (envelope.client.helo.as_str(), envelope.reverse_path.as_str());
    let domain = from.rsplit_once('@').map_or(helo, |(_, domain)| domain);
    let message = read(raw);
    // To read a large mail takes its time, too. What DMARC asks last has what is left, and so has a doubt.
    let (end, last) = (Instant::now() + deadline, deadline / 4);
    let end = name_server.is_to_be_asked(last).await.then_some(end);
    let first = end.map(|end| end - last);
    let alone: Vec<_> = message.iter().flat_map(one_by_one).collect();
    let reverse = async {
        if dns::is_private(client) {
            return Word::None;
        }
        let verified = by(first, ask.verify_iprev(client)).await;
        verified.map_or(Word::TempError, |verified| iprev(&verified.result))
    };
    let arc = async {
        match &message {
            Some(message) => Some(by(first, ask.verify_arc(message)).await),
            None => None,
        }
    };
    let (spf, iprev, dkim, arc, ()) = tokio::join!(
        spf(&ask, host, envelope, domain, first),
        reverse,
        signatures(&ask, &alone, first),
        arc,
        records(&ask, message.as_ref(), domain, first)
    );
    let mut results = Authentication { spf: spf_word(spf.result()), iprev, ..Authentication::default() };
    let mut told = with_spf(AuthenticationResults::new(host), &spf, envelope).to_string();
    let is_in_doubt = [results.spf, results.iprev, best(&dkim)].contains(&Word::TempError);
    let doubt = async {
        if let (Some(_), true) = (end, is_in_doubt) {
            name_server.doubt(last).await;
        }
    };
    let dmarc = async {
        let message = message.as_ref()?;
        by(end, ask.verify_dmarc(DmarcParameters::new(message, &dkim, domain, &spf))).await
    };
    let (dmarc, ()) = tokio::join!(dmarc, doubt);
    if let (Some(message), Some(arc)) = (&message, &arc) {
        let all = with_spf(AuthenticationResults::new(host), &spf, envelope);
        let all = with_message(all, &mut results, message, &dkim, arc.as_ref(), dmarc.as_ref(), client).to_string();
        if all.len() <= FIELD {
            told = all;
        }
    }
    Told { results, field: format!("Authentication-Results: {told}\r\n").into_bytes() }
}

fn read(raw: &[u8]) -> Option<AuthenticatedMessage<'_>> {
    let mut message = AuthenticatedMessage::parse(raw)?;
    message.dkim_headers.truncate(SIGNATURES);
    message.errors.truncate(SIGNATURES);
    Some(message)
}

async fn spf(ask: &MessageAuthenticator, host: &str, envelope: &Envelope, domain: &str, until: Deadline) -> SpfOutput {
    let (client, helo) = (envelope.client.address, envelope.client.helo.as_str());
    let identity = match envelope.reverse_path.as_str() {
        "" => SpfParameters::verify_ehlo(client, helo, host),
        from => SpfParameters::verify_mail_from(client, helo, host, from),
    };
    let late = || SpfOutput::new(domain.to_owned()).with_result(SpfResult::TempError);
    by(until, ask.verify_spf(identity)).await.unwrap_or_else(late)
}

/// The message once for each signature, with that one alone.
fn one_by_one<'x>(message: &AuthenticatedMessage<'x>) -> Vec<AuthenticatedMessage<'x>> {
    let with_one = |(number, header): (usize, &Header<'x, Signature>)| {
        let mut one = AuthenticatedMessage { dkim_headers: vec![header.clone()], ..message.clone() };
        // What cannot be read at all is told once.
        if number > 0 {
            one.errors.clear();
        }
        one
    };
    let alone: Vec<_> = message.dkim_headers.iter().enumerate().map(with_one).collect();
    if alone.is_empty() { vec![message.clone()] } else { alone }
}

/// Strict: signatures with a body length limit prove nothing about what follows it (RFC 6376 section 8.2).
async fn signatures<'x>(
    ask: &MessageAuthenticator,
    alone: &'x [AuthenticatedMessage<'x>],
    until: Deadline,
) -> Vec<DkimOutput<'x>> {
    let verify = |message: &'x AuthenticatedMessage<'x>| async move {
        by(until, ask.verify_dkim(message)).await.unwrap_or_else(|| {
            let late = || DkimOutput::temp_err(Error::Dns(DnsError::Resolver("no answer in time".to_owned())));
            message.dkim_headers.iter().map(|header| late().with_signature(&header.header)).collect()
        })
    };
    futures::future::join_all(alone.iter().map(verify)).await.into_iter().flatten().collect()
}

/// Asks for everything that DMARC will want to know, whatever the others find out meanwhile. Its answers stay in the
/// resolver's cache: asked one after another, they would take longer than what is left at the end.
async fn records(
    ask: &MessageAuthenticator,
    message: Option<&AuthenticatedMessage<'_>>,
    domain: &str,
    until: Deadline,
) {
    let Some(message) = message else { return };
    // These are the results that leave no domain out.
    let spf = SpfOutput::new(domain.to_owned()).with_result(SpfResult::Pass);
    let undecided = || DkimOutput::temp_err(Error::Dns(DnsError::Resolver(String::new())));
    let dkim: Vec<_> = message.dkim_headers.iter().map(|header| undecided().with_signature(&header.header)).collect();
    let asked = ask.verify_dmarc(DmarcParameters::new(message, &dkim, domain, &spf));
    // What is not answered now is asked for again at the end.
    let _ = by(until, asked).await;
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
    arc: Option<&ArcOutput<'_>>,
    dmarc: Option<&DmarcOutput>,
    client: IpAddr,
) -> AuthenticationResults<'a> {
    results.dkim = best(dkim);
    results.arc = arc.map_or(Word::TempError, |arc| dkim_word(arc.result()));
    results.dmarc = dmarc.map_or(Word::TempError, |dmarc| dmarc_word(&dmarc.result()));
    results.policy = match dmarc.map_or(Policy::None, DmarcOutput::policy) {
        Policy::Reject => Asked::Reject,
        Policy::Quarantine => Asked::Quarantine,
        Policy::None | Policy::Unspecified => Asked::Nothing,
    };
    if !dkim.is_empty() {
        told = told.with_dkim_results(dkim, message.from());
    }
    if let (Some(arc), true) = (arc, results.arc != Word::None) {
        told = told.with_arc_result(arc, client);
    }
    match dmarc {
        Some(dmarc) => told.with_dmarc_result(dmarc),
        None => told,
    }
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

/// Where an aligned half of it could not be asked the library says so: nobody is refused for a name server that is
/// down, and nobody is spared for one that has nothing to do with the author's domain.
fn dmarc_word(result: &DmarcResult) -> Word {
    match result {
        DmarcResult::Pass => Word::Pass,
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
