//! The envelope: everything about a mail but its body. It is checked when it is read; afterwards it can be trusted.

use bytes::Bytes;
use prost::Message as _;

use crate::verdict::Verdict;
use crate::{Digest, Disposition, MailId, Malformed, Millis, NodeName, unknown, wire};

/// The highest field number of `Envelope` in `mail.proto`; what lies above comes from a newer program.
const LAST_FIELD: u32 = 17;

/// A mail on its way, without its body.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// The mail's name for its whole life.
    pub id: MailId,
    /// The accept node whose journal keeps the mail.
    pub node: NodeName,
    /// Who handed it to us.
    pub client: Client,
    /// MAIL FROM without the angle brackets; empty for the null sender.
    pub reverse_path: String,
    /// At least one.
    pub recipients: Vec<Recipient>,
    /// When it was accepted.
    pub arrived: Millis,
    /// Until then the sender waits for the verdict.
    pub verdict_deadline: Millis,
    /// Where the body is, and what it must be.
    pub body: BodyRef,
    /// Header lines that go before the body, each with its CRLF.
    pub header_block: Vec<u8>,
    /// What the gate found out.
    pub gate: GateFacts,
    /// One for each stage passed.
    pub verdicts: Vec<Verdict>,
    /// How often the journal has sent it round: 0 the first time.
    pub round: u32,
    /// On copies for a store node: which mailboxes. Empty before deliver.
    pub targets: Vec<Target>,
    /// Why the mail goes to the quarantine, if it does.
    pub held: Option<String>,
    /// DSN envelope id as given (RFC 3461 section 4.4); empty if none.
    pub envid: String,
    /// `FULL`, `HDRS` or empty (RFC 3461 section 4.3).
    pub ret: String,
    /// Which recipients this round is for, as indexes: those that have not ended. Empty for all.
    pub open: Vec<u32>,
    /// Fields that this program does not know, encoded.
    unknown: Bytes,
}

/// The SMTP client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its address, as the gate saw it.
    pub address: std::net::IpAddr,
    /// Its port.
    pub port: u16,
    /// What it said in EHLO or HELO.
    pub helo: String,
    /// Verified reverse name; empty when there is none or nobody asked.
    pub reverse_name: String,
    /// Protocol version and cipher; empty in the clear.
    pub tls: String,
}

/// One RCPT TO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// As the sender wrote it, without the angle brackets.
    pub address: String,
    /// RFC 3461 ORCPT as given; empty if none.
    pub orcpt: String,
    /// RFC 3461 NOTIFY as given; empty if none.
    pub notify: String,
}

/// A body's place in the stream of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRef {
    /// In bytes.
    pub size: u64,
    /// Of the whole body as the sender gave it.
    pub digest: Digest,
    /// How many messages of the stream it takes; an empty body takes none.
    pub chunks: u32,
}

/// What the gate found out about the client.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GateFacts {
    /// Lists that name the client.
    pub listings: Vec<Listing>,
    /// Lists that did not answer in time.
    pub unknown: Vec<String>,
}

/// One list's word about the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The list.
    pub zone: String,
    /// The A record it answered.
    pub code: String,
    /// What the list's word weighs.
    pub weight: f64,
    /// The list's text record, or empty.
    pub text: String,
}

/// Which folder a copy goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// The account's INBOX.
    Inbox,
    /// The account's Junk.
    Junk,
    /// The quarantine: the target is its system account.
    Held,
}

/// One copy for one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Index into the envelope's recipients.
    pub recipient: u32,
    /// The directory's number of the account.
    pub account: i64,
    /// The account's address.
    pub address: String,
    /// Where in the account.
    pub folder: Folder,
    /// Names the set of targets that the recipient was resolved to.
    pub routing: u64,
    /// How many there are in that set.
    pub of: u32,
    /// The account's limit in bytes; 0 is none.
    pub quota_bytes: u64,
    /// The account's limit in messages; 0 is none.
    pub quota_messages: u64,
    /// The part behind the plus sign; empty if none.
    pub tag: String,
    /// The mailbox for which a copy is held, when that is not what its recipient's address stands for; else empty.
    pub held_for: String,
}

impl GateFacts {
    /// The facts as protobuf, for the PROXY header.
    pub fn encode(&self) -> Bytes {
        facts_to_wire(self).encode_to_vec().into()
    }

