//! What a scan report means for the mail. Pure.

use proto::{Disposition, Verdict};
use runtime::Outcome;

use crate::config::TooLarge;

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Nothing was found.
    Clean,
    /// This was.
    Found(String),
    /// Nothing was found, but clamd met this limit and has not looked at all of it.
    Partly(String),
    /// It was not scanned: it is too large.
    TooLarge,
}

/// The outcome of a report.
pub fn decide(too_large: TooLarge, report: &Report) -> Outcome {
    match (report, too_large) {
        (Report::Clean, _) => Outcome::Pass(marked(Verdict::clean(), "clean")),
        (Report::Found(name), _) => {
            Outcome::Reject(marked(Verdict::new(Disposition::Reject, format!("virus found: {name}")), "infected"))
        }
        // Whoever scans large mail elsewhere has said nothing of these.
        (Report::Partly(limit), _) => Outcome::Divert(marked(
            Verdict::new(Disposition::Hold, format!("not wholly scanned: {limit}")),
            "not scanned, not wholly",
        )),
        (Report::TooLarge, TooLarge::Pass) => Outcome::Pass(marked(Verdict::clean(), "not scanned, too large")),
        (Report::TooLarge, TooLarge::Hold) => {
            Outcome::Divert(marked(Verdict::new(Disposition::Hold, "too large to scan"), "not scanned, too large"))
        }
    }
}

/// Every delivered mail says how it was scanned.
fn marked(mut verdict: Verdict, what: &str) -> Verdict {
    verdict.headers = format!("X-Chainmail-Scan: {what}\r\n").into_bytes();
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(too_large: TooLarge, report: Report, want: &str) {
        let got = match decide(too_large, &report) {
            Outcome::Pass(verdict) => format!("pass {:?} {}", verdict.disposition, verdict.reason),
            Outcome::Divert(verdict) => format!("divert {:?} {}", verdict.disposition, verdict.reason),
            Outcome::Reject(verdict) => format!("reject {:?} {}", verdict.disposition, verdict.reason),
            other => format!("{other:?}"),
        };
        assert_eq!(got.trim_end(), want);
    }

    #[test]
    fn clean() {
        check(TooLarge::Hold, Report::Clean, "pass Pass");
    }

    #[test]
    fn found() {
        check(TooLarge::Hold, Report::Found("Eicar".into()), "reject Reject virus found: Eicar");
        check(TooLarge::Pass, Report::Found("Eicar".into()), "reject Reject virus found: Eicar");
    }

    #[test]
    fn not_wholly_scanned() {
        let limit = || Report::Partly("Heuristics.Limits.Exceeded.MaxScanSize".into());
        let want = "divert Hold not wholly scanned: Heuristics.Limits.Exceeded.MaxScanSize";
        check(TooLarge::Hold, limit(), want);
        check(TooLarge::Pass, limit(), want);
        let Outcome::Divert(verdict) = decide(TooLarge::Hold, &limit()) else { panic!("it is held") };
        assert!(verdict.headers.starts_with(b"X-Chainmail-Scan: not scanned"), "its release needs --unscanned");
    }

    #[test]
    fn too_large() {
        check(TooLarge::Hold, Report::TooLarge, "divert Hold too large to scan");
        check(TooLarge::Pass, Report::TooLarge, "pass Pass");
    }
}
