//! IMAP over the storage.

mod append;
mod changing;
mod fetching;
mod mailboxes;
mod search;

use std::future::pending;
use std::net::IpAddr;

use runtime::driver::Backend;
use wire::imap::{Answer, ImapSession, Question, View};

use self::changing::Flagging;
use self::fetching::Ahead;
use crate::logins::{Attempt, Login, Logins};
use crate::node::Node;
use crate::seats::Seat;
use crate::shard::{Change, Claim, Limits, Watch};
use crate::texts::{Gathered, Held, Texts};
use crate::views;

/// Answers one session.
pub(crate) struct Reading {
    node: Node,
    logins: Logins,
    room: Texts,
    client: IpAddr,
    /// Room for the texts that are being sent.
    held: Option<Held>,
    /// Room for what is being put in order.
    gathered: Gathered,
    /// Texts that are read meanwhile.
    ahead: Option<Ahead>,
    /// Room for the messages that are being received.
    receiving: Gathered,
    /// Its place among the account's sessions.
    seat: Option<Seat>,
    mailbox: Option<i64>,
    open: Option<Open>,
}

/// The mailbox that is selected: how it was when it was last looked at, and whether it has changed since.
struct Open {
    view: View,
    watch: Watch,
    /// The last look failed. That wakes nobody: who is idle would ask again and again, without a pause.
    is_stale: bool,
    /// Of the messages of which no session was told.
    claim: Claim,
}

/// Whose mail it is, and what of it there may be: as it was when the question came. An account that may not stay any
/// more while it is answered has no limits that could be asked for.
#[derive(Debug, Clone, Copy)]
struct Owner {
    account: i64,
    limits: Limits,
}

impl Reading {
    pub(crate) fn new(node: Node, logins: Logins, room: Texts, client: IpAddr) -> Self {
        Self {
            node,
            logins,
            room,
            client,
            held: None,
            gathered: Gathered::default(),
            ahead: None,
            receiving: Gathered::default(),
            seat: None,
            mailbox: None,
            open: None,
        }
    }

    async fn login(&mut self, user: &str, password: &str) -> anyhow::Result<Answer> {
        let attempt = Attempt { protocol: "imap", client: self.client, user, password };
        let account = match self.logins.login(attempt).await? {
            Login::In(account, seat) => {
                self.seat = Some(seat);
                account.id
            }
            Login::Crowded => return Ok(Answer::Crowded),
            Login::Refused => return Ok(Answer::Refused),
            Login::Elsewhere(node) => return Ok(Answer::Elsewhere(node)),
            Login::Busy => return Ok(Answer::Unavailable),
        };
        self.node.change(account, Change::Mailboxes { account }).await?;
        Ok(Answer::Done)
    }

    async fn view(&mut self, account: i64, name: String, claim: Claim) -> anyhow::Result<Answer> {
        let Some((mailbox, view)) = self.node.view(account, &name).await? else { return Ok(Answer::Refused) };
        self.mailbox = Some(mailbox);
        let notices = &self.node.shard(account).notices;
        let watch = notices.watch(mailbox);
        self.open = Some(Open { view: view.clone(), watch, is_stale: false, claim });
        Ok(Answer::View(View { recent: notices.recent.first(mailbox, view.uidnext, claim), ..view }))
    }

    /// The database is asked only if there was a notice.
    async fn view_again(&mut self, account: i64, mailbox: i64) -> anyhow::Result<Answer> {
        let Some(open) = &mut self.open else { return Ok(Answer::Refused) };
        if !open.is_stale && !open.watch.has_changed().unwrap_or(true) {
            return Ok(Answer::View(open.view.clone()));
        }
        // First this: what changes while we look is looked for once more.
        open.watch.mark_unchanged();
        open.is_stale = true;
        let Some(view) = self.node.view_again(account, mailbox).await? else { return Ok(Answer::Refused) };
        open.view = view.clone();
        open.is_stale = false;
        let recent = self.node.shard(account).notices.recent.first(mailbox, view.uidnext, open.claim);
        Ok(Answer::View(View { recent, ..view }))
    }