    /// Reads the facts. Errors: bytes that are not facts.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(facts_from_wire(wire::GateFacts::decode(bytes)?))
    }
}

/// The parts of a new envelope; see the fields of [`Envelope`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Arrival {
    pub id: MailId,
    pub node: NodeName,
    pub client: Client,
    pub reverse_path: String,
    pub recipients: Vec<Recipient>,
    pub arrived: Millis,
    pub verdict_deadline: Millis,
    pub body: BodyRef,
    pub header_block: Vec<u8>,
    pub gate: GateFacts,
    pub envid: String,
    pub ret: String,
}

impl Envelope {
    /// A mail that has just arrived: no verdicts, no targets, its first round.
    pub fn new(arrival: Arrival) -> Self {
        Self {
            id: arrival.id,
            node: arrival.node,
            client: arrival.client,
            reverse_path: arrival.reverse_path,
            recipients: arrival.recipients,
            arrived: arrival.arrived,
            verdict_deadline: arrival.verdict_deadline,
            body: arrival.body,
            header_block: arrival.header_block,
            gate: arrival.gate,
            verdicts: Vec::new(),
            round: 0,
            targets: Vec::new(),
            held: None,
            envid: arrival.envid,
            ret: arrival.ret,
            open: Vec::new(),
            unknown: Bytes::new(),
        }
    }

    /// The envelope as protobuf, unknown fields included.
    pub fn encode(&self) -> Bytes {
        let mut bytes = self.to_wire().encode_to_vec();
        bytes.extend_from_slice(&self.unknown);
        bytes.into()
    }

    /// Reads and checks an envelope. Errors: bytes that are not one, or lack what every mail has.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let unknown = unknown::collect(&bytes, LAST_FIELD)?;
        Self::from_wire(wire::Envelope::decode(bytes)?, unknown)
    }

    /// The strictest thing that any stage wanted.
    pub fn disposition(&self) -> Disposition {
        self.verdicts.iter().map(|verdict| verdict.disposition).max().unwrap_or(Disposition::Pass)
    }

    fn to_wire(&self) -> wire::Envelope {
        wire::Envelope {
            id: self.id.to_bytes().to_vec(),
            node: self.node.as_str().to_owned(),
            client: Some(wire::Client {
                address: self.client.address.to_string(),
                port: self.client.port.into(),
                helo: self.client.helo.clone(),
                reverse_name: self.client.reverse_name.clone(),
                tls: self.client.tls.clone(),
            }),
            reverse_path: self.reverse_path.clone(),
            recipients: self.recipients.iter().map(recipient_to_wire).collect(),
            arrived: self.arrived.0,
            verdict_deadline: self.verdict_deadline.0,
            body: Some(wire::BodyRef {
                size: self.body.size,
                digest: self.body.digest.0.to_vec(),
                chunks: self.body.chunks,
            }),
            header_block: self.header_block.clone(),
            gate: Some(facts_to_wire(&self.gate)),
            verdicts: self.verdicts.iter().map(wire::Verdict::from).collect(),
            round: self.round,
            targets: self.targets.iter().map(target_to_wire).collect(),
            held: self.held.clone(),
            envid: self.envid.clone(),
            ret: self.ret.clone(),
            open: self.open.clone(),
        }
    }

    fn from_wire(raw: wire::Envelope, unknown: Bytes) -> Result<Self, Malformed> {
        if raw.recipients.is_empty() {
            return Err(Malformed::Missing("recipients"));
        }
        let recipients = raw.recipients.len();
        Ok(Self {
            id: MailId::checked(&raw.id, "id")?,
            node: parsed(&raw.node, "node", "a node name")?,
            client: client_from_wire(raw.client.ok_or(Malformed::Missing("client"))?)?,
            reverse_path: raw.reverse_path,
            recipients: raw.recipients.into_iter().map(recipient_from_wire).collect(),
            arrived: Millis(raw.arrived),
            verdict_deadline: Millis(raw.verdict_deadline),
            body: body_from_wire(&raw.body.ok_or(Malformed::Missing("body"))?)?,
            header_block: raw.header_block,
            gate: facts_from_wire(raw.gate.unwrap_or_default()),
            verdicts: raw.verdicts.into_iter().map(Verdict::from).collect(),
            round: raw.round,
            targets: raw.targets.into_iter().map(|t| target_from_wire(t, recipients)).collect::<Result<_, _>>()?,
            held: raw.held,
            envid: raw.envid,
            ret: raw.ret,
            open: raw.open,
            unknown,
        })
    }
}

