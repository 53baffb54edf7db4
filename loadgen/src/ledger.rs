//! The ledger: what is sent, on disk before it is, and what was answered, on disk as soon as it is known.
//!
//! So a generator that is killed leaves all that was promised to it, but for a reply that it had just read. Whoever
//! cannot write ends the run: what is not in the ledger cannot be proved.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;

use crate::books::Books;
use crate::mark::Span;

/// How a ledger begins.
const FIRST: &str = "loadgen ledger";
/// Its last line, when the run came to its end.
const LAST: &str = "end";

/// A ledger that is written; or none.
#[derive(Debug)]
pub(crate) struct Ledger(Option<(PathBuf, Mutex<Result<File, std::io::Error>>)>);

impl Ledger {
    /// Begins a ledger, if there is to be one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn begin(path: Option<&Path>, span: Span, people: &[String]) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let mut text = format!("{FIRST}\t{}\n", name(span));
        people.iter().for_each(|person| text.extend(["person\t", person, "\n"]));
        let begin = || {
            let mut file = File::create(path)?;
            file.write_all(text.as_bytes()).map(|()| file)
        };
        let file = begin().with_context(|| format!("writing {}", path.display()))?;
        Ok(Self(Some((path.to_owned(), Mutex::new(Ok(file))))))
    }

    /// Writes lines. Whether they stand there.
    pub(crate) fn note(&self, lines: &str) -> bool {
        let Some((_, file)) = &self.0 else { return true };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // In one piece, which a process that is killed has written or has not.
        if let Ok(open) = &mut *file
            && let Err(error) = open.write_all(lines.as_bytes())
        {
            *file = Err(error);
        }
        file.is_ok()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When something could not be written.
    pub(crate) fn end(&self) -> anyhow::Result<()> {
        self.note(&format!("{LAST}\n"));
        let Some((path, file)) = &self.0 else { return Ok(()) };
        let file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.as_ref().map(drop).map_err(|error| anyhow::anyhow!("writing {}: {error}", path.display()))
    }
}

/// What an earlier run has written.
#[derive(Debug)]
pub(crate) struct Earlier {
    /// Its books.
    pub(crate) books: Books,
    /// What its digests are of.
    pub(crate) span: Span,
    /// Whether it came to its end.
    pub(crate) is_whole: bool,
}

/// Reads a ledger.
///
/// # Errors
/// When it is none.
pub(crate) fn read(text: &str) -> anyhow::Result<Earlier> {
    // A last line without its end was being written when the generator was killed.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.lines();
    let first = lines.next().and_then(|line| line.split_once('\t')).filter(|(first, _)| *first == FIRST);
    let span = first.and_then(|(_, span)| Span::from_str(span, false).ok()).context("this is no ledger")?;
    let (mut books, mut is_whole) = (Books::default(), false);
    for line in lines {
        match line.split_once('\t') {
            _ if is_whole => bail!("there is more behind the end: {line}"),
            None if line == LAST => is_whole = true,
            Some(("person", person)) => books.person(person),
            _ => books.read(line).with_context(|| format!("a line is none: {line}"))?,
        }
    }
    Ok(Earlier { books, span, is_whole })
}

fn name(span: Span) -> String {
    span.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::*;
    use crate::books::Fate;
    use crate::mix::Kind;

    /// A ledger with a mail that was kept and one that was being sent.
    fn written(folder: &Path) -> String {
        let path = folder.join("ledger");
        let ledger = Ledger::begin(Some(&path), Span::Body, &["a@x".to_owned(), "b@x".to_owned()]).unwrap();
        let mut books = Books::default();
        for id in ["r.1", "r.2"] {
            books.begin(id, blake3::hash(id.as_bytes()), Kind::Plain, ["a@x".to_owned()]);
            assert!(ledger.note(&books.line(id, "a@x")));
        }
        books.end("r.1", "a@x", Fate::Kept);
        assert!(ledger.note(&books.line("r.1", "a@x")));
        // Nothing is held back: this is what a generator leaves that is killed here.
        let killed = std::fs::read_to_string(&path).unwrap();
        ledger.end().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{killed}end\n"));
        killed
    }

    #[test]
    fn a_killed_run_can_be_proved() {
        let folder = tempfile::tempdir().unwrap();
        let killed = written(folder.path());
        for (text, is_whole) in
            [(killed.clone(), false), (format!("{killed}r.3\ttor"), false), (format!("{killed}end\n"), true)]
        {
            let earlier = read(&text).unwrap();
            assert_eq!((earlier.books.size(), earlier.span, earlier.is_whole), ((2, 2), Span::Body, is_whole));
            assert_eq!(earlier.books.missing(&HashSet::new()), [("a@x".to_owned(), 1)].into());
            assert_eq!(Vec::from_iter(earlier.books.people()), ["a@x", "b@x"]);
        }
    }

    #[test]
    fn what_is_no_ledger() {
        let killed = written(tempfile::tempdir().unwrap().path());
        for bad in
            ["", "\n", "loadgen ledger\tnone\n", "r.1\t\n", &format!("{killed}x\n"), &format!("{killed}end\nend\n")]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_full_disk_is_told() {
        let ledger = Ledger::begin(Some(Path::new("/dev/full")), Span::Whole, &[]);
        assert!(ledger.is_err());
        let full = Mutex::new(Ok(File::options().write(true).open("/dev/full").unwrap()));
        let ledger = Ledger(Some(("full".into(), full)));
        assert!(!ledger.note("a line\n") && ledger.end().is_err());
    }
}
