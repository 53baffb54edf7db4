//! Every name on the broker: streams, subjects, consumers, buckets. No other file spells one.

use crate::{MailId, NodeName};

/// The stream of bodies.
pub const BODIES: &str = "BODIES";
/// All subjects of [`BODIES`].
pub const BODIES_SUBJECTS: &str = "body.>";
/// The stream of copies for the store nodes.
pub const STORE: &str = "STORE";
/// All subjects of [`STORE`].
pub const STORE_SUBJECTS: &str = "mail.store.*";
/// The stream of ends.
pub const ENDED: &str = "ENDED";
/// All subjects of [`ENDED`].
pub const ENDED_SUBJECTS: &str = "mail.ended.*";
/// The stream of dead letters.
pub const DEAD: &str = "DEAD";
/// All subjects of [`DEAD`].
pub const DEAD_SUBJECTS: &str = "mail.dead.>";
/// The stage that routes.
pub const DELIVER_STAGE: &str = "deliver";
/// The stage that stores.
pub const STORE_STAGE: &str = "store";
/// What accept nodes tell each other of doubtful mails, by core NATS.
pub const DOUBTFUL: &str = "doubtful";
/// Announces changes of the directory.
pub const DIRECTORY_CHANGED: &str = "directory.changed";
/// Announces streams that were made, by their names: what was in them before is lost.
pub const STREAMS_MADE: &str = "streams.made";
/// Asks every program for its state; each answers by itself.
pub const STATUS: &str = "ask.status";

/// The stream that feeds a stage: `SCORE` for `score`.
pub fn stream(stage: &str) -> String {
    stage.to_ascii_uppercase()
}

/// The stream that takes what is published on a subject of ours.
pub fn stream_of(subject: &str) -> String {
    let mut words = subject.split('.');
    match (words.next(), words.next()) {
        (Some("mail"), Some(stage)) => stream(stage),
        _ => BODIES.to_owned(),
    }
}

/// The subject that feeds a stage: `mail.score` for `score`.
pub fn stage(stage: &str) -> String {
    format!("mail.{stage}")
}

/// The subject of the copies for one store node.
pub fn store(node: &NodeName) -> String {
    format!("mail.store.{node}")
}

/// The subject of the ends for one accept node.
pub fn ended(node: &NodeName) -> String {
    format!("mail.ended.{node}")
}

/// The subject of one stage's dead letters of this mail; of what could not be read, there is no telling which mail it
/// is.
pub fn dead(stage: &str, id: Option<MailId>) -> String {
    id.map_or_else(|| format!("mail.dead.{stage}"), |id| format!("mail.dead.{stage}.{id}"))
}

/// All dead letters of a mail.
pub fn dead_of(id: MailId) -> String {
    format!("mail.dead.*.{id}")
}

/// The durable consumer of a stage's stream.
pub fn consumer(stage: &str) -> String {
    stage.to_owned()
}

/// The durable consumer of one store node's copies.
pub fn store_consumer(node: &NodeName) -> String {
    format!("store-{node}")
}

/// The durable consumer of one accept node's ends.
pub fn ended_consumer(node: &NodeName) -> String {
    format!("ended-{node}")
}

/// The accept node whose ends a consumer of this name reads.
pub fn ended_node(consumer: &str) -> Option<&str> {
    consumer.strip_prefix("ended-")
}

/// The store node whose copies a consumer of this name reads.
pub fn store_node(consumer: &str) -> Option<&str> {
    consumer.strip_prefix("store-")
}

/// The subject of one chunk of a body.
pub fn body(id: MailId, chunk: u32) -> String {
    format!("body.{id}.{chunk}")
}

/// All chunks of a body.
pub fn body_chunks(id: MailId) -> String {
    format!("body.{id}.*")
}

/// Notices for an accept node, by core NATS.
pub fn notice(node: &NodeName) -> String {
    format!("notice.{node}")
}

/// Questions to one accept node, by core NATS: its books, replay, drop.
pub fn ask_accept(node: &NodeName) -> String {
    format!("ask.accept.{node}")
}

/// Questions to one accept node about doubtful mails, by core NATS.
pub fn ask_doubtful(node: &NodeName) -> String {
    format!("ask.doubtful.{node}")
}

/// Questions to one store node, by core NATS: held mail, keeping a released copy.
pub fn ask_store(node: &NodeName) -> String {
    format!("ask.store.{node}")
}

/// The broker's duplicate key for a mail on its way to `hop` in this round: the same copy published twice counts once,
/// a new round does not.
pub fn message_id(id: MailId, hop: &str, round: u32) -> String {
    format!("{id}.{hop}.{round}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_has_its_stream() {
        let node: NodeName = "n1".parse().expect("a name");
        for (subject, want) in [
            (stage("score"), "SCORE"),
            (stage(DELIVER_STAGE), "DELIVER"),
            (store(&node), STORE),
            (ended(&node), ENDED),
            (dead("scan", None), DEAD),
            (body(MailId::from_bytes([0; 16]), 3), BODIES),
        ] {
            assert_eq!(stream_of(&subject), want, "{subject}");
        }
    }
}