fn parsed<T: std::str::FromStr>(text: &str, field: &'static str, wanted: &'static str) -> Result<T, Malformed> {
    text.parse().map_err(|_| Malformed::Wrong { field, found: format!("{text:?}"), wanted })
}

fn client_from_wire(raw: wire::Client) -> Result<Client, Malformed> {
    Ok(Client {
        address: parsed(&raw.address, "client.address", "an IP address")?,
        port: u16::try_from(raw.port).map_err(|_| Malformed::Wrong {
            field: "client.port",
            found: raw.port.to_string(),
            wanted: "at most 65535",
        })?,
        helo: raw.helo,
        reverse_name: raw.reverse_name,
        tls: raw.tls,
    })
}

fn body_from_wire(raw: &wire::BodyRef) -> Result<BodyRef, Malformed> {
    let digest = raw.digest.as_slice().try_into().map_err(|_| Malformed::Wrong {
        field: "body.digest",
        found: format!("{} bytes", raw.digest.len()),
        wanted: "32 bytes",
    })?;
    Ok(BodyRef { size: raw.size, digest: Digest(digest), chunks: raw.chunks })
}

fn recipient_to_wire(recipient: &Recipient) -> wire::Recipient {
    wire::Recipient {
        address: recipient.address.clone(),
        orcpt: recipient.orcpt.clone(),
        notify: recipient.notify.clone(),
    }
}

fn recipient_from_wire(raw: wire::Recipient) -> Recipient {
    Recipient { address: raw.address, orcpt: raw.orcpt, notify: raw.notify }
}

fn facts_to_wire(facts: &GateFacts) -> wire::GateFacts {
    let listing = |l: &Listing| wire::Listing {
        zone: l.zone.clone(),
        code: l.code.clone(),
        weight: l.weight,
        text: l.text.clone(),
    };
    wire::GateFacts { listings: facts.listings.iter().map(listing).collect(), unknown: facts.unknown.clone() }
}

fn facts_from_wire(raw: wire::GateFacts) -> GateFacts {
    let listing = |l: wire::Listing| Listing { zone: l.zone, code: l.code, weight: l.weight, text: l.text };
    GateFacts { listings: raw.listings.into_iter().map(listing).collect(), unknown: raw.unknown }
}

fn target_to_wire(target: &Target) -> wire::Target {
    let folder = match target.folder {
        Folder::Inbox => wire::Folder::Inbox,
        Folder::Junk => wire::Folder::Junk,
        Folder::Held => wire::Folder::Held,
    };
    wire::Target {
        recipient: target.recipient,
        account: target.account,
        address: target.address.clone(),
        folder: folder.into(),
        routing: target.routing,
        of: target.of,
        quota_bytes: target.quota_bytes,
        quota_messages: target.quota_messages,
        tag: target.tag.clone(),
        held_for: target.held_for.clone(),
    }
}

