//! What follows from a stage's answer: a pure function, and the table that it is.
//!
//! | answer | in this order |
//! |---|---|
//! | `Pass`, `Divert`, `Back`, `Route` | publish every copy, wait for every confirmation, ack |
//! | `Reject` | ask the arbiter, wait for its answer, ack |
//! | `End` | publish the end, wait, ack |
//! | `Partly` | publish what goes onward and what has ended, wait; then ack, or as `Later` for what remains |
//! | its body is nowhere, and accept says that the mail has ended | ack |
//! | `Later`, or its body is nowhere | nak with our backoff; from `warn_after` an alarm; older than `give_up_after`: bury |
//! | `Never`, unreadable | bury: to the dead letters, wait, term |
//! | panic, time limit | nak with backoff; at the third panic or time limit: bury |
//! | overdue: it should have been given up, and came back without a word | bury, unseen |
//!
//! Whoever carries the steps out stops at the first that fails and leaves the message alone: it comes back.

use std::time::Duration;

use proto::Verdict;

use crate::fault::Fault;
use crate::stage::{Ending, Outcome, Partly, Route};

/// What came out of handing a message to its stage.
#[derive(Debug)]
pub enum Answer {
    /// The stage answered.
    Outcome(Outcome),
    /// The mail has ended by another round, its body is gone: there is nothing to do.
    Over,
    /// The stage could not.
    Fault(Fault),
    /// The stage panicked.
    Panicked,
    /// The stage took longer than its limit.
    TimedOut,
    /// The message is not an envelope.
    Unreadable(String),
    /// It was not handed to the stage: see [`is_overdue`].
    Overdue,
}

/// What is known of the message itself.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// How often the broker has delivered it, this time included.
    pub delivered: u64,
    /// How often it is known to have made the stage panic or hang, this time included.
    pub crashes: u64,
    /// For how long it has been waiting for this stage.
    pub age: Duration,
}

/// The limits of patience.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The wait before the second attempt; it doubles from there.
    pub backoff_first: Duration,
    /// The longest wait between attempts.
    pub backoff_most: Duration,
    /// A message that waits for longer raises an alarm.
    pub warn_after: Duration,
    /// A message that has waited for longer is buried.
    pub give_up_after: Duration,
    /// At this panic or time limit of its stage a message is buried.
    pub crashes: u64,
}

/// One thing to do.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Publish the envelope with this verdict for the next stage, and wait.
    Forward(Verdict),
    /// Publish the envelope with this verdict for deliver, and wait.
    Divert(Verdict),
    /// Publish the envelope for the stage of this name, and wait.
    Back(String),
    /// Publish these copies, and wait for all.
    Copies(Vec<Route>),
    /// Publish these copies, which take over targets of this one, and wait for all.
    Onward(Vec<Route>),
    /// Ask accept what becomes of a mail that this verdict rejects, and wait.
    Arbitrate(Verdict),
    /// Publish the end, and wait.
    End(Ending),
    /// Put the message to the dead letters for this reason, tell accept, and wait for both.
    Bury(String),
    /// Raise the alarm metric, with the reason in the log.
    Alarm,
    /// Confirm the message.
    Ack,
    /// Give it back, to be delivered again after that time.
    Nak(Duration),
    /// Tell the broker that it must not come back.
    Term,
}

/// What to do, and how it is named in logs and metrics.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// `pass`, `divert`, `back`, `route`, `reject`, `end`, `over`, `later`, `bury`.
    pub name: &'static str,
    /// Why, for people; empty when there is nothing to say.
    pub reason: String,
    /// In this order.
    pub steps: Vec<Step>,
}

