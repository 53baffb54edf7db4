//! POP3 over the storage: the maildrop is the account's INBOX.

mod early;

use std::net::IpAddr;

use runtime::driver::Backend;
use wire::imap::MessageRow;
use wire::pop3::{Answer, Entry, Pop3Session, Question};

use self::early::Early;
use crate::logins::{Attempt, Login, Logins};
use crate::node::Node;
use crate::seats::Seat;
use crate::shard::Change;
use crate::texts::Texts;

/// Answers one session.
pub(crate) struct Maildrop {
    node: Node,
    logins: Logins,
    texts: Texts,
    client: IpAddr,
    early: Early,
    open: Option<Open>,
    /// Its place among the account's sessions.
    seat: Option<Seat>,
}

struct Open {
    account: i64,
    mailbox: i64,
    /// UID and size of each message.
    uids: Vec<(i64, u64)>,
}

impl Maildrop {
    pub(crate) fn new(node: Node, logins: Logins, texts: Texts, client: IpAddr) -> Self {
        Self { node, logins, texts, client, early: Early::default(), open: None, seat: None }
    }

    async fn login(&mut self, user: &str, password: &str) -> anyhow::Result<Answer> {
        let attempt = Attempt { protocol: "pop3", client: self.client, user, password };
        let account = match self.logins.login(attempt).await? {
            Login::In(account, seat) => {
                self.seat = Some(seat);
                account
            }
            Login::Crowded => return Ok(Answer::Crowded),
            Login::Refused => return Ok(Answer::Refused),
            Login::Elsewhere(node) => return Ok(Answer::Elsewhere(node)),
            Login::Busy => return Ok(Answer::Unavailable),
        };
        self.node.change(account.id, Change::Mailboxes { account: account.id }).await?;
        let found = self.node.view(account.id, "INBOX").await?;
        let (mailbox, inbox) = found.ok_or_else(|| anyhow::anyhow!("the account has no INBOX"))?;
        let entry = |row: &MessageRow| Entry { size: row.size, unique: format!("{}.{}", inbox.uidvalidity, row.uid) };
        let entries = inbox.messages.iter().map(entry).collect();
        let uids = inbox.messages.iter().map(|row| (i64::from(row.uid), row.size)).collect();
        self.open = Some(Open { account: account.id, mailbox, uids });
        Ok(Answer::Maildrop(entries))
    }

    async fn text(&mut self, index: usize) -> anyhow::Result<Answer> {
        let Some(open) = &self.open else { return Ok(Answer::Unavailable) };
        let text = self.early.text(open, self.node.shard(open.account), &self.texts, index).await?;
        Ok(text.map_or(Answer::Unavailable, Answer::Text))
    }

    async fn delete(&self, indexes: &[usize]) -> anyhow::Result<Answer> {
        let Some(open) = &self.open else { return Ok(Answer::Unavailable) };
        let uids = indexes.iter().filter_map(|index| open.uids.get(*index).map(|(uid, _)| *uid)).collect();
        let expunge = Change::Expunge { account: open.account, mailbox: open.mailbox, uids, only_deleted: false };
        self.node.change(open.account, expunge).await?;
        Ok(Answer::Done)
    }
}

impl Backend<Pop3Session> for Maildrop {
    async fn answer(&mut self, question: Question) -> Answer {
        if self.seat.as_ref().is_some_and(|seat| seat.account().is_none()) {
            return Answer::Unavailable;
        }
        let answer = match question {
            Question::Login { user, password } => self.login(&user, password.reveal()).await,
            Question::Message(index) => self.text(index).await,
            Question::Delete(indexes) => self.delete(&indexes).await,
        };
        answer.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "a POP3 client could not be served");
            Answer::Unavailable
        })
    }

    fn sent(&mut self) {
        self.early.sent();
    }

    fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        let over = self.seat.as_ref().map(Seat::over);
        async move {
            match over {
                Some(over) => over.await,
                None => std::future::pending().await,
            }
        }
    }

    fn tls_started(&mut self, _: String) {}
}
