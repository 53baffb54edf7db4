//! The arbiter: what a sender that waits for the chain's verdict is told, decided once for each mail.
//!
//! A sender waits until the chain has cleared its mail, until a stage rejects it, or until the deadline. Whoever comes
//! first decides; the others learn what was decided. After a 250 nothing is rejected any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use proto::MailId;
use tokio::sync::watch;

/// What a waiting sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// 250.
    Kept,
    /// 550 with this reason.
    Refused(String),
    /// 451: the refusal could not be recorded.
    Failed,
}

/// How the arbiter stands to a mail that a stage rejects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Its sender waits: it is refused, once that is recorded and told by [`Arbiter::decide`].
    Waiting,
    /// It is being refused at this moment because of another round.
    Deciding,
    /// Its sender had 250, or nobody knows what it had.
    Answered,
}

#[derive(Debug)]
struct Case {
    word: watch::Sender<Option<Word>>,
    /// A refusal is being recorded: the deadline comes too late.
    deciding: bool,
}

/// All mails whose senders wait. At most one for each connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arbiter(Arc<Mutex<HashMap<MailId, Case>>>);

impl Arbiter {
    fn cases(&self) -> std::sync::MutexGuard<'_, HashMap<MailId, Case>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sender begins to wait.
    pub(crate) fn open(&self, id: MailId) -> watch::Receiver<Option<Word>> {
        let (word, receiver) = watch::channel(None);
        self.cases().insert(id, Case { word, deciding: false });
        receiver
    }

    /// The same mail came again, from a sender that lost the first connection: it waits for the same word, if that is
    /// not out yet.
    pub(crate) fn join(&self, id: MailId) -> Option<watch::Receiver<Option<Word>>> {
        self.cases().get(&id).map(|case| case.word.subscribe())
    }

    /// All checks were passed.
    pub(crate) fn clear(&self, id: MailId) {
        let mut cases = self.cases();
        if cases.get(&id).is_some_and(|case| !case.deciding)
            && let Some(case) = cases.remove(&id)
        {
            case.word.send_replace(Some(Word::Kept));
        }
    }

    /// The deadline has passed. False when a refusal is being recorded at this moment: then its word is to be waited
    /// for.
    pub(crate) fn expire(&self, id: MailId) -> bool {
        let mut cases = self.cases();
        if cases.get(&id).is_some_and(|case| case.deciding) {
            return false;
        }
        if let Some(case) = cases.remove(&id) {
            case.word.send_replace(Some(Word::Kept));
        }
        true
    }

    /// A stage rejects the mail.
    pub(crate) fn reject(&self, id: MailId) -> Stand {
        let mut cases = self.cases();
        if let Some(case) = cases.get_mut(&id) {
            let is_second = std::mem::replace(&mut case.deciding, true);
            return if is_second { Stand::Deciding } else { Stand::Waiting };
        }
        Stand::Answered
    }

    /// What [`Stand::Waiting`] has come to.
    pub(crate) fn decide(&self, id: MailId, word: Word) {
        if let Some(case) = self.cases().remove(&id) {
            case.word.send_replace(Some(word));
        }
    }

    /// The mail has ended. If that is heard before its clearance, or the clearance is lost, its sender waits no longer.
    pub(crate) fn forget(&self, id: MailId) {
        self.expire(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MailId = MailId::from_bytes([1; 16]);

    #[track_caller]
    fn check(steps: &[fn(&Arbiter)], want: Option<Word>) {
        let arbiter = Arbiter::default();
        let heard = arbiter.open(ID);
        let joined = arbiter.join(ID);
        for step in steps {
            step(&arbiter);
        }
        assert_eq!(*heard.borrow(), want);
        assert_eq!(joined.map(|joined| joined.borrow().clone()), Some(want));
    }

    fn refuse(arbiter: &Arbiter) {
        assert_eq!(arbiter.reject(ID), Stand::Waiting);
        arbiter.decide(ID, Word::Refused("spam".into()));
    }

    #[test]
    fn whoever_comes_first_decides() {
        check(&[], None);
        check(&[|a| a.clear(ID), |a| assert!(a.expire(ID))], Some(Word::Kept));
        check(&[|a| a.forget(ID)], Some(Word::Kept));
        check(&[|a| a.forget(ID), |a| assert_eq!(a.reject(ID), Stand::Answered)], Some(Word::Kept));
        check(&[|a| assert!(a.expire(ID)), |a| a.clear(ID)], Some(Word::Kept));
        check(&[refuse, |a| a.clear(ID), |a| assert!(a.expire(ID))], Some(Word::Refused("spam".into())));
    }

    #[test]
    fn a_refusal_that_is_being_recorded_is_waited_for() {
        let steps: &[fn(&Arbiter)] = &[
            |a| assert_eq!(a.reject(ID), Stand::Waiting),
            |a| assert!(!a.expire(ID)),
            |a| assert_eq!(a.reject(ID), Stand::Deciding, "another round must not make it held"),
            |a| a.clear(ID),
            |a| a.forget(ID),
            |a| a.decide(ID, Word::Failed),
        ];
        check(steps, Some(Word::Failed));
    }

    #[test]
    fn after_the_answer_nothing_is_refused() {
        check(&[|a| assert!(a.expire(ID)), |a| assert_eq!(a.reject(ID), Stand::Answered)], Some(Word::Kept));
        check(&[|a| a.clear(ID), |a| assert_eq!(a.reject(ID), Stand::Answered)], Some(Word::Kept));
        let ended: &[fn(&Arbiter)] =
            &[|a| a.clear(ID), |a| a.forget(ID), |a| assert_eq!(a.reject(ID), Stand::Answered)];
        check(ended, Some(Word::Kept));
    }
}
