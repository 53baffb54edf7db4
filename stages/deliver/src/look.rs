//! Asks the directory about each recipient. When it cannot say, the mail waits.

use std::sync::Arc;

use directory::{Account, Directory, Target as Member};
use futures::future::try_join_all;
use proto::{Envelope, NodeName};
use runtime::Fault;

use crate::decide::{Found, Mailbox};

/// Characters of a reason: it becomes a line of the header.
const REASON: usize = 300;

/// What the directory makes of every recipient, in their order.
///
/// # Errors
/// [`Fault::Later`] when the directory is not sure about one of them.
pub(crate) async fn recipients(directory: &Directory, envelope: &Envelope) -> Result<Vec<Found>, Fault> {
    try_join_all(envelope.recipients.iter().map(|recipient| one(directory, &recipient.address))).await
}

/// The quarantine's mailbox.
///
/// # Errors
/// [`Fault::Later`] when the directory does not have it, or is not sure.
pub(crate) async fn quarantine(directory: &Directory) -> Result<Mailbox, Fault> {
    mailbox(&directory.held_account().await?, String::new()).map_err(Fault::later)
}

async fn one(directory: &Directory, address: &str) -> Result<Found, Fault> {
    let expansion = directory.expand(address).await?;
    if expansion.targets.is_empty() {
        let problems: Vec<String> = expansion.problems.iter().map(ToString::to_string).collect();
        let why = if problems.is_empty() { "it is not known any more".to_owned() } else { problems.join("; ") };
        return Ok(Found::Nobody(format!("{address} cannot be delivered to: {why}").chars().take(REASON).collect()));
    }
    let member = |member: &Member| mailbox(&member.account, member.tag.clone().unwrap_or_default());
    // What is wrong with one recipient's account must not keep the mail from the others.
    let mailboxes: Result<Vec<Mailbox>, String> = expansion.targets.iter().map(member).collect();
    Ok(mailboxes.map_or_else(Found::Nobody, Found::Mailboxes))
}

fn mailbox(account: &Arc<Account>, tag: String) -> Result<Mailbox, String> {
    let store: Result<NodeName, String> = account.store.parse();
    Ok(Mailbox {
        account: account.id,
        address: account.address.to_string(),
        store: store.map_err(|why| format!("the store node of {}: {why}", account.address))?,
        quota_bytes: account.quota_bytes,
        quota_messages: account.quota_messages,
        tag,
    })
}
