//! What a copy stands for: its name among the copies of a mail, and its recipients.

use proto::{Envelope, Target};

/// A name for these targets.
pub(crate) fn named(targets: &[Target]) -> String {
    let mut hasher = blake3::Hasher::new();
    for target in targets {
        hasher.update(&target.recipient.to_le_bytes()).update(&target.of.to_le_bytes());
        hasher.update(&target.routing.to_le_bytes()).update(&target.account.to_le_bytes());
        for name in [&target.address, &target.held_for] {
            hasher.update(name.as_bytes()).update(b"\0");
        }
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Which recipients a copy stands for: those of its targets, or all before it was routed.
pub(crate) fn concerned(mail: &Envelope) -> Vec<u32> {
    let all = u32::try_from(mail.recipients.len()).unwrap_or(u32::MAX);
    let mut recipients: Vec<u32> = mail.targets.iter().map(|target| target.recipient).collect();
    if recipients.is_empty() {
        recipients = (0..all).collect();
    }
    recipients.sort_unstable();
    recipients.dedup();
    recipients
}

#[cfg(test)]
mod tests {
    use proto::Folder;

    use super::*;

    fn target(recipient: u32, address: &str, held_for: &str) -> Target {
        Target {
            recipient,
            account: 1,
            address: address.to_owned(),
            folder: Folder::Inbox,
            routing: 1,
            of: 1,
            quota_bytes: 0,
            quota_messages: 0,
            tag: String::new(),
            held_for: held_for.to_owned(),
        }
    }

    /// Two stores hand copies for full mailboxes on to one quarantine: the broker took the second for the first once
    /// more.
    #[test]
    fn copies_for_others_have_other_names() {
        let all = [
            vec![],
            vec![target(0, "q", "a")],
            vec![target(0, "q", "b")],
            vec![target(1, "q", "a")],
            vec![target(0, "a", "")],
            vec![Target { of: 2, ..target(0, "a", "") }],
            vec![Target { routing: 2, ..target(0, "a", "") }],
            vec![Target { account: 2, ..target(0, "a", "") }],
            vec![target(0, "q", "a"), target(0, "q", "b")],
        ];
        let mut names: Vec<String> = all.iter().map(|targets| named(targets)).collect();
        assert_eq!(names[1], named(&[target(0, "q", "a")]));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
