//! What a shard's writer is asked to do, and how long it will take: what is written together, and who has to wait for
//! whom, goes by that, not by the number of commands.

use tokio::sync::oneshot;

use super::outlines::Late;
use super::placing::{Placed, Placing};
use super::sweep::Sweep;
use super::turns::Turn;
use super::{Change, Delivery, Kept, StoreError};

/// What the writer is asked to do.
pub(super) enum Command {
    Deliver(Box<Delivery>, oneshot::Sender<Result<Kept, StoreError>>),
    Work(Work, oneshot::Sender<Result<u64, StoreError>>),
    Place(Box<Placing>, oneshot::Sender<Result<Placed, StoreError>>),
}

/// What is not a delivery.
pub(super) enum Work {
    Change(Change),
    Sweep(Sweep),
    Outlines(Vec<Late>),
    /// There is nothing to write, but there may be something else to do: what is doomed, a pack to be synced.
    Wake,
    #[cfg(test)]
    BreakDown,
    #[cfg(test)]
    Wait(std::sync::Mutex<std::sync::mpsc::Receiver<()>>),
}

/// Rows that are changed, copied or expunged while one message is stored.
const ROWS: usize = 10;

impl Command {
    /// For how many deliveries' time the writer has to do with it, about.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Place(placing, _) => match &**placing {
                Placing::Append(appending) => appending.messages.len().max(1),
                Placing::Copy(copying) => 1 + copying.uids.len() / ROWS,
            },
            Self::Work(Work::Change(Change::Flags { uids, .. } | Change::Expunge { uids, .. }), _) => {
                1 + uids.len() / ROWS
            }
            Self::Deliver(..) | Self::Work(..) => 1,
        }
    }

    /// Whose it is: the account, or the mailbox where that is all that is known.
    pub(super) fn whose(&self) -> i64 {
        match self {
            Self::Deliver(delivery, _) => delivery.account,
            Self::Place(placing, _) => match &**placing {
                Placing::Append(appending) => appending.account,
                Placing::Copy(copying) => copying.account,
            },
            Self::Work(Work::Change(change), _) => match change {
                Change::Flags { mailbox, .. } => *mailbox,
                Change::Mailboxes { account } | Change::Expunge { account, .. } | Change::Manage { account, .. } => {
                    *account
                }
            },
            Self::Work(..) => 0,
        }
    }
}

/// A command that waits for the shard's thread.
pub(super) struct Queued {
    pub(super) command: Command,
    /// Of one that takes long: it is given back when the command is done, whoever waits for the answer or does not any
    /// more.
    pub(super) turn: Option<Turn>,
}

impl From<Command> for Queued {
    fn from(command: Command) -> Self {
        Self { command, turn: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{CopyMode, Copying, FlagChange, FlagMode, Limits};

    /// Commands were counted, whatever they had to do.
    #[test]
    fn what_has_more_to_do_weighs_more() {
        let uids = |count: i64| (1..=count).collect::<Vec<_>>();
        let change = FlagChange { how: FlagMode::Add, flags: 1, keywords: Vec::new() };
        let flags =
            |count| Change::Flags { mailbox: 1, uids: uids(count), change: change.clone(), unchanged_since: None };
        let expunge = |count| Change::Expunge { account: 1, mailbox: 1, uids: uids(count), only_deleted: true };
        let copy = |count| {
            let (how, limits) = (CopyMode::Copy, Limits { bytes: 0, messages: 0 });
            Copying { account: 1, mailbox: 1, uids: uids(count), to: "x".into(), how, limits }
        };
        for (work, weight) in [
            (Work::Wake, 1),
            (Work::Change(flags(1)), 1),
            (Work::Change(flags(2000)), 201),
            (Work::Change(expunge(2000)), 201),
            (Work::Change(Change::Mailboxes { account: 1 }), 1),
        ] {
            assert_eq!(Command::Work(work, oneshot::channel().0).weight(), weight);
        }
        let copying = Command::Place(Box::new(Placing::Copy(copy(20_000))), oneshot::channel().0);
        assert_eq!(copying.weight(), 2001);
    }
}