    async fn ask(&mut self, question: Question) -> anyhow::Result<Answer> {
        if let Question::Login { user, password } = &question {
            return self.login(user, password.reveal()).await;
        }
        let Some(seat) = &self.seat else { return Ok(Answer::Refused) };
        // The session hears of it when it waits; until then it gets nothing more.
        let Some(known) = seat.account() else { return Ok(Answer::Unavailable) };
        let limits = Limits { bytes: known.quota_bytes, messages: known.quota_messages };
        let owner = Owner { account: known.id, limits };
        let account = owner.account;
        if !matches!(question, Question::Gather(_) | Question::Outlines(_)) {
            self.gathered = Gathered::default();
        }
        let mailbox = self.mailbox;
        match (question, mailbox) {
            (Question::Mailboxes, _) => self.mailboxes(account).await,
            (Question::Mailbox(name), _) => self.mailbox(account, name).await,
            (Question::MailboxWithDeleted(name), _) => {
                let found = self.mailbox(account, name).await?;
                self.with_deleted(account, found).await
            }
            (Question::MailboxesWithDeleted, _) => {
                let all = self.mailboxes(account).await?;
                self.with_deleted(account, all).await
            }
            (Question::Manage(manage), _) => self.manage(account, manage).await,
            (Question::Quota, _) => self.quota(owner).await,
            (Question::Room { name, size }, _) => self.make_room(owner, name, size).await,
            (Question::Append(appended), _) => self.append(owner, appended).await,
            (Question::Copy { uids, to, how }, Some(mailbox)) => self.copy(owner, mailbox, uids, to, how).await,
            (Question::View(name), _) => self.view(account, name, Claim::Look).await,
            (Question::Select(name), _) => self.view(account, name, Claim::Take).await,
            (Question::Flags { uids, how, flags, keywords, unchanged_since }, Some(mailbox)) => {
                let flagging = Flagging { how, flags, keywords, unchanged_since };
                self.flag(account, mailbox, uids, flagging).await
            }
            (Question::Expunge(uids), Some(mailbox)) => self.expunge(account, mailbox, uids).await,
            (Question::Search { criteria, asked }, Some(mailbox)) => {
                self.search(account, mailbox, criteria, asked).await
            }
            (Question::Gather(bytes), _) => self.gather(account, bytes),
            (Question::Receive(bytes), _) => self.receive(account, bytes).await,
            (Question::Outlines(uids), Some(mailbox)) => self.outlines(account, mailbox, uids).await,
            (Question::Texts { now, ahead }, Some(mailbox)) => self.texts(account, mailbox, now, ahead).await,
            (Question::Changes, Some(mailbox)) => self.view_again(account, mailbox).await,
            (Question::Gone(modseq), Some(mailbox)) => {
                Ok(Answer::Gone(views::gone(self.node.shard(account), mailbox, modseq).await?))
            }
            (_, None) | (Question::Login { .. }, _) => Ok(Answer::Refused),
        }
    }
}

impl Backend<ImapSession> for Reading {
    async fn answer(&mut self, question: Question) -> Answer {
        self.ask(question).await.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "an IMAP client could not be served");
            Answer::Unavailable
        })
    }

    fn sent(&mut self) {
        self.held = None;
        self.gathered = Gathered::default();
        self.ahead = None;
    }

    async fn news(&mut self) {
        let Some(open) = &mut self.open else { return pending().await };
        if open.watch.changed().await.is_err() {
            return pending().await;
        }
        // The session's question finds that there is something.
        open.watch.mark_changed();
    }

    fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        let over = self.seat.as_ref().map(Seat::over);
        async move {
            match over {
                Some(over) => over.await,
                None => pending().await,
            }
        }
    }

    fn tls_started(&mut self, _: String) {}
}

fn wide(uids: Vec<u32>) -> Vec<i64> {
    uids.into_iter().map(i64::from).collect()
}
