//! How often mails have made a stage panic or hang, as far as this process knows.
//!
//! A restart forgets it, and so does the bound: such a mail has its chances again, and at last it is given up by age.
//! It errs that way, since a mail that is buried for no fault of its own needs a person.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use proto::MailId;

use crate::settle::Answer;

/// How many mails are remembered. There are few; with more than these something else is wrong, and all are forgotten.
const SUSPECTS: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Suspects(Mutex<HashMap<MailId, u64>>);

impl Suspects {
    /// How often the mail has panicked or hung, now that its stage has given this answer; `most` is when it is buried.
    /// Nothing is remembered of one that its stage is done with.
    pub(crate) fn after(&self, mail: MailId, answer: &Answer, most: u64) -> u64 {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Answer::Panicked | Answer::TimedOut => {
                if known.len() >= SUSPECTS && !known.contains_key(&mail) {
                    known.clear();
                }
                let crashes = known.remove(&mail).unwrap_or(0) + 1;
                // At the last it is buried. When it comes again, somebody has mended what was wrong.
                if crashes < most {
                    known.insert(mail, crashes);
                }
                crashes
            }
            Answer::Fault(_) => known.get(&mail).copied().unwrap_or(0),
            _ => {
                known.remove(&mail);
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use crate::stage::Outcome;

    fn mail(number: u16) -> MailId {
        MailId::new(proto::Millis(1), u128::from(number))
    }

    #[track_caller]
    fn check(answers: Vec<Answer>, want: &[u64]) {
        let suspects = Suspects::default();
        let counts: Vec<u64> = answers.iter().map(|answer| suspects.after(mail(0), answer, 3)).collect();
        assert_eq!(counts, want);
    }

    #[test]
    fn only_crashes_count() {
        let later = || Answer::Fault(Fault::later("clamd is gone"));
        check(vec![later(), later(), later(), Answer::Panicked], &[0, 0, 0, 1]);
        check(vec![Answer::Panicked, later(), Answer::TimedOut], &[1, 1, 2]);
    }

    #[test]
    fn who_is_done_with_is_forgotten() {
        let done = Answer::Outcome(Outcome::Pass(proto::Verdict::clean()));
        check(vec![Answer::Panicked, done, Answer::Panicked], &[1, 0, 1]);
    }

    #[test]
    fn there_is_a_bound() {
        let suspects = Suspects::default();
        for number in 0..=u16::try_from(SUSPECTS).expect("it is small") {
            assert_eq!(suspects.after(mail(number), &Answer::Panicked, 3), 1);
        }
        assert_eq!(suspects.0.lock().expect("nobody has panicked").len(), 1);
    }
}
