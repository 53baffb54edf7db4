//! What a stage found out about a mail, and what should become of it.

use crate::wire;

/// One finding, with its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Symbol {
    /// Upper-case name, like `SPF_FAIL`.
    pub name: String,
    /// Points towards spam; negative ones speak for the mail.
    pub points: f64,
    /// What exactly was seen; may be empty.
    pub detail: String,
}

/// What a stage wants to become of the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disposition {
    /// Nothing against it.
    Pass,
    /// Deliver it into Junk.
    Junk,
    /// Into the quarantine.
    Hold,
    /// Refuse it in the session, or hold it if it was accepted already.
    Reject,
}

/// A range of bytes of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bytes before the range.
    pub offset: u64,
    /// Bytes in the range.
    pub length: u64,
}

/// One stage's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The stage that said so; the runtime fills it in.
    pub stage: String,
    /// What should become of the mail.
    pub disposition: Disposition,
    /// Everything that was found.
    pub symbols: Vec<Symbol>,
    /// For people, one line of printable ASCII: why rejected, held or put into Junk. The sender sees it.
    pub reason: String,
    /// Header lines for the delivered mail, each with its CRLF.
    pub headers: Vec<u8>,
    /// Ranges of the body that must not be delivered, ascending and apart.
    pub cuts: Vec<Cut>,
    /// How long the stage took; the runtime fills it in.
    pub millis: u32,
}

impl Verdict {
    /// A verdict that wants `disposition`, for `reason` (empty for a pass).
    pub fn new(disposition: Disposition, reason: impl Into<String>) -> Self {
        Self {
            stage: String::new(),
            disposition,
            symbols: Vec::new(),
            reason: reason.into(),
            headers: Vec::new(),
            cuts: Vec::new(),
            millis: 0,
        }
    }

    /// Nothing was found.
    pub fn clean() -> Self {
        Self::new(Disposition::Pass, "")
    }

    /// The sum of the symbols' points.
    pub fn score(&self) -> f64 {
        self.symbols.iter().map(|symbol| symbol.points).sum()
    }
}

impl From<Disposition> for wire::Disposition {
    fn from(disposition: Disposition) -> Self {
        match disposition {
            Disposition::Pass => Self::Pass,
            Disposition::Junk => Self::Junk,
            Disposition::Hold => Self::Hold,
            Disposition::Reject => Self::Reject,
        }
    }
}

impl From<&Verdict> for wire::Verdict {
    fn from(verdict: &Verdict) -> Self {
        Self {
            stage: verdict.stage.clone(),
            disposition: wire::Disposition::from(verdict.disposition).into(),
            symbols: verdict
                .symbols
                .iter()
                .map(|s| wire::Symbol { name: s.name.clone(), points: s.points, detail: s.detail.clone() })
                .collect(),
            reason: verdict.reason.clone(),
            headers: verdict.headers.clone(),
            cuts: verdict.cuts.iter().map(|c| wire::Cut { offset: c.offset, length: c.length }).collect(),
            millis: verdict.millis,
        }
    }
}

impl From<wire::Verdict> for Verdict {
    /// A disposition that this program does not know is a hold: a person looks at it, nothing is lost or let through.
    fn from(verdict: wire::Verdict) -> Self {
        let disposition = match wire::Disposition::try_from(verdict.disposition) {
            Ok(wire::Disposition::Pass) => Disposition::Pass,
            Ok(wire::Disposition::Junk) => Disposition::Junk,
            Ok(wire::Disposition::Reject) => Disposition::Reject,
            Ok(wire::Disposition::Hold | wire::Disposition::Unspecified) | Err(_) => Disposition::Hold,
        };
        Self {
            stage: verdict.stage,
            disposition,
            symbols: verdict
                .symbols
                .into_iter()
                .map(|s| Symbol { name: s.name, points: s.points, detail: s.detail })
                .collect(),
            reason: verdict.reason,
            headers: verdict.headers,
            cuts: verdict.cuts.into_iter().map(|c| Cut { offset: c.offset, length: c.length }).collect(),
            millis: verdict.millis,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_or_absent_disposition_is_a_hold() {
        for disposition in [0, 99] {
            let odd = wire::Verdict { disposition, ..wire::Verdict::default() };
            assert_eq!(Verdict::from(odd).disposition, Disposition::Hold);
        }
    }

    #[test]
    fn the_score_is_the_sum() {
        let symbol = |points| Symbol { name: "X".into(), points, detail: String::new() };
        let verdict = Verdict { symbols: vec![symbol(2.5), symbol(-1.0)], ..Verdict::clean() };
        assert!((verdict.score() - 1.5).abs() < 1e-9);
    }
}