/// The table above.
pub fn settle(answer: Answer, attempt: Attempt, patience: &Patience) -> Plan {
    let plan = |name, reason: String, steps| Plan { name, reason, steps };
    match answer {
        Answer::Outcome(Outcome::Pass(verdict)) => {
            plan("pass", verdict.reason.clone(), vec![Step::Forward(verdict), Step::Ack])
        }
        Answer::Outcome(Outcome::Divert(verdict)) => {
            plan("divert", verdict.reason.clone(), vec![Step::Divert(verdict), Step::Ack])
        }
        Answer::Outcome(Outcome::Back(stage)) => {
            plan("back", format!("{stage} has not seen it"), vec![Step::Back(stage), Step::Ack])
        }
        Answer::Outcome(Outcome::Reject(verdict)) => {
            plan("reject", verdict.reason.clone(), vec![Step::Arbitrate(verdict), Step::Ack])
        }
        Answer::Outcome(Outcome::Route(routes)) if routes.is_empty() => {
            bury("the stage gave no route for the mail".to_owned())
        }
        Answer::Outcome(Outcome::Route(routes)) => plan("route", String::new(), vec![Step::Copies(routes), Step::Ack]),
        Answer::Outcome(Outcome::End(ending)) => plan("end", String::new(), vec![Step::End(ending), Step::Ack]),
        Answer::Outcome(Outcome::Partly(partly)) => settle_part(partly, attempt, patience),
        Answer::Over => plan("over", "the mail has ended by another round".to_owned(), vec![Step::Ack]),
        Answer::Fault(Fault::Never(error)) => bury(format!("{error:#}")),
        Answer::Unreadable(reason) => bury(format!("unreadable: {reason}")),
        Answer::Fault(Fault::Later(error) | Fault::Missed(error)) => later(format!("{error:#}"), attempt, patience),
        Answer::Overdue => bury(format!(
            "given up after {}: it came {} times, and what became of it was not told at last",
            humantime::format_duration(whole_seconds(attempt.age)),
            attempt.delivered
        )),
        Answer::Panicked => crashed("the stage panicked", attempt, patience),
        Answer::TimedOut => crashed("the stage took longer than its time limit", attempt, patience),
    }
}

/// Whether a message is not to be handed to its stage any more. A stage that answers is told at `give_up_after` to give
/// up; a message that is still there when every wait after that is over has been taking the whole process with it (a
/// stack that overflows, memory that runs out), of which nothing in the process can keep count. The deliveries cannot
/// tell it from mail that waits for a scanner, nor from the innocent mails that were in hand beside it: only time can.
/// A first delivery is no such thing, however late: the stage was away; nor are a few, which may have been handed back.
pub fn is_overdue(attempt: Attempt, patience: &Patience) -> bool {
    attempt.delivered > patience.crashes
        && attempt.age >= patience.give_up_after.saturating_add(patience.backoff_most * 2)
}

/// What is done is told first: it must neither be done again nor be given up with the rest.
fn settle_part(Partly { ended, onward, waits }: Partly, attempt: Attempt, patience: &Patience) -> Plan {
    let mut plan = match waits {
        Some(reason) => later(reason, attempt, patience),
        None => Plan { name: "end", reason: String::new(), steps: vec![Step::Ack] },
    };
    let onward = (!onward.is_empty()).then_some(Step::Onward(onward));
    let ended = (!ended.ends.is_empty()).then_some(Step::End(ended));
    plan.steps.splice(0..0, onward.into_iter().chain(ended));
    plan
}

/// The wait before delivery number `delivered + 1`: doubling, without the randomness that many senders would need,
/// since messages that fail together are spread by their own handling.
pub fn backoff(delivered: u64, patience: &Patience) -> Duration {
    let doublings = u32::try_from(delivered.saturating_sub(1)).unwrap_or(u32::MAX).min(30);
    patience.backoff_first.saturating_mul(1 << doublings).min(patience.backoff_most)
}

