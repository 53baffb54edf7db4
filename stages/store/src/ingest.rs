//! The stage of a store node: puts each copy into its mailboxes, and says that the mail has ended there.
//!
//! A repeated copy creates nothing and ends the same way. A mailbox that is full, or was removed, is not a reason to
//! lose a mail: it goes to the quarantine with that reason. When the disk fails, the copy waits.

use bytes::{Bytes, BytesMut};
use directory::Directory;
use futures::future::join_all;
use proto::{Cut, Digest, End, EndKind, Ended, Envelope, Folder, NodeName, Target};
use runtime::{Fault, Mail, OrNever as _, Outcome, Partly, Route, Stage};

use crate::node::Node;
use crate::shard::{Admission, Delivery, Outlined, StoreError, Why};

/// Bytes of the reason for which a mail is held: with its name, a line of RFC 5322 section 2.1.1.
const REASON: usize = 900;

/// The ingest of a node.
#[derive(Clone)]
pub struct Ingest {
    node: Node,
    name: NodeName,
    directory: Directory,
}

impl Ingest {
    /// The ingest of the node of this name.
    pub fn new(node: Node, name: NodeName, directory: Directory) -> Self {
        Self { node, name, directory }
    }

    async fn keep(&self, mail: &Envelope, target: &Target, text: &Text) -> Result<Placed, Fault> {
        let admission = self.admission(target).await;
        let kept = self.node.deliver(delivery(mail, target, text, admission)).await;
        let kind = match kept {
            Ok(_) if target.folder == Folder::Held => EndKind::Held,
            Ok(_) => EndKind::Stored,
            Err(StoreError::TurnedAway(why)) => return self.turned_away(mail, target, why, text).await,
            Err(error) => return Err(error.into()),
        };
        Ok(Placed::Here(end(target, kind)))
    }

    /// The account may have been removed while the copy waited: what was stored for it then, nobody could read. The
    /// directory said that it is there when the copy was made, so when it cannot say now, that holds.
    ///
    /// The quarantine has no limit, whatever its account says: it is where mail goes for which there is no other place.
    async fn admission(&self, target: &Target) -> Admission {
        if target.folder == Folder::Held {
            return Admission::IfRoom { bytes: 0, messages: 0 };
        }
        match self.directory.still_has(&target.address, target.account).await {
            Ok(false) => Admission::Removed,
            Ok(true) | Err(_) => Admission::IfRoom { bytes: target.quota_bytes, messages: target.quota_messages },
        }
    }

    /// A copy that its mailbox does not take goes into the quarantine, wherever that lives. It is held for this
    /// mailbox, and not for all that its recipient's address stands for. The shard has decided so and says the same
    /// each time: see `delivered.rs`.
    async fn turned_away(&self, mail: &Envelope, target: &Target, why: Why, text: &Text) -> Result<Placed, Fault> {
        let quarantine = self.directory.held_account().await?;
        let reason = match why {
            Why::Full => format!("the mailbox of {} is full", target.address),
            Why::Removed => format!("the account {} was removed", target.address),
        };
        let held = Target {
            account: quarantine.id,
            address: quarantine.address.to_string(),
            folder: Folder::Held,
            quota_bytes: 0,
            quota_messages: 0,
            held_for: target.address.clone(),
            ..target.clone()
        };
        if quarantine.store != self.name.as_str() {
            let node = quarantine.store.parse().map_err(|error: String| Fault::later(error))?;
            return Ok(Placed::Onward(Route { node, targets: vec![held], held: Some(reason) }));
        }
        let mut mail = mail.clone();
        mail.held = Some(reason);
        let admission = Admission::IfRoom { bytes: 0, messages: 0 };
        self.node.deliver(delivery(&mail, &held, text, admission)).await?;
        Ok(Placed::Here(end(&held, EndKind::Held)))
    }
}

/// What all copies have in common.
struct Text {
    body: Bytes,
    digest: Digest,
    outline: Outlined,
}

impl Text {
    async fn of((body, digest): (Bytes, Digest)) -> Self {
        let outline = Outlined::made(&body).await;
        Self { body, digest, outline }
    }
}

