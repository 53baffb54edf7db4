//! The quarantine, for operators: listing, showing, releasing and dropping held mail.
//!
//! A release stores the mail in its recipient's mailbox, wherever that lives, and only then takes it out of the
//! quarantine. A release that breaks off is repeated: the second time the mailbox has it already.

use std::time::Duration;

use bytes::Bytes;
use directory::{Directory, Target};
use futures::StreamExt as _;
use proto::{BodyRef, Digest, MailId, NodeName, subjects};
use runtime::bodies::Bodies;
use runtime::broker::Broker;
use runtime::clock;
use runtime::tasks::Tasks;
use serde::{Deserialize, Serialize};

use crate::node::Node;
use crate::shard::{Admission, Change, Delivery, Outlined};

/// How long another store node may take to keep a released mail.
const KEEP: Duration = Duration::from_secs(20);

/// What a store node is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// What is held here? The first [`LISTED`] behind this number.
    List(i64),
    /// One held mail.
    Show(i64),
    /// Put it into its recipient's mailbox.
    Release {
        /// Its number.
        number: i64,
        /// Even if no scanner has seen it.
        unscanned: bool,
    },
    /// Give it up.
    Drop(i64),
    /// Between store nodes: keep a released mail.
    Keep(Box<Keep>),
}

/// A released mail on its way to another node; its body is in the stream of bodies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keep {
    mail: [u8; 16],
    /// The id under which the body travels: under the mail's own another may, as its sender gave it.
    transport: [u8; 16],
    target: String,
    account: i64,
    prefix: Vec<u8>,
    size: u64,
    digest: [u8; 32],
    chunks: u32,
    received: i64,
}

/// A mail in the quarantine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldMail {
    /// Its number in the quarantine's mailbox, the UID.
    pub number: i64,
    /// The mail's id.
    pub mail: String,
    /// Why.
    pub reason: String,
    /// For whom.
    pub recipient: String,
    /// Milliseconds since 1970.
    pub received: i64,
    /// Bytes.
    pub size: i64,
}

/// What a store node answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// To List.
    Held(Vec<HeldMail>),
    /// To Show: the mail's beginning, at most [`SHOWN`] bytes.
    Text(Vec<u8>),
    /// To the others.
    Done,
}

/// Held mails that are listed at once: some 300 KB, below the smallest limit of a broker's messages.
pub const LISTED: u32 = 1000;

/// Bytes of a held mail that are shown; the rest is read over IMAP.
pub const SHOWN: usize = 64 * 1024;

/// Everything the service needs.
pub struct Quarantine {
    /// The storage.
    pub node: Node,
    /// The node's name.
    pub name: NodeName,
    /// Who exists.
    pub directory: Directory,
    /// The broker.
    pub broker: Broker,
    /// The bodies.
    pub bodies: Bodies,
}

impl Quarantine {
    /// Answers until the shutdown.
    ///
    /// # Errors
    /// When the subscription ends.
    pub async fn answer(self, tasks: Tasks) -> anyhow::Result<()> {
        let mut requests = self.broker.subscribe(subjects::ask_store(&self.name)).await?;
        loop {
            let message = tokio::select! {
                () = tasks.stopping() => return Ok(()),
                message = requests.next() => message,
            };
            let Some(message) = message else { anyhow::bail!("the subscription ended") };
            let answer = match serde_json::from_slice::<Request>(&message.payload) {
                Ok(request) => self.obey(request).await.map_err(|error| format!("{error:#}")),
                Err(error) => Err(error.to_string()),
            };
            if let Some(reply) = message.reply {
                self.broker.reply(reply, serde_json::to_vec(&answer)?.into()).await;
            }
        }
    }

    async fn obey(&self, request: Request) -> anyhow::Result<Reply> {
        match request {
            Request::List(behind) => {
                let account = self.directory.held_account().await?.id;
                let rows = self.node.shard(account).reader.held(account, behind, LISTED).await?;
                Ok(Reply::Held(rows.into_iter().map(|(_, held)| HeldMail::from(held)).collect()))
            }
            Request::Show(number) => {
                let (account, mailbox, _) = self.find(number).await?;
                let text = self.node.shard(account).reader.text(mailbox, number).await?;
                let text = text.ok_or_else(|| anyhow::anyhow!("it is gone"))?;
                Ok(Reply::Text(text[..text.len().min(SHOWN)].to_vec()))
            }
            Request::Release { number, unscanned } => self.release(number, unscanned).await,
            Request::Drop(number) => {
                let (account, mailbox, _) = self.find(number).await?;
                self.node
                    .change(account, Change::Expunge { account, mailbox, uids: vec![number], only_deleted: false })
                    .await?;
                Ok(Reply::Done)
            }
            Request::Keep(keep) => {
                let reference = BodyRef { size: keep.size, digest: Digest(keep.digest), chunks: keep.chunks };
                let body = self.bodies.get(MailId::from_bytes(keep.transport), &reference).await?;
                self.node.deliver(keep.delivery(body).await).await?;
                Ok(Reply::Done)
            }
        }
    }