fn later(reason: String, attempt: Attempt, patience: &Patience) -> Plan {
    if attempt.age >= patience.give_up_after {
        return bury(format!("given up after {}: {reason}", humantime::format_duration(whole_seconds(attempt.age))));
    }
    let mut steps = Vec::new();
    if attempt.age >= patience.warn_after {
        steps.push(Step::Alarm);
    }
    steps.push(Step::Nak(backoff(attempt.delivered, patience)));
    Plan { name: "later", reason, steps }
}

fn crashed(what: &str, attempt: Attempt, patience: &Patience) -> Plan {
    if attempt.crashes >= patience.crashes {
        return bury(format!("{what}, {} times in all", attempt.crashes));
    }
    let steps = vec![Step::Alarm, Step::Nak(backoff(attempt.delivered, patience))];
    Plan { name: "later", reason: what.to_owned(), steps }
}

fn bury(reason: String) -> Plan {
    Plan { name: "bury", steps: vec![Step::Alarm, Step::Bury(reason.clone()), Step::Term], reason }
}

fn whole_seconds(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}

#[cfg(test)]
mod tests {
    use proto::{End, EndKind, Ended, MailId};

    use super::*;

    const PATIENCE: Patience = Patience {
        backoff_first: Duration::from_secs(1),
        backoff_most: Duration::from_secs(60),
        warn_after: Duration::from_secs(600),
        give_up_after: Duration::from_secs(5 * 86_400),
        crashes: 3,
    };

    #[track_caller]
    fn check(answer: Answer, delivered: u64, age_seconds: u64, name: &str, want: &[&str]) {
        check_attempt(answer, attempt(delivered, age_seconds), name, want);
    }

    fn attempt(delivered: u64, age_seconds: u64) -> Attempt {
        Attempt { delivered, crashes: 0, age: Duration::from_secs(age_seconds) }
    }

    #[track_caller]
    fn check_attempt(answer: Answer, attempt: Attempt, name: &str, want: &[&str]) {
        let plan = settle(answer, attempt, &PATIENCE);
        let steps: Vec<String> = plan.steps.iter().map(short).collect();
        assert_eq!((plan.name, steps), (name, want.iter().map(|&s| s.to_owned()).collect()));
    }

    fn short(step: &Step) -> String {
        match step {
            Step::Forward(_) => "forward".into(),
            Step::Divert(_) => "divert".into(),
            Step::Copies(routes) => format!("copies {}", routes.len()),
            Step::Arbitrate(_) => "arbitrate".into(),
            Step::End(_) => "end".into(),
            Step::Bury(_) => "bury".into(),
            Step::Back(stage) => format!("back {stage}"),
            Step::Onward(routes) => format!("onward {}", routes.len()),
            Step::Alarm => "alarm".into(),
            Step::Ack => "ack".into(),
            Step::Nak(wait) => format!("nak {}", wait.as_secs()),
            Step::Term => "term".into(),
        }
    }

    fn verdict() -> Verdict {
        Verdict::clean()
    }

    fn said(outcome: Outcome) -> Answer {
        Answer::Outcome(outcome)
    }

    fn route() -> Route {
        Route { node: "s1".parse().expect("a name"), targets: Vec::new(), held: None }
    }

    fn later_fault() -> Answer {
        Answer::Fault(Fault::later("clamd is gone"))
    }

    #[test]
    fn pass() {
        check(said(Outcome::Pass(verdict())), 1, 0, "pass", &["forward", "ack"]);
    }

    #[test]
    fn divert() {
        check(said(Outcome::Divert(verdict())), 1, 0, "divert", &["divert", "ack"]);
        check(said(Outcome::Back("scan".to_owned())), 1, 0, "back", &["back scan", "ack"]);
    }

    #[test]
    fn route_waits_for_every_copy() {
        check(said(Outcome::Route(vec![route(), route()])), 1, 0, "route", &["copies 2", "ack"]);
    }

    #[test]
    fn a_route_to_nowhere_is_not_an_ack() {
        check(said(Outcome::Route(Vec::new())), 1, 0, "bury", &["alarm", "bury", "term"]);
    }

