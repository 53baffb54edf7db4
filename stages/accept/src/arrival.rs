//! From a message of a session to the mail that is kept: its envelope, its Received field, its key. Pure.

use std::net::IpAddr;

use bytes::Bytes;
use proto::{Arrival, BodyRef, Client, Envelope, GateFacts, MailId, Millis, NodeName, Recipient};
use wire::smtp::Message;

use crate::journal::Doubt;

/// Who is on the other side of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The client's address and port.
    pub(crate) address: std::net::SocketAddr,
    /// Protocol version and cipher; empty in the clear.
    pub(crate) tls: String,
    /// What the gate found out.
    pub(crate) gate: GateFacts,
}

/// What the node knows of itself and of the moment.
#[derive(Debug, Clone)]
pub(crate) struct Here<'a> {
    pub(crate) hostname: &'a str,
    pub(crate) node: &'a NodeName,
    pub(crate) id: MailId,
    pub(crate) now: Millis,
    pub(crate) verdict_deadline: Millis,
}

/// The envelope of a mail that has just come.
pub(crate) fn envelope(message: &Message, peer: &Peer, here: &Here<'_>, body: BodyRef) -> Envelope {
    Envelope::new(Arrival {
        id: here.id,
        node: here.node.clone(),
        client: Client {
            address: peer.address.ip(),
            port: peer.address.port(),
            helo: message.helo.clone(),
            reverse_name: String::new(),
            tls: peer.tls.clone(),
        },
        reverse_path: message.sender.path.as_str().to_owned(),
        recipients: message.recipients.iter().map(recipient).collect(),
        arrived: here.now,
        verdict_deadline: here.verdict_deadline,
        body,
        header_block: received(message, peer, here).into_bytes(),
        gate: peer.gate.clone(),
        envid: message.sender.envid.clone(),
        ret: message.sender.ret.clone(),
    })
}

fn recipient(recipient: &wire::smtp::Recipient) -> Recipient {
    Recipient {
        address: recipient.path.as_str().to_owned(),
        orcpt: recipient.orcpt.clone(),
        notify: recipient.notify.clone(),
    }
}

/// The Received field, RFC 5321 section 4.4; the protocol names are RFC 3848's. The recipient is named only when there
/// is one: others must not learn of each other.
fn received(message: &Message, peer: &Peer, here: &Here<'_>) -> String {
    let protocol = match (message.extended, peer.tls.is_empty()) {
        (true, true) => "ESMTP",
        (true, false) => "ESMTPS",
        (false, _) => "SMTP",
    };
    let address = match peer.address.ip() {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    let tls = if peer.tls.is_empty() { String::new() } else { format!("\r\n\t({})", peer.tls) };
    let recipient = match message.recipients.as_slice() {
        [one] => format!("\r\n\tfor <{}>", one.path),
        _ => String::new(),
    };
    let seconds = i64::try_from(here.now.0 / 1000).unwrap_or(0);
    let date = mail_parser::DateTime::from_timestamp(seconds).to_rfc822();
    let (helo, hostname, id) = (&message.helo, here.hostname, here.id);
    let by = format!("by {hostname} (Chainmail) with {protocol} id {id}");
    format!("Received: from {helo} ({address})\r\n\t{by}{tls}{recipient};\r\n\t{date}\r\n")
}

/// By what a mail is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// With just these recipients.
    pub(crate) whole: Doubt,
    /// For each recipient, if there are several: what the same mail to that one alone has. At the next attempt some may
    /// be missing, or others be there.
    pub(crate) each: Vec<Doubt>,
}

impl Keys {
    pub(crate) fn all(&self) -> Vec<Doubt> {
        std::iter::once(self.whole).chain(self.each.iter().copied()).collect()
    }
}

/// By what the same mail is recognised when its sender, who did not hear our 250, sends it again: the client's network
/// (/24 or /48: a pool of senders shares one queue), reverse path, recipients and body.
pub(crate) fn keys(message: &Message, peer: &Peer, body: &BodyRef) -> Keys {
    let recipients: Vec<&str> = message.recipients.iter().map(|recipient| recipient.path.as_str()).collect();
    keys_of(peer.address.ip(), message.sender.path.as_str(), &recipients, body)
}

/// The keys of the recipients of a mail that was kept, if there are several; none where nobody can say.
pub(crate) fn keys_of_recipients(envelope: &[u8]) -> Vec<Doubt> {
    let Ok(envelope) = Envelope::decode(Bytes::copy_from_slice(envelope)) else { return Vec::new() };
    let recipients: Vec<&str> = envelope.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    keys_of(envelope.client.address, &envelope.reverse_path, &recipients, &envelope.body).each
}

/// Whether a mail says when it was written, or which one it is. Of one that does not, a second one that looks the same
/// may be another.
pub(crate) fn is_told_apart(body: &[u8]) -> bool {
    let lines = body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut header = lines.take_while(|line| !line.is_empty());
    header.any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii_end();
        name.len() < line.len() && (name.eq_ignore_ascii_case(b"message-id") || name.eq_ignore_ascii_case(b"date"))
    })
}

