//! What the findings mean for the mail. Pure.

use proto::{Disposition, Symbol, Verdict};
use runtime::Outcome;

use crate::config::{Points, Thresholds};
use crate::facts::Facts;
use crate::rules;

/// A line of a header field is folded behind so many bytes (RFC 5322 section 2.1.1 asks for 78).
const FOLD: usize = 70;

/// The symbols that hold for a mail. Rules of no points are off.
pub fn symbols(points: &Points, facts: &Facts) -> Vec<Symbol> {
    rules::all()
        .filter(|rule| points.of(rule.name) != 0.0)
        .filter_map(|rule| {
            let detail = (rule.find)(facts)?;
            Some(Symbol { name: rule.name.to_owned(), points: points.of(rule.name), detail })
        })
        .collect()
}

/// The outcome of the symbols.
pub fn decide(thresholds: Thresholds, symbols: Vec<Symbol>) -> Outcome {
    let mut verdict = Verdict { symbols, ..Verdict::clean() };
    // Rounded, so that what is shown is what was compared.
    let score = (verdict.score() * 10.0).round() / 10.0 + 0.0;
    if score >= thresholds.reject {
        verdict.disposition = Disposition::Reject;
        verdict.reason = "it looks like spam".to_owned();
    } else if score >= thresholds.junk {
        verdict.disposition = Disposition::Junk;
        verdict.reason = "it looks like spam".to_owned();
    }
    verdict.headers = headers(&verdict, score, thresholds).into_bytes();
    if verdict.disposition == Disposition::Reject { Outcome::Reject(verdict) } else { Outcome::Pass(verdict) }
}

/// Names and points only: what was seen is the sender's text, and stays out of our fields.
fn headers(verdict: &Verdict, score: f64, thresholds: Thresholds) -> String {
    let flag = if verdict.disposition == Disposition::Pass { "no" } else { "yes" };
    let mut text = format!("X-Chainmail-Spam: {flag}, score={score:.1} junk={:.1}\r\n", thresholds.junk);
    text.push_str("X-Chainmail-Symbols:");
    let mut column = text.len() - text.rfind('\n').map_or(0, |at| at + 1);
    if verdict.symbols.is_empty() {
        text.push_str(" none");
    }
    for (index, symbol) in verdict.symbols.iter().enumerate() {
        let comma = if index + 1 < verdict.symbols.len() { "," } else { "" };
        let item = format!(" {}({:.1}){comma}", symbol.name, symbol.points);
        if column + item.len() > FOLD {
            text.push_str("\r\n\t");
            column = 8;
            text.push_str(item.trim_start());
        } else {
            text.push_str(&item);
        }
        column += item.len();
    }
    text.push_str("\r\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { junk: 6.0, reject: 15.0 };

    #[track_caller]
    fn check(points: &[f64], want: &str) {
        let symbol = |(index, &points): (usize, &f64)| Symbol {
            name: format!("SYMBOL_NUMBER_{index}"),
            points,
            detail: "a\r\nb".into(),
        };
        let (kind, verdict) = match decide(THRESHOLDS, points.iter().enumerate().map(symbol).collect()) {
            Outcome::Pass(verdict) => ("pass", verdict),
            Outcome::Reject(verdict) => ("reject", verdict),
            other => panic!("{other:?}"),
        };
        let headers = String::from_utf8_lossy(&verdict.headers).into_owned();
        assert!(headers.ends_with("\r\n") && headers.lines().all(|line| line.len() <= 78), "{headers}");
        assert_eq!(format!("{kind} {:?} {}", verdict.disposition, headers.lines().next().unwrap_or_default()), want);
    }

    #[test]
    fn by_score() {
        check(&[], "pass Pass X-Chainmail-Spam: no, score=0.0 junk=6.0");
        check(&[5.9, -0.04], "pass Pass X-Chainmail-Spam: no, score=5.9 junk=6.0");
        check(&[5.96], "pass Junk X-Chainmail-Spam: yes, score=6.0 junk=6.0");
        check(&[2.0; 7], "pass Junk X-Chainmail-Spam: yes, score=14.0 junk=6.0");
        check(&[8.0, 7.0], "reject Reject X-Chainmail-Spam: yes, score=15.0 junk=6.0");
        check(&[8.0, 7.0, -0.2], "pass Junk X-Chainmail-Spam: yes, score=14.8 junk=6.0");
        check(&[-0.01], "pass Pass X-Chainmail-Spam: no, score=0.0 junk=6.0");
    }

    #[test]
    fn symbols_are_unlike_each_other_and_have_points() {
        let mut names: Vec<_> = rules::all().map(|rule| rule.name).collect();
        assert!(names.len() >= 25 && rules::all().all(|rule| rule.points != 0.0 && !rule.doc.is_empty()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rules::all().count());
    }
}