/// Where a target's copy is.
enum Placed {
    Here(End),
    Onward(Route),
}

fn end(target: &Target, kind: EndKind) -> End {
    // One of a set of mailboxes has ended, whichever mailbox holds its copy.
    let name = if target.held_for.is_empty() { &target.address } else { &target.held_for };
    End { recipient: target.recipient, routing: target.routing, target: name.clone(), of: target.of, kind }
}

impl Stage for Ingest {
    async fn handle(&self, mail: &Mail) -> Result<Outcome, Fault> {
        let envelope = mail.envelope();
        (!envelope.targets.is_empty()).then_some(()).or_never("a copy without mailboxes")?;
        let text = Text::of(deliverable(envelope, mail.body().await?)).await;
        let all = join_all(envelope.targets.iter().map(|target| self.keep(envelope, target, &text))).await;
        let mut ended = Ended { id: envelope.id, ends: Vec::new(), burial: None };
        let (mut onward, mut waits) = (Vec::new(), None);
        for placed in all {
            match placed {
                Ok(Placed::Here(end)) => ended.ends.push(end),
                Ok(Placed::Onward(route)) => onward.push(route),
                Err(Fault::Later(error) | Fault::Missed(error) | Fault::Never(error)) => {
                    waits = waits.or_else(|| Some(format!("{error:#}")))
                }
            }
        }
        if onward.is_empty() && waits.is_none() {
            return Ok(Outcome::End(ended));
        }
        Ok(Outcome::Partly(Partly { ended, onward, waits }))
    }
}

/// The body without the ranges that must not be delivered, and its digest.
fn deliverable(envelope: &Envelope, body: Bytes) -> (Bytes, Digest) {
    let mut cuts: Vec<&Cut> = envelope.verdicts.iter().flat_map(|verdict| &verdict.cuts).collect();
    cuts.sort_by_key(|cut| cut.offset);
    if cuts.is_empty() {
        return (body, envelope.body.digest);
    }
    let mut kept = BytesMut::with_capacity(body.len());
    let mut at = 0;
    for cut in cuts {
        let from = usize::try_from(cut.offset).unwrap_or(usize::MAX).min(body.len());
        let to = from.saturating_add(usize::try_from(cut.length).unwrap_or(usize::MAX)).min(body.len());
        kept.extend_from_slice(body.get(at..from).unwrap_or_default());
        at = at.max(to);
    }
    kept.extend_from_slice(&body[at..]);
    let digest = Digest(*blake3::hash(&kept).as_bytes());
    (kept.freeze(), digest)
}

fn delivery(mail: &Envelope, target: &Target, text: &Text, admission: Admission) -> Delivery {
    let recipient = match mail.recipients.get(target.recipient as usize) {
        _ if !target.held_for.is_empty() => target.held_for.as_str(),
        recipient => recipient.map_or("", |recipient| &recipient.address),
    };
    let (folder, key, held) = match target.folder {
        Folder::Inbox => ("INBOX", target.address.clone(), String::new()),
        Folder::Junk => ("Junk", target.address.clone(), String::new()),
        // Each recipient of a held mail is decided about by itself.
        Folder::Held => {
            let reason = mail.held.as_deref().map(one_line).filter(|reason| !reason.is_empty());
            let key = match target.held_for.as_str() {
                "" => format!("held:{}", target.recipient),
                full => format!("full:{full}"),
            };
            ("INBOX", key, reason.unwrap_or_else(|| "held".to_owned()))
        }
    };
    Delivery {
        mail: mail.id.to_bytes(),
        target: key,
        account: target.account,
        folder: folder.to_owned(),
        prefix: prefix(mail, target, recipient, &held, &text.body),
        body: text.body.clone(),
        digest: text.digest.0,
        outline: text.outline.clone(),
        received: i64::try_from(mail.arrived.0).unwrap_or(i64::MAX),
        admission,
        held,
        held_for: recipient.to_owned(),
    }
}