fn keys_of(client: IpAddr, reverse_path: &str, recipients: &[&str], body: &BodyRef) -> Keys {
    let mut sender = blake3::Hasher::new();
    match client {
        IpAddr::V4(ip) => sender.update(&ip.octets()[..3]),
        IpAddr::V6(ip) => sender.update(&ip.octets()[..6]),
    };
    part(&mut sender, reverse_path);
    let to = |recipients: &[&str]| {
        let mut hasher = sender.clone();
        recipients.iter().for_each(|recipient| part(&mut hasher, recipient));
        *hasher.update(&body.digest.0).finalize().as_bytes()
    };
    let mut sorted = recipients.to_vec();
    sorted.sort_unstable();
    let each = if recipients.len() > 1 { recipients.iter().map(|one| to(&[one])).collect() } else { Vec::new() };
    Keys { whole: to(&sorted), each }
}

fn part(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use runtime::bodies::Bodies;
    use wire::smtp::command::Command;

    use super::*;

    fn message(from: &str, to: &[&str], body: &'static str) -> Message {
        let Ok(Command::Mail(sender)) = Command::parse(format!("MAIL FROM:<{from}>").as_bytes()) else {
            panic!("MAIL")
        };
        let recipients = to.iter().map(|to| match Command::parse(format!("RCPT TO:<{to}>").as_bytes()) {
            Ok(Command::Rcpt(recipient)) => recipient,
            _ => panic!("RCPT"),
        });
        let recipients = recipients.collect();
        Message {
            helo: "client.example".into(),
            extended: true,
            sender,
            recipients,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    fn peer(address: &str) -> Peer {
        Peer { address: address.parse().unwrap(), tls: String::new(), gate: GateFacts::default() }
    }

    fn header(message: &Message, peer: &Peer) -> String {
        let node = "mx1".parse().unwrap();
        let id = MailId::from_bytes([0; 16]);
        let here =
            Here { hostname: "mx.example", node: &node, id, now: Millis(86_400_000), verdict_deadline: Millis(0) };
        let envelope = envelope(message, peer, &here, Bodies::describe(&message.body));
        String::from_utf8(envelope.header_block).unwrap()
    }

    #[test]
    fn the_received_field_names_a_single_recipient() {
        let want = "Received: from client.example ([192.0.2.7])\r\n\tby mx.example (Chainmail) with ESMTP \
                    id 00000000000000000000000000\r\n\tfor <b@y>;\r\n\tFri, 2 Jan 1970 00:00:00 +0000\r\n";
        assert_eq!(header(&message("a@x", &["b@y"], ""), &peer("192.0.2.7:1")), want);
    }

    #[test]
    fn the_received_field_hides_several_and_tells_of_tls() {
        let peer = Peer { tls: "TLSv1.3 X".into(), ..peer("[2001:db8::1]:1") };
        let header = header(&message("a@x", &["b@y", "c@y"], ""), &peer);
        assert!(header.contains("([IPv6:2001:db8::1])") && header.contains("with ESMTPS id"));
        assert!(header.contains("\r\n\t(TLSv1.3 X)") && !header.contains("@y"));
    }

    #[test]
    fn the_same_mail_has_the_same_key() {
        let key = |from, to: &[&str], body, address| {
            let message = message(from, to, body);
            keys(&message, &peer(address), &Bodies::describe(&message.body)).whole
        };
        let first = key("a@x", &["b@y", "c@y"], "m", "192.0.2.7:1");
        assert_eq!(first, key("a@x", &["c@y", "b@y"], "m", "192.0.2.99:2"));
        for other in [
            key("a@z", &["b@y", "c@y"], "m", "192.0.2.7:1"),
            key("a@x", &["b@y"], "m", "192.0.2.7:1"),
            key("a@x", &["b@y", "c@y"], "n", "192.0.2.7:1"),
            key("a@x", &["b@y", "c@y"], "m", "192.0.3.7:1"),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn each_recipient_has_the_key_of_the_mail_to_that_one_alone() {
        let keys = |to: &[&str]| {
            let message = message("a@x", to, "m");
            keys(&message, &peer("192.0.2.7:1"), &Bodies::describe(&message.body))
        };
        assert_eq!(keys(&["b@y", "c@y"]).each, [keys(&["b@y"]).whole, keys(&["c@y"]).whole]);
        assert_eq!(keys(&["b@y"]).each, [[0; 32]; 0]);
        assert_ne!(keys(&["b@y", "c@y"]).whole, keys(&["b@y"]).whole);
        // The envelope that is kept says the same.
        let (message, peer, node) = (message("a@x", &["b@y", "c@y"], "m"), peer("192.0.2.7:1"), "mx1".parse().unwrap());
        let id = MailId::from_bytes([0; 16]);
        let here = Here { hostname: "mx.example", node: &node, id, now: Millis(0), verdict_deadline: Millis(0) };
        let envelope = envelope(&message, &peer, &here, Bodies::describe(&message.body)).encode();
        assert_eq!(keys_of_recipients(&envelope), keys(&["b@y", "c@y"]).each);
        assert_eq!(keys_of_recipients(b"no envelope"), [[0; 32]; 0]);
    }

    #[test]
    fn a_mail_is_told_apart_by_its_id_or_its_date() {
        for (body, want) in [
            (&b"Subject: alarm\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n\r\n"[..], true),
            (b"Subject: alarm\r\nMESSAGE-ID : <1@x>\r\n\r\n", true),
            (b"Subject: alarm\r\n\r\nDate: in the text\r\n", false),
            (b"Subject: alarm\r\n date: folded\r\nDated: no\r\nDate\r\n\r\n", false),
            (b"", false),
        ] {
            assert_eq!(is_told_apart(body), want, "{}", String::from_utf8_lossy(body));
        }
    }
}