fn target_from_wire(raw: wire::Target, recipients: usize) -> Result<Target, Malformed> {
    if usize::try_from(raw.recipient).map_or(true, |index| index >= recipients) {
        let found = raw.recipient.to_string();
        return Err(Malformed::Wrong { field: "targets.recipient", found, wanted: "the index of a recipient" });
    }
    let folder = match wire::Folder::try_from(raw.folder) {
        Ok(wire::Folder::Inbox) => Folder::Inbox,
        Ok(wire::Folder::Junk) => Folder::Junk,
        Ok(wire::Folder::Held) => Folder::Held,
        Ok(wire::Folder::Unspecified) | Err(_) => {
            let found = raw.folder.to_string();
            return Err(Malformed::Wrong { field: "targets.folder", found, wanted: "a known folder" });
        }
    };
    Ok(Target {
        recipient: raw.recipient,
        account: raw.account,
        address: raw.address,
        folder,
        routing: raw.routing,
        of: raw.of,
        quota_bytes: raw.quota_bytes,
        quota_messages: raw.quota_messages,
        tag: raw.tag,
        held_for: raw.held_for,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{Cut, Symbol};

    fn envelope() -> Envelope {
        let mut envelope = Envelope::new(Arrival {
            id: MailId::from_bytes([7; 16]),
            node: "mx1".parse().unwrap(),
            client: Client {
                address: "2001:db8::1".parse().unwrap(),
                port: 4711,
                helo: "client.example".into(),
                reverse_name: "c.example".into(),
                tls: "TLSv1.3".into(),
            },
            reverse_path: "a@example.net".into(),
            recipients: vec![Recipient { address: "b@example.org".into(), orcpt: "o".into(), notify: "NEVER".into() }],
            arrived: Millis(5),
            verdict_deadline: Millis(8_005),
            body: BodyRef { size: 3, digest: Digest([9; 32]), chunks: 1 },
            header_block: b"Received: x\r\n".to_vec(),
            gate: GateFacts {
                listings: vec![Listing { zone: "bl".into(), code: "127.0.0.2".into(), weight: 1.5, text: "t".into() }],
                unknown: vec!["slow".into()],
            },
            envid: "e".into(),
            ret: "HDRS".into(),
        });
        envelope.round = 2;
        envelope.open = vec![0];
        envelope.held = Some("why".into());
        let symbols = vec![Symbol { name: "S".into(), points: 0.5, detail: "d".into() }];
        let cuts = vec![Cut { offset: 1, length: 2 }];
        envelope.verdicts = vec![Verdict {
            symbols,
            cuts,
            headers: b"X: y\r\n".to_vec(),
            stage: "score".into(),
            millis: 3,
            ..Verdict::new(Disposition::Junk, "spam")
        }];
        envelope.targets = vec![Target {
            recipient: 0,
            account: -4,
            address: "b@example.org".into(),
            folder: Folder::Held,
            routing: u64::MAX,
            of: 1,
            quota_bytes: 10,
            quota_messages: 11,
            tag: "t".into(),
            held_for: "h@x".into(),
        }];
        envelope
    }

    #[test]
    fn every_field_comes_back() {
        assert_eq!(Envelope::decode(envelope().encode()).unwrap(), envelope());
    }

    #[test]
    fn fields_of_a_newer_program_travel_on() {
        let mut bytes = envelope().encode().to_vec();
        bytes.extend_from_slice(b"\xa2\x06\x02hi");
        let read = Envelope::decode(bytes.clone().into()).unwrap();
        assert_eq!(&read.unknown[..], b"\xa2\x06\x02hi");
        assert_eq!(&read.encode()[..], &bytes[..]);
    }

    #[test]
    fn an_older_program_s_envelope_is_read() {
        let mut raw = envelope().to_wire();
        raw.gate = None;
        raw.verdicts.clear();
        raw.targets.clear();
        raw.held = None;
        let read = Envelope::decode(raw.encode_to_vec().into()).unwrap();
        assert_eq!((read.gate, read.held, read.targets.len()), (GateFacts::default(), None, 0));
    }

    #[test]
    fn what_every_mail_has_must_be_there() {
        let spoil: [fn(&mut wire::Envelope); 8] = [
            |raw| raw.id.clear(),
            |raw| raw.node = "a b".into(),
            |raw| raw.client = None,
            |raw| raw.client.as_mut().unwrap().address = "nowhere".into(),
            |raw| raw.recipients.clear(),
            |raw| raw.body = None,
            |raw| raw.targets[0].recipient = 1,
            |raw| raw.targets[0].folder = 0,
        ];
        for (row, spoil) in spoil.iter().enumerate() {
            let mut raw = envelope().to_wire();
            spoil(&mut raw);
            assert!(Envelope::decode(raw.encode_to_vec().into()).is_err(), "row {row}");
        }
    }

    #[test]
    fn the_strictest_verdict_counts() {
        let mut mail = envelope();
        assert_eq!(mail.disposition(), Disposition::Junk);
        mail.verdicts.push(Verdict::clean());
        assert_eq!(mail.disposition(), Disposition::Junk);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Envelope::decode(bytes.into());
        }

        #[test]
        fn any_unknown_field_survives(number in 18u32..500, value: Vec<u8>) {
            let mut bytes = envelope().encode().to_vec();
            prost::encoding::bytes::encode(number, &value, &mut bytes);
            let read = Envelope::decode(bytes.clone().into()).unwrap();
            prop_assert_eq!(&read.encode()[..], &bytes[..]);
        }
    }
}
