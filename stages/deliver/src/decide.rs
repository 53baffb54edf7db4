//! Which mailboxes a mail goes to, and in which copies. Pure.

use std::collections::BTreeMap;

use proto::{Disposition, Envelope, Folder, NodeName, Target, Verdict};
use runtime::{Outcome, Route};

/// A mailbox, as the directory knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The account's number.
    pub account: i64,
    /// The account's address.
    pub address: String,
    /// Its store node.
    pub store: NodeName,
    /// Its limit in bytes; 0 is none.
    pub quota_bytes: u64,
    /// Its limit in messages; 0 is none.
    pub quota_messages: u64,
    /// The part behind the plus sign of the address that led here.
    pub tag: String,
}

/// What the directory made of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// These mailboxes; never none.
    Mailboxes(Vec<Mailbox>),
    /// None any more: the mail is held for this reason.
    Nobody(String),
}

/// Targets of one copy: some 600 KB, below the smallest limit of a broker's messages.
const TARGETS: usize = 5000;

/// Whether a mail would go into mailboxes although the scanner has not passed it. Held mail does not: a scanner that
/// wants it held or refused, and has not noted that, would be asked again for ever.
pub fn is_unscanned(envelope: &Envelope, scanner: &str) -> bool {
    let is_pass = |verdict: &Verdict| verdict.stage == scanner && verdict.disposition == Disposition::Pass;
    held(envelope).is_none() && !envelope.verdicts.iter().any(is_pass)
}

/// Why a mail goes to the quarantine, if it does: it is held already, or some stage wanted it held or refused and
/// nobody has noted that. A program of the site's own may forget to, or may say something that this one does not know.
fn held(envelope: &Envelope) -> Option<String> {
    let is_hold = |verdict: &&Verdict| verdict.disposition >= Disposition::Hold;
    let strictest = || envelope.verdicts.iter().filter(is_hold).max_by_key(|verdict| verdict.disposition);
    envelope.held.clone().or_else(|| {
        strictest().map(|verdict| match verdict.reason.as_str() {
            "" => format!("{} says so", verdict.stage),
            reason => reason.to_owned(),
        })
    })
}

/// Copies for the store nodes: one for each node and, there, one more for what is held; several where one would be too
/// large.
///
/// `found` has an entry for each recipient of the envelope, in their order.
pub fn decide(envelope: &Envelope, found: &[Found], quarantine: &Mailbox) -> Outcome {
    let mut copies: BTreeMap<(NodeName, Option<String>), Vec<Target>> = BTreeMap::new();
    let folder = if envelope.disposition() == Disposition::Junk { Folder::Junk } else { Folder::Inbox };
    let all_held = held(envelope);
    let is_open = |index: &u32| envelope.open.is_empty() || envelope.open.contains(index);
    for (index, found) in (0_u32..).zip(found).filter(|(index, _)| is_open(index)) {
        let (mailboxes, folder, held) = match (&all_held, found) {
            (Some(reason), _) => (std::slice::from_ref(quarantine), Folder::Held, Some(reason.clone())),
            (None, Found::Nobody(reason)) => (std::slice::from_ref(quarantine), Folder::Held, Some(reason.clone())),
            (None, Found::Mailboxes(mailboxes)) => (mailboxes.as_slice(), folder, None),
        };
        let routing = routing(mailboxes, folder);
        let of = u32::try_from(mailboxes.len()).unwrap_or(u32::MAX);
        for mailbox in mailboxes {
            let target = target(index, mailbox, folder, routing, of);
            copies.entry((mailbox.store.clone(), held.clone())).or_default().push(target);
        }
    }
    let routes = copies.iter().flat_map(|((node, held), targets)| {
        let route = |part: &[Target]| Route { node: node.clone(), targets: part.to_vec(), held: held.clone() };
        targets.chunks(TARGETS).map(route)
    });
    Outcome::Route(routes.collect())
}

fn target(recipient: u32, mailbox: &Mailbox, folder: Folder, routing: u64, of: u32) -> Target {
    Target {
        recipient,
        account: mailbox.account,
        address: mailbox.address.clone(),
        folder,
        routing,
        of,
        quota_bytes: mailbox.quota_bytes,
        quota_messages: mailbox.quota_messages,
        tag: mailbox.tag.clone(),
        held_for: String::new(),
    }
}

