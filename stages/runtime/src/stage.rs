//! What a stage is: it takes a mail, looks, decides, and says what becomes of it.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use proto::{Ended, Envelope, NodeName, Target, Verdict};
use tokio::sync::{OnceCell, OwnedSemaphorePermit};
use tokio::time::Instant;

use crate::bodies::{Bodies, BodyError, Room};
use crate::fault::Fault;

/// A program that takes mail off a subject and says what becomes of it.
///
/// It never acknowledges, publishes, retries, counts, times or sleeps: the runtime does, the same way for every stage.
pub trait Stage: Send + Sync + 'static {
    /// Decides about one mail. May be called for many at once, and again for a mail that it has answered before.
    ///
    /// # Errors
    /// [`Fault::Later`] when the mail must wait, [`Fault::Never`] when trying again cannot help.
    fn handle(&self, mail: &Mail) -> impl Future<Output = Result<Outcome, Fault>> + Send;
}

/// What a stage says of a mail. The table of what follows from each is `settle`.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// On to the next stage of the chain.
    Pass(Verdict),
    /// Straight to deliver, past the stages between. A hold travels this way.
    Divert(Verdict),
    /// Refuse it in the session, or hold it when the sender has its 250 already.
    Reject(Verdict),
    /// Back to the stage of this name, whose verdict the mail does not have.
    Back(String),
    /// Copies for store nodes.
    Route(Vec<Route>),
    /// The mail is where it belongs.
    End(Ending),
    /// Some of the mail is where it belongs; the rest is not.
    Partly(Partly),
}

/// How far a copy with several targets has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Partly {
    /// Targets that are done.
    pub ended: Ending,
    /// Targets that another node takes over.
    pub onward: Vec<Route>,
    /// Why the remaining targets have to wait, if there are any.
    pub waits: Option<String>,
}

/// One copy, for one store node.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The store node.
    pub node: NodeName,
    /// The mailboxes there. Never empty.
    pub targets: Vec<Target>,
    /// Why the copy is held, when it is and the envelope does not say so itself.
    pub held: Option<String>,
}

/// Which targets of a mail are done.
pub type Ending = Ended;

/// A mail in a stage's hands.
#[derive(Debug)]
pub struct Mail {
    envelope: Envelope,
    bodies: Bodies,
    room: Room,
    /// What of the room this mail has taken, until it is let go.
    taken: OnceCell<Option<OwnedSemaphorePermit>>,
    wait: Mutex<Wait>,
}

/// A wait for room.
#[derive(Debug, Clone, Copy)]
enum Wait {
    Not,
    Since(Instant),
    Was(Duration),
}

impl Mail {
    /// A mail whose body is looked up in `bodies`, once there is room for it.
    pub fn new(envelope: Envelope, bodies: Bodies, room: Room) -> Self {
        Self { envelope, bodies, room, taken: OnceCell::new(), wait: Mutex::new(Wait::Not) }
    }

    /// Everything about the mail but its body.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The body as the sender gave it, without the header block that we prepend: from this process's cache, or from the
    /// broker. Its digest has been checked. Waits while the mails in the stage's hands have as many bytes as they may.
    ///
    /// # Errors
    /// [`Fault::Missed`] when it is not there, [`Fault::Later`] when nobody can say; to be passed on as they are.
    pub async fn body(&self) -> Result<Bytes, Fault> {
        self.taken.get_or_init(|| self.take_room()).await;
        let body = self.bodies.get(self.envelope.id, &self.envelope.body).await;
        body.map_err(|error| match error {
            // A broker that cannot be asked knows nothing of the mail.
            BodyError::Unreachable { .. } => Fault::Later(error.into()),
            BodyError::Absent(_) | BodyError::Altered(_) => Fault::Missed(error.into()),
        })
    }

    async fn take_room(&self) -> Option<OwnedSemaphorePermit> {
        let began = Instant::now();
        self.set_wait(Wait::Since(began));
        let taken = self.room.take(&self.envelope.body).await;
        self.set_wait(Wait::Was(began.elapsed()));
        taken
    }

    fn set_wait(&self, wait: Wait) {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = wait;
    }

    /// For how long it has been waiting for room. That is the fault of others, and no sign of a stage that hangs.
    pub(crate) fn waited(&self) -> Duration {
        match *self.wait.lock().unwrap_or_else(PoisonError::into_inner) {
            Wait::Not => Duration::ZERO,
            Wait::Since(began) => began.elapsed(),
            Wait::Was(span) => span,
        }
    }
}
