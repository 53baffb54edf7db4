//! What a run has shown: a table for people, JSON for machines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::books::{Books, Verdict};
use crate::measure::{Latency, Measured};

/// Replies that a table names.
const REPLIES: usize = 8;

/// What was read back.
#[derive(Debug, Clone)]
pub(crate) struct Proof {
    /// How the books stand.
    pub(crate) verdict: Verdict,
    /// Mailboxes that could not be read, and why.
    pub(crate) unread: Vec<String>,
}

impl Proof {
    /// Whether everything was read, and the chain has kept its word.
    pub(crate) fn is_good(&self) -> bool {
        self.unread.is_empty() && self.verdict.is_good()
    }

    /// For machines.
    pub(crate) fn to_json(&self) -> Value {
        let mut told = self.verdict.to_json();
        told["good"] = json!(self.is_good());
        told["unread"] = json!(self.unread);
        told
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        let Verdict { delivered, junk, unheard, held, refused, clean_withheld, unsent, .. } = self.verdict;
        let Verdict { lost, doubled, altered, stray, infected, unmarked, .. } = self.verdict;
        let mut text = format!(
            "\nproof, by recipient\n  \
             delivered {delivered} (Junk {junk}, not heard by the sender {unheard}), held {held}, \
             refused {refused} (held and refused of what is clean {clean_withheld}), unsent {unsent}\n  \
             lost {lost}, doubled {doubled}, altered {altered}, stray {stray}, infected {infected}: {}\n",
            if self.is_good() { "good" } else { "BROKEN" }
        );
        if unmarked > 0 {
            let _ = writeln!(text, "  {unmarked} messages without a mark: mail of others, or damaged copies of this");
        }
        if [delivered, held, refused] == [0; 3] {
            text.push_str("  nothing was taken or refused: nothing is proved\n");
        }
        for example in self.verdict.examples.iter().chain(self.unread.iter().take(REPLIES)) {
            let _ = writeln!(text, "  {example}");
        }
        text
    }
}

/// For machines.
pub(crate) fn json(run: &str, seed: u64, books: &Books, measured: &Measured, proof: Option<&Proof>) -> Value {
    let (contents, copies) = books.size();
    let mut told = measured.to_json();
    told["run"] = json!(run);
    told["seed"] = json!(seed);
    told["contents"] = json!(contents);
    told["copies"] = json!(copies);
    told["replies"] = json!(books.replies);
    told["proof"] = proof.map_or(Value::Null, Proof::to_json);
    told
}

/// For people.
pub(crate) fn text(run: &str, seed: u64, books: &Books, measured: &Measured, proof: Option<&Proof>) -> String {
    let (kept, refused, deferred) = measured.counts();
    let (seconds, megabytes) = (measured.last.as_secs_f64(), measured.bytes as f64 / 1e6);
    let mut text = format!(
        "run {run}, seed {seed}\n\n{:<16}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
        "milliseconds", "p50", "p95", "p99", "p99.9", "longest", "count"
    );
    text.push_str(&row("to the answer", &measured.to_answer));
    text.push_str(&row("to the mailbox", &measured.to_mailbox));
    for (name, slowest) in [("answer", &measured.slow_answers), ("mailbox", &measured.slow_mails)] {
        let lines = slowest.to_text();
        if !lines.is_empty() {
            let _ = write!(text, "\nlongest to the {name}\n{lines}");
        }
    }
    let _ = writeln!(
        text,
        "\n{kept} mails of {} kept in {seconds:.1} s: {:.1} mails/s, {:.1} MB/s, {:.1} KB each; {refused} refused, \
         {} without a final word, {deferred} attempts put off\n",
        measured.begun,
        measured.rate(),
        megabytes / seconds.max(0.001),
        measured.bytes as f64 / 1e3 / kept.max(1) as f64,
        measured.given_up,
    );
    for (name, latency) in
        [("connect", &measured.connect), ("begun late", &measured.late), ("to the 250", &measured.to_250)]
    {
        text.push_str(&row(name, latency));
    }
    if !books.replies.is_empty() {
        text.push_str("\nreplies that were no\n");
        let mut replies: Vec<_> = books.replies.iter().collect();
        replies.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reply, count) in replies.into_iter().take(REPLIES) {
            let _ = writeln!(text, "  {count:>8}  {reply}");
        }
    }
    text.push_str(&proof.map_or("\nnothing was read back\n".to_owned(), Proof::to_text));
    text
}

fn row(name: &str, latency: &Latency) -> String {
    if latency.count() == 0 {
        return String::new();
    }
    let [p50, p95, p99, p999, max] = latency.figures();
    format!("{name:<16}{p50:>10.1}{p95:>10.1}{p99:>10.1}{p999:>10.1}{max:>10.1}{:>10}\n", latency.count())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_mailbox_that_was_not_read_proves_nothing() {
        let good = Proof { verdict: Verdict { delivered: 1, ..Verdict::default() }, unread: Vec::new() };
        assert!(good.is_good() && good.to_text().contains(": good\n"));
        let blind = Proof { unread: vec!["a@x: away".into()], ..good.clone() };
        assert!(!blind.is_good() && blind.to_text().contains("BROKEN\n  a@x: away\n"));
        assert_eq!(blind.to_json()["good"], json!(false));
        let nothing = Proof { verdict: Verdict { unsent: 1, ..Verdict::default() }, unread: Vec::new() };
        assert!(!nothing.is_good() && nothing.to_text().contains("nothing is proved"));
        let lost = Proof { verdict: Verdict { lost: 1, delivered: 1, ..Verdict::default() }, unread: Vec::new() };
        assert!(!lost.is_good());
    }

    #[test]
    fn both_forms_tell_the_same() {
        let (mut books, mut measured) = (Books::default(), Measured::default());
        books.reply("550 no");
        measured.begun = 1;
        measured.kept(Duration::from_millis(500), Duration::from_millis(20), 1000);
        let told = json("r", 7, &books, &measured, None);
        assert_eq!((&told["kept"], &told["seed"], &told["replies"]["550 no"]), (&json!(1), &json!(7), &json!(1)));
        let text = text("r", 7, &books, &measured, None);
        assert!(
            text.contains("1 mails of 1 kept in 0.5 s: 2.0 mails/s") && text.contains("       1  550 no\n"),
            "{text}"
        );
        assert!(text.contains("to the 250") && !text.contains("to the mailbox"), "{text}");
    }
}