/// Names a set of mailboxes: the same set has the same name in every round and every process. Accept counts a recipient
/// as ended when all of one set have ended, so that two rounds with different sets do not add up to a whole one.
fn routing(mailboxes: &[Mailbox], folder: Folder) -> u64 {
    let mut names: Vec<&str> = mailboxes.iter().map(|mailbox| mailbox.address.as_str()).collect();
    names.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    hasher.update(if folder == Folder::Held { b"held" } else { b"mail" });
    for name in names {
        hasher.update(name.as_bytes()).update(b"\0");
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proto::{Arrival, BodyRef, Client, Digest, GateFacts, MailId, Millis, Recipient};

    use super::*;

    fn envelope(recipients: usize) -> Envelope {
        Envelope::new(Arrival {
            id: MailId::from_bytes([7; 16]),
            node: "mx1".parse().unwrap(),
            client: Client {
                address: [127, 0, 0, 1].into(),
                port: 1,
                helo: String::new(),
                reverse_name: String::new(),
                tls: String::new(),
            },
            reverse_path: String::new(),
            recipients: vec![
                Recipient { address: "r@x".into(), orcpt: String::new(), notify: String::new() };
                recipients
            ],
            arrived: Millis(0),
            verdict_deadline: Millis(0),
            body: BodyRef { size: 0, digest: Digest([0; 32]), chunks: 0 },
            header_block: Vec::new(),
            gate: GateFacts::default(),
            envid: String::new(),
            ret: String::new(),
        })
    }

    fn mailbox(address: &str, store: &str) -> Mailbox {
        Mailbox {
            account: 1,
            address: address.into(),
            store: store.parse().unwrap(),
            quota_bytes: 0,
            quota_messages: 0,
            tag: String::new(),
        }
    }

    fn boxes(all: &[(&str, &str)]) -> Found {
        Found::Mailboxes(all.iter().map(|(address, store)| mailbox(address, store)).collect())
    }

    /// Rows: node, held reason, and each target as `recipient address folder of`.
    #[track_caller]
    fn check(envelope: &Envelope, found: &[Found], want: &[(&str, Option<&str>, &[&str])]) -> Vec<u64> {
        let Outcome::Route(routes) = decide(envelope, found, &mailbox("q", "s9")) else { panic!("no route") };
        let targets = |route: &Route| -> Vec<String> {
            let row = |t: &Target| format!("{} {} {:?} {}", t.recipient, t.address, t.folder, t.of);
            route.targets.iter().map(row).collect()
        };
        let got: Vec<_> = routes.iter().map(|r| (r.node.as_str(), r.held.as_deref(), targets(r))).collect();
        let want: Vec<_> =
            want.iter().map(|(n, h, t)| (*n, *h, t.iter().map(|&t| t.to_owned()).collect::<Vec<_>>())).collect();
        assert_eq!(got, want);
        routes.iter().flat_map(|route| &route.targets).map(|target| target.routing).collect()
    }

    #[test]
    fn one_copy_for_each_node() {
        let found = [boxes(&[("a", "s1")]), boxes(&[("b", "s2")]), boxes(&[("c", "s1")])];
        check(&envelope(3), &found, &[("s1", None, &["0 a Inbox 1", "2 c Inbox 1"]), ("s2", None, &["1 b Inbox 1"])]);
    }

    #[test]
    fn an_alias_has_ended_when_all_its_mailboxes_have() {
        let found = [boxes(&[("a", "s1"), ("b", "s2")])];
        let routing = check(&envelope(1), &found, &[("s1", None, &["0 a Inbox 2"]), ("s2", None, &["0 b Inbox 2"])]);
        assert_eq!(routing[0], routing[1]);
    }

    #[test]
    fn the_name_of_a_set_does_not_depend_on_its_order() {
        let one =
            check(&envelope(1), &[boxes(&[("a", "s"), ("b", "s")])], &[("s", None, &["0 a Inbox 2", "0 b Inbox 2"])]);
        let two =
            check(&envelope(1), &[boxes(&[("b", "s"), ("a", "s")])], &[("s", None, &["0 b Inbox 2", "0 a Inbox 2"])]);
        let other =
            check(&envelope(1), &[boxes(&[("a", "s"), ("c", "s")])], &[("s", None, &["0 a Inbox 2", "0 c Inbox 2"])]);
        assert_eq!(one[0], two[0]);
        assert_ne!(one[0], other[0]);
    }

    #[test]
    fn only_what_the_scanner_has_passed_goes_into_mailboxes() {
        let verdict = |stage: &str, disposition| Verdict { stage: stage.into(), ..Verdict::new(disposition, "") };
        let mut mail = envelope(1);
        assert!(is_unscanned(&mail, "scan"));
        mail.verdicts = vec![verdict("score", Disposition::Pass), verdict("scan", Disposition::Junk)];
        assert!(is_unscanned(&mail, "scan"));
        for unnoted in [Disposition::Hold, Disposition::Reject] {
            mail.verdicts[1].disposition = unnoted;
            assert!(!is_unscanned(&mail, "scan"), "it goes to the quarantine");
        }
        mail.verdicts[1].disposition = Disposition::Pass;
        assert!(!is_unscanned(&mail, "scan"));
        mail.verdicts.clear();
        mail.held = Some("spam".into());
        assert!(!is_unscanned(&mail, "scan"));
    }

    #[test]
    fn a_copy_has_a_bound() {
        let many: Vec<String> = (0..12_000).map(|at| format!("a{at}")).collect();
        let found = [Found::Mailboxes(many.iter().map(|address| mailbox(address, "s1")).collect())];
        let Outcome::Route(routes) = decide(&envelope(1), &found, &mailbox("q", "s9")) else { panic!("no route") };
        assert_eq!(routes.iter().map(|route| route.targets.len()).collect::<Vec<_>>(), [5000, 5000, 2000]);
        assert!(routes.iter().flat_map(|route| &route.targets).all(|target| target.of == 12_000));
    }

    #[test]
    fn a_later_round_is_for_those_who_do_not_have_it() {
        let mut mail = envelope(3);
        mail.open = vec![1];
        let found = [boxes(&[("a", "s1")]), boxes(&[("b", "s2")]), Found::Nobody("gone".into())];
        check(&mail, &found, &[("s2", None, &["1 b Inbox 1"])]);
    }

    #[test]
    fn junk() {
        let mut mail = envelope(1);
        mail.verdicts.push(Verdict::new(Disposition::Junk, "spam"));
        check(&mail, &[boxes(&[("a", "s1")])], &[("s1", None, &["0 a Junk 1"])]);
    }

    #[test]
    fn held_mail_goes_to_the_quarantine_for_every_recipient() {
        let mut mail = envelope(2);
        mail.held = Some("virus".into());
        let found = [boxes(&[("a", "s1")]), boxes(&[("b", "s2")])];
        check(&mail, &found, &[("s9", Some("virus"), &["0 q Held 1", "1 q Held 1"])]);
    }

    #[test]
    fn a_recipient_that_vanished_is_held_the_others_are_not() {
        let found = [Found::Nobody("gone".into()), boxes(&[("b", "s2")])];
        check(&envelope(2), &found, &[("s2", None, &["1 b Inbox 1"]), ("s9", Some("gone"), &["0 q Held 1"])]);
    }

    #[test]
    fn what_a_stage_wanted_held_or_refused_is_held_although_nobody_noted_it() {
        for disposition in [Disposition::Hold, Disposition::Reject] {
            for (reason, want) in [("odd", "odd"), ("", "own says so")] {
                let mut mail = envelope(1);
                let own = Verdict { stage: "own".into(), ..Verdict::new(disposition, reason) };
                mail.verdicts = vec![Verdict::new(Disposition::Junk, "spam"), own, Verdict::clean()];
                check(&mail, &[boxes(&[("a", "s1")])], &[("s9", Some(want), &["0 q Held 1"])]);
            }
        }
    }
}
