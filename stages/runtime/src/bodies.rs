//! Bodies travel once: accept puts each into the stream of bodies, and who needs it fetches it by its mail's id.
//!
//! Every process keeps those it has seen in a cache with a bound in bytes, so in `run all` no body is fetched twice.
//! The digest is checked after every fetch. A body that is absent or wrong is *try again*: a replica may lag, and at
//! last the journal puts it there anew.

use std::sync::Arc;

use async_nats::jetstream::stream::DirectGetErrorKind;
use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use proto::{BodyRef, Digest, MailId, subjects};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::{Broker, PublishError};
use crate::config::ByteSize;
use crate::telemetry;

/// Bytes of a body in one message of the stream: half of the broker's usual limit for a message.
pub const CHUNK: usize = 512 * 1024;

/// What an entry of the cache costs beside its bytes.
const ENTRY_OVERHEAD: u64 = 200;

/// Why a body cannot be had at the moment.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Not, or not yet, in the stream.
    #[error("the body of {0} is not in the stream of bodies")]
    Absent(MailId),
    /// The stream cannot be asked.
    #[error("the body of {id} cannot be fetched: {reason}")]
    Unreachable {
        /// The mail.
        id: MailId,
        /// What the broker said.
        reason: String,
    },
    /// There is a body, but not the one that the envelope names.
    #[error("the body of {0} does not have the digest that its envelope names")]
    Altered(MailId),
}

/// A body with the digest that it has.
type Known = (Digest, Bytes);

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<MailId, Known> for Weigh {
    fn weight(&self, _: &MailId, (_, body): &Known) -> u64 {
        body.len() as u64 + ENTRY_OVERHEAD
    }
}

/// Room for the bodies that one stage has in hand.
#[derive(Debug, Clone)]
pub struct Room {
    bytes: u64,
    free: Arc<Semaphore>,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(size: ByteSize) -> Self {
        let free = usize::try_from(size.0).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { bytes: size.0, free: Arc::new(Semaphore::new(free)) }
    }

    /// Waits for room for a body; giving it back is dropping it. A body that is larger than all the room takes all of
    /// it.
    pub(crate) async fn take(&self, wanted: &BodyRef) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(wanted.size.min(self.bytes)).unwrap_or(u32::MAX);
        // It is never closed.
        Arc::clone(&self.free).acquire_many_owned(bytes).await.ok()
    }
}

/// The bodies of the mails under way.
#[derive(Debug, Clone)]
pub struct Bodies {
    broker: Broker,
    cache: Arc<Cache<MailId, Known, Weigh>>,
}

impl Bodies {
    /// Bodies on this broker, with a cache of the size that is configured there.
    pub fn new(broker: Broker) -> Self {
        let bytes = broker.config().cache.0;
        let items = usize::try_from(bytes / 4096).unwrap_or(usize::MAX).max(16);
        Self { broker, cache: Arc::new(Cache::with_weighter(items, bytes, Weigh)) }
    }

    /// Digest and chunks of a body.
    pub fn describe(body: &[u8]) -> BodyRef {
        let chunks = body.len().div_ceil(CHUNK);
        BodyRef {
            size: body.len() as u64,
            digest: Digest(*blake3::hash(body).as_bytes()),
            chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
        }
    }

    /// Puts a body, which is as it is described, into the cache and the stream; `round` tells apart the times that the
    /// journal does so.
    ///
    /// # Errors
    /// When the broker does not confirm every chunk.
    pub async fn put(&self, id: MailId, round: u32, described: &BodyRef, body: &Bytes) -> Result<(), PublishError> {
        self.cache.insert(id, (described.digest, body.clone()));
        let chunks = (0..body.len()).step_by(CHUNK).enumerate().map(|(index, start)| {
            let chunk = body.slice(start..body.len().min(start + CHUNK));
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let message_id = subjects::message_id(id, &format!("body{index}"), round);
            async move { self.broker.publish(subjects::body(id, index), Some(&message_id), chunk).await }
        });
        try_join_all(chunks).await.map(|_| ())
    }

    /// The body of a mail, from the cache or from the stream.
    ///
    /// # Errors
    /// See [`BodyError`]. All of them pass.
    pub async fn get(&self, id: MailId, wanted: &BodyRef) -> Result<Bytes, BodyError> {
        if let Some((digest, body)) = self.cache.get(&id)
            && digest == wanted.digest
        {
            return Ok(body);
        }
        let body = self.fetch(id, wanted).await?;
        if blake3::hash(&body).as_bytes() != &wanted.digest.0 || body.len() as u64 != wanted.size {
            return Err(BodyError::Altered(id));
        }
        self.cache.insert(id, (wanted.digest, body.clone()));
        Ok(body)
    }

    async fn fetch(&self, id: MailId, wanted: &BodyRef) -> Result<Bytes, BodyError> {
        telemetry::body_fetched();
        let unreachable = |reason: String| BodyError::Unreachable { id, reason };
        let stream = self
            .broker
            .jetstream()
            .get_stream_no_info(subjects::BODIES)
            .await
            .map_err(|e| unreachable(e.to_string()))?;
        let chunk = |index| {
            let stream = &stream;
            async move {
                let found = stream.direct_get_last_for_subject(subjects::body(id, index)).await;
                found.map(|message| message.payload).map_err(|error| match error.kind() {
                    DirectGetErrorKind::NotFound => BodyError::Absent(id),
                    _ => unreachable(error.to_string()),
                })
            }
        };
        if wanted.chunks == 1 {
            return chunk(0).await;
        }
        let mut body = BytesMut::new();
        for index in 0..wanted.chunks {
            body.extend_from_slice(&chunk(index).await?);
        }
        Ok(body.freeze())
    }

    /// Forgets the body of a mail that has ended. A failure leaves it to the stream's age limit.
    pub async fn purge(&self, id: MailId, chunks: u32) {
        self.cache.remove(&id);
        if chunks == 0 {
            return;
        }
        let purged = async {
            let stream =
                self.broker.jetstream().get_stream_no_info(subjects::BODIES).await.map_err(|e| e.to_string())?;
            stream.purge().filter(subjects::body_chunks(id)).await.map_err(|error| error.to_string())
        };
        if let Err(error) = purged.await {
            tracing::debug!(mail = %id, error, "a body was left to its age limit");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_body_takes_no_chunk() {
        assert_eq!(Bodies::describe(b"").chunks, 0);
        assert_eq!(Bodies::describe(&[0; CHUNK]).chunks, 1);
        assert_eq!(Bodies::describe(&[0; CHUNK + 1]).chunks, 2);
        assert_eq!(Bodies::describe(b"abc").size, 3);
    }
}