/// A reason becomes a header line of ours and a line on a terminal. It may come from a stage of the site's own, and
/// quote what a sender wrote: it must not go on as a line that we never said.
fn one_line(reason: &str) -> String {
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= REASON;
    reason.char_indices().take_while(fits).map(|(_, c)| if c.is_control() { ' ' } else { c }).collect()
}

/// The header lines of one copy: RFC 5321 section 4.4 puts Return-Path first; ours follow, then the Received field.
///
/// A mail whose first line begins with a blank would continue the last of them, and say what it likes in our name: it
/// continues a field that says nothing.
fn prefix(mail: &Envelope, target: &Target, recipient: &str, held: &str, body: &[u8]) -> Bytes {
    let mut prefix = BytesMut::new();
    prefix.extend_from_slice(
        format!("Return-Path: <{}>\r\nDelivered-To: {}\r\n", mail.reverse_path, target.address).as_bytes(),
    );
    if !held.is_empty() {
        prefix
            .extend_from_slice(format!("X-Chainmail-Held: {held}\r\nX-Chainmail-Held-For: {recipient}\r\n").as_bytes());
    }
    for verdict in mail.verdicts.iter().rev() {
        prefix.extend_from_slice(&verdict.headers);
    }
    prefix.extend_from_slice(&mail.header_block);
    if matches!(body.first(), Some(b' ' | b'\t')) {
        prefix.extend_from_slice(b"X-Chainmail-Stray: what follows\r\n");
    }
    prefix.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;
    use std::rc::Rc;

    use directory::NewAccount;
    use proto::{Arrival, BodyRef, Client, GateFacts, MailId, Millis, Recipient, Verdict};
    use runtime::config::{Section, Sheet};

    use super::*;
    use crate::shard::{Change, Kept};

    const ANY: Admission = Admission::IfRoom { bytes: 0, messages: 0 };

    fn envelope() -> Envelope {
        Envelope::new(Arrival {
            id: MailId::from_bytes([1; 16]),
            node: "mx1".parse().unwrap(),
            client: Client {
                address: [127, 0, 0, 1].into(),
                port: 1,
                helo: String::new(),
                reverse_name: String::new(),
                tls: String::new(),
            },
            reverse_path: "s@x".into(),
            recipients: vec![Recipient { address: "Alias@x".into(), orcpt: String::new(), notify: String::new() }],
            arrived: Millis(7),
            verdict_deadline: Millis(7),
            body: BodyRef { size: 10, digest: Digest([0; 32]), chunks: 1 },
            header_block: b"Received: r\r\n".to_vec(),
            gate: GateFacts::default(),
            envid: String::new(),
            ret: String::new(),
        })
    }

    fn target(folder: Folder) -> Target {
        Target {
            recipient: 0,
            account: 1,
            address: "a@x".into(),
            folder,
            routing: 1,
            of: 1,
            quota_bytes: 0,
            quota_messages: 0,
            tag: String::new(),
            held_for: String::new(),
        }
    }

    fn text(body: &'static [u8]) -> Text {
        let digest = Digest(*blake3::hash(body).as_bytes());
        Text { body: Bytes::from_static(body), digest, outline: Outlined::of(body) }
    }

    #[track_caller]
    fn check(mail: &Envelope, folder: Folder, want: &str, key: &str) {
        let delivery = delivery(mail, &target(folder), &text(b""), ANY);
        assert_eq!((std::str::from_utf8(&delivery.prefix).unwrap(), delivery.target.as_str()), (want, key));
    }

    #[test]
    fn the_header_lines_of_a_copy() {
        let mut mail = envelope();
        mail.verdicts = vec![
            Verdict { headers: b"X-A: 1\r\n".to_vec(), ..Verdict::clean() },
            Verdict { headers: b"X-B: 2\r\n".to_vec(), ..Verdict::clean() },
        ];
        let want = "Return-Path: <s@x>\r\nDelivered-To: a@x\r\nX-B: 2\r\nX-A: 1\r\nReceived: r\r\n";
        check(&mail, Folder::Inbox, want, "a@x");
        check(&mail, Folder::Junk, want, "a@x");
    }

    #[test]
    fn a_mail_does_not_continue_what_we_say_of_it() {
        let text = text(b"\tby mx.example.org\r\nSubject: x\r\n\r\n");
        let delivery = delivery(&envelope(), &target(Folder::Inbox), &text, ANY);
        assert!(delivery.prefix.ends_with(b"Received: r\r\nX-Chainmail-Stray: what follows\r\n"));
        assert_eq!(delivery.body, text.body);
    }

    #[test]
    fn a_held_copy_says_why_and_for_whom() {
        let mut mail = envelope();
        mail.held = Some("virus".into());
        let want = "Return-Path: <s@x>\r\nDelivered-To: a@x\r\nX-Chainmail-Held: virus\r\n\
                    X-Chainmail-Held-For: Alias@x\r\nReceived: r\r\n";
        check(&mail, Folder::Held, want, "held:0");
        mail.held = Some("odd\r\nX-Chainmail-Scan: clean".into());
        let want = want.replace("virus", "odd  X-Chainmail-Scan: clean");
        check(&mail, Folder::Held, &want, "held:0");
        for (long, kept) in [("x", 900), ("ä", 450), ("\u{1f4ec}", 225), ("€", 300)] {
            assert_eq!(one_line(&long.repeat(1000)), long.repeat(kept));
        }
    }

    #[test]
    fn forged_lines_are_cut_out() {
        let mut mail = envelope();
        let body = Bytes::from_static(b"0123456789");
        assert_eq!(deliverable(&mail, body.clone()), (body.clone(), Digest([0; 32])));
        let cut = |offset, length| Cut { offset, length };
        for (cuts, want) in [
            (vec![cut(0, 2)], "23456789"),
            (vec![cut(2, 3), cut(8, 2)], "01567"),
            (vec![cut(2, 3), cut(3, 4)], "01789"),
            (vec![cut(8, 99), cut(50, 1)], "01234567"),
        ] {
            mail.verdicts = vec![Verdict { cuts, ..Verdict::clean() }];
            let (kept, digest) = deliverable(&mail, body.clone());
            assert_eq!((&kept[..], digest.0), (want.as_bytes(), *blake3::hash(want.as_bytes()).as_bytes()));
        }
    }

    /// A node with the quarantine and dave, who may have one message.
    async fn site() -> (tempfile::TempDir, Ingest, Target) {
        let folder = tempfile::tempdir().unwrap();
        let section = |value| Section::root(value, Rc::new(RefCell::new(Sheet::default())));
        let config = directory::Config::read(section(serde_json::json!({})), folder.path());
        let directory = Directory::open(config).await.unwrap();
        directory.add_domain("x.example", None, None).await.unwrap();
        for (address, kind) in
            [("quarantine@x.example", directory::Kind::System), ("dave@x.example", directory::Kind::User)]
        {
            let (quota_bytes, quota_messages) = (0, 0);
            let new = NewAccount {
                address,
                password: wire::secret::Secret::new("secret"),
                store: "s1",
                kind,
                quota_bytes,
                quota_messages,
            };
            directory.add_account(new).await.unwrap();
        }
        let node = Node::open(&crate::Config::read(section(serde_json::json!({})), folder.path()), "s1").unwrap();
        let account = directory.account("dave@x.example").await.unwrap().unwrap().id;
        let dave = Target { account, address: "dave@x.example".into(), quota_messages: 1, ..target(Folder::Inbox) };
        (folder, Ingest::new(node, "s1".parse().unwrap(), directory), dave)
    }

    async fn keep(ingest: &Ingest, id: u8, target: &Target) -> EndKind {
        let mut mail = envelope();
        mail.id = MailId::from_bytes([id; 16]);
        let body = Bytes::from(format!("Subject: {id}\r\n\r\n"));
        let digest = Digest(*blake3::hash(&body).as_bytes());
        match ingest.keep(&mail, target, &Text::of((body, digest)).await).await.unwrap() {
            Placed::Here(end) => end.kind,
            Placed::Onward(route) => panic!("{route:?}"),
        }
    }

    /// The UIDs in an account's INBOX, and its id.
    async fn inbox(ingest: &Ingest, account: i64) -> (i64, Vec<i64>) {
        let reader = &ingest.node.shard(account).reader;
        let inbox = reader.mailboxes(account).await.unwrap().into_iter().find(|mailbox| mailbox.name == "INBOX");
        let Some(inbox) = inbox else { return (0, Vec::new()) };
        (inbox.id, reader.messages(inbox.id).await.unwrap().iter().map(|message| message.uid).collect())
    }

    /// Its end was lost, and the mailbox had room when it came round again.
    #[tokio::test]
    async fn what_was_turned_away_is_not_delivered_when_it_comes_again() {
        let (_folder, ingest, dave) = site().await;
        let quarantine = ingest.directory.held_account().await.unwrap().id;
        assert_eq!(keep(&ingest, 1, &dave).await, EndKind::Stored);
        assert_eq!(keep(&ingest, 2, &dave).await, EndKind::Held);
        let (mailbox, uids) = inbox(&ingest, dave.account).await;
        let expunge = Change::Expunge { account: dave.account, mailbox, uids, only_deleted: false };
        ingest.node.change(dave.account, expunge).await.unwrap();
        let unlimited = Target { quota_messages: 0, ..dave.clone() };
        for again in [&dave, &unlimited] {
            assert_eq!(keep(&ingest, 2, again).await, EndKind::Held);
        }
        assert!(inbox(&ingest, dave.account).await.1.is_empty());
        assert_eq!(inbox(&ingest, quarantine).await.1, [1]);
        // A release brings it into the mailbox; then that is where it is.
        let text = text(b"Subject: 2\r\n\r\n");
        let mut mail = envelope();
        mail.id = MailId::from_bytes([2; 16]);
        for kept in [Kept::New, Kept::Already] {
            let released = delivery(&mail, &dave, &text, Admission::Released);
            assert_eq!(ingest.node.deliver(released).await, Ok(kept));
        }
        assert_eq!(keep(&ingest, 2, &dave).await, EndKind::Stored);
        assert_eq!(inbox(&ingest, dave.account).await.1, [2]);
    }

    #[tokio::test]
    async fn the_quarantine_is_never_full() {
        let (_folder, ingest, _) = site().await;
        let account = ingest.directory.held_account().await.unwrap().id;
        let held = Target { account, quota_bytes: 1, quota_messages: 1, ..target(Folder::Held) };
        for id in 1..=3 {
            assert_eq!(keep(&ingest, id, &held).await, EndKind::Held);
        }
        let held = ingest.node.shard(account).reader.held(account, 0, 9).await.unwrap();
        assert_eq!(held.iter().map(|(_, held)| held.reason.as_str()).collect::<Vec<_>>(), ["held"; 3]);
    }

    #[tokio::test]
    async fn a_copy_for_an_account_that_was_removed_is_held() {
        let (_folder, ingest, dave) = site().await;
        let quarantine = ingest.directory.held_account().await.unwrap().id;
        ingest.directory.remove_account("dave@x.example").await.unwrap();
        for _ in 0..2 {
            assert_eq!(keep(&ingest, 1, &dave).await, EndKind::Held);
        }
        // Another one of this address is not the one that the mail was for.
        let new = NewAccount {
            address: "dave@x.example",
            password: wire::secret::Secret::new("secret"),
            store: "s1",
            kind: directory::Kind::User,
            quota_bytes: 0,
            quota_messages: 0,
        };
        ingest.directory.add_account(new).await.unwrap();
        assert_eq!(keep(&ingest, 2, &dave).await, EndKind::Held);
        assert!(inbox(&ingest, dave.account).await.1.is_empty());
        let held = ingest.node.shard(quarantine).reader.held(quarantine, 0, 9).await.unwrap();
        let held: Vec<_> = held.iter().map(|(_, held)| (held.reason.as_str(), held.recipient.as_str())).collect();
        let want = ("the account dave@x.example was removed", "dave@x.example");
        assert_eq!(held, [want, want]);
        let account = ingest.directory.account("dave@x.example").await.unwrap().unwrap().id;
        let new_dave = Target { account, ..dave };
        assert_eq!(keep(&ingest, 3, &new_dave).await, EndKind::Stored);
    }
}