    #[test]
    fn reject() {
        check(said(Outcome::Reject(verdict())), 1, 0, "reject", &["arbitrate", "ack"]);
    }

    #[test]
    fn end() {
        let ending = Ended { id: MailId::from_bytes([0; 16]), ends: Vec::new(), burial: None };
        check(said(Outcome::End(ending)), 1, 0, "end", &["end", "ack"]);
    }

    #[test]
    fn a_part() {
        let end = End { recipient: 0, routing: 1, target: "a@x".into(), of: 2, kind: EndKind::Stored };
        let some = Ended { id: MailId::from_bytes([0; 16]), ends: vec![end], burial: None };
        let part = |onward, waits: Option<&str>| {
            said(Outcome::Partly(Partly { ended: some.clone(), onward, waits: waits.map(str::to_owned) }))
        };
        check(part(vec![route()], None), 1, 0, "end", &["onward 1", "end", "ack"]);
        check(part(Vec::new(), Some("disk")), 1, 0, "later", &["end", "nak 1"]);
        check(part(vec![route()], Some("disk")), 1, 5 * 86_400, "bury", &["onward 1", "end", "alarm", "bury", "term"]);
    }

    #[test]
    fn later() {
        check(later_fault(), 1, 0, "later", &["nak 1"]);
        check(later_fault(), 4, 599, "later", &["nak 8"]);
        check(later_fault(), 4, 600, "later", &["alarm", "nak 8"]);
        check(later_fault(), u64::MAX, 5 * 86_400 - 1, "later", &["alarm", "nak 60"]);
    }

    #[test]
    fn a_body_that_is_nowhere() {
        check(Answer::Over, 7, 600, "over", &["ack"]);
        let missed = || Answer::Fault(Fault::Missed(anyhow::anyhow!("not there")));
        check(missed(), 2, 600, "later", &["alarm", "nak 2"]);
        check(missed(), 2, 5 * 86_400, "bury", &["alarm", "bury", "term"]);
    }

    #[test]
    fn later_is_given_up_by_age_and_never_by_count() {
        check(later_fault(), 1_000_000, 10, "later", &["nak 60"]);
        check(later_fault(), 1, 5 * 86_400, "bury", &["alarm", "bury", "term"]);
    }

    #[test]
    fn never() {
        check(Answer::Fault(Fault::never("odd")), 1, 0, "bury", &["alarm", "bury", "term"]);
    }

    #[test]
    fn unreadable() {
        check(Answer::Unreadable("torn".into()), 1, 0, "bury", &["alarm", "bury", "term"]);
    }

    #[test]
    fn panic_and_time_limit_are_buried_at_the_third() {
        for answer in [|| Answer::Panicked, || Answer::TimedOut] {
            let crashed = |delivered, crashes| Attempt { crashes, ..attempt(delivered, 0) };
            check_attempt(answer(), crashed(1, 1), "later", &["alarm", "nak 1"]);
            check_attempt(answer(), crashed(2, 2), "later", &["alarm", "nak 2"]);
            check_attempt(answer(), crashed(3, 3), "bury", &["alarm", "bury", "term"]);
        }
    }

    /// Mail that has waited for a scanner many times was buried at its first panic.
    #[test]
    fn deliveries_are_no_crashes() {
        let crashed = Attempt { crashes: 1, ..attempt(40, 0) };
        check_attempt(Answer::Panicked, crashed, "later", &["alarm", "nak 60"]);
    }

    #[test]
    fn what_takes_the_process_with_it_is_given_up_by_age() {
        let limit = 5 * 86_400 + 120;
        for (delivered, age, want) in [(3, limit, false), (4, limit - 1, false), (4, limit, true)] {
            assert_eq!(is_overdue(attempt(delivered, age), &PATIENCE), want, "{delivered} {age}");
        }
        check(Answer::Overdue, 4, limit, "bury", &["alarm", "bury", "term"]);
    }
}