    async fn find(&self, number: i64) -> anyhow::Result<(i64, i64, crate::shard::Held)> {
        let account = self.directory.held_account().await?.id;
        let rows = self.node.shard(account).reader.held(account, number - 1, 1).await?;
        let found = rows.into_iter().find(|(_, held)| held.uid == number);
        let (mailbox, held) = found.ok_or_else(|| anyhow::anyhow!("there is no held mail {number}"))?;
        Ok((account, mailbox, held))
    }

    async fn release(&self, number: i64, unscanned: bool) -> anyhow::Result<Reply> {
        let (account, mailbox, held) = self.find(number).await?;
        let expansion = self.directory.expand(&held.recipient).await?;
        if expansion.targets.is_empty() {
            let problems: Vec<String> = expansion.problems.iter().map(ToString::to_string).collect();
            anyhow::bail!("{} cannot be delivered to: {}", held.recipient, problems.join("; "));
        }
        let parts = self.node.shard(account).reader.parts(mailbox, number).await?;
        let (prefix, body) = parts.ok_or_else(|| anyhow::anyhow!("it is gone"))?;
        if !unscanned && !was_scanned(&prefix) {
            anyhow::bail!(
                "no virus scanner has seen held mail {number} ({}); with --unscanned it is released all the same",
                held.reason
            );
        }
        for target in &expansion.targets {
            self.put(&held, target, &prefix, &body).await?;
        }
        self.node
            .change(account, Change::Expunge { account, mailbox, uids: vec![number], only_deleted: false })
            .await?;
        Ok(Reply::Done)
    }

    async fn put(
        &self,
        held: &crate::shard::Held,
        target: &Target,
        prefix: &Bytes,
        body: &Bytes,
    ) -> anyhow::Result<()> {
        let reference = Bodies::describe(body);
        let keep = Keep {
            mail: held.mail,
            transport: MailId::new(clock::now(), rand::random()).to_bytes(),
            // The name under which it would have been delivered: who has it already gets no second one.
            target: target.account.address.to_string(),
            account: target.account.id,
            prefix: prefix.to_vec(),
            size: reference.size,
            digest: reference.digest.0,
            chunks: reference.chunks,
            received: held.received,
        };
        if target.account.store == self.name.as_str() {
            self.node.deliver(keep.delivery(body.clone()).await).await?;
            return Ok(());
        }
        let node: NodeName = target.account.store.parse().map_err(anyhow::Error::msg)?;
        let id = MailId::from_bytes(keep.transport);
        self.bodies.put(id, 0, &reference, body).await?;
        let asked = serde_json::to_vec(&Request::Keep(Box::new(keep)))?;
        let answer = self.broker.ask(subjects::ask_store(&node), asked.into(), KEEP).await?;
        let kept: Result<Reply, String> = serde_json::from_slice(&answer)?;
        kept.map_err(anyhow::Error::msg)?;
        self.bodies.purge(id, reference.chunks).await;
        Ok(())
    }
}

/// Whether the header lines that we put before a mail say that a scanner has looked at it.
fn was_scanned(prefix: &[u8]) -> bool {
    let is_result = |line: &&[u8]| line.starts_with(b"X-Chainmail-Scan: ");
    let mut results = prefix.split(|byte| *byte == b'\n').filter(is_result).peekable();
    results.peek().is_some() && results.all(|line| !line.starts_with(b"X-Chainmail-Scan: not scanned"))
}

impl Keep {
    async fn delivery(self, body: Bytes) -> Delivery {
        Delivery {
            mail: self.mail,
            target: self.target,
            account: self.account,
            folder: "INBOX".to_owned(),
            prefix: self.prefix.into(),
            outline: Outlined::made(&body).await,
            body,
            digest: self.digest,
            received: self.received,
            admission: Admission::Released,
            held: String::new(),
            held_for: String::new(),
        }
    }
}

impl From<crate::shard::Held> for HeldMail {
    fn from(held: crate::shard::Held) -> Self {
        Self {
            number: held.uid,
            mail: MailId::from_bytes(held.mail).to_string(),
            reason: held.reason,
            recipient: held.recipient,
            received: held.received,
            size: held.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scanner_has_seen() {
        assert!(was_scanned(b"Return-Path: <>\r\nX-Chainmail-Scan: clean\r\nReceived: r\r\n"));
        assert!(was_scanned(b"X-Chainmail-Scan: infected\r\n"));
        assert!(!was_scanned(b"X-Chainmail-Scan: not scanned, too large\r\n"));
        assert!(!was_scanned(b"Return-Path: <>\r\nReceived: X-Chainmail-Scan: clean\r\n"));
    }
}
