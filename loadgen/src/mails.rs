//! What is sent: the mails of a folder, or drawn ones, or both; each with its mark. The same each time it is asked for.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;

use crate::mark::{Span, mark};
use crate::mix::{Composer, Kind, Mix};

/// A mail that can be sent.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    /// Who it is.
    pub(crate) id: String,
    /// The digest in its mark.
    pub(crate) digest: blake3::Hash,
    /// What it is.
    pub(crate) kind: Kind,
    /// Its reverse path.
    pub(crate) from: String,
    /// Its recipients, by number.
    pub(crate) to: Vec<u32>,
    /// Whether it comes from a listed address.
    pub(crate) listed: bool,
    /// Whether its bytes trickle.
    pub(crate) slow: bool,
    /// As it goes over the wire behind DATA.
    pub(crate) stuffed: Bytes,
}

/// Where mails come from.
pub(crate) struct Mails {
    /// The name of this run, which every mark bears.
    pub(crate) run: String,
    /// What digests are of.
    pub(crate) span: Span,
    /// Draws recipients and kinds.
    pub(crate) mix: Mix,
    /// Composes.
    pub(crate) composer: Composer,
    /// Files that are sent instead of composed mails.
    pub(crate) files: Vec<PathBuf>,
    /// Share of composed mails where there are files.
    pub(crate) generated: f64,
}

impl Mails {
    /// Mail number `number`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn mail(&self, number: u64) -> anyhow::Result<Mail> {
        let draft = self.mix.draft(number);
        let id = format!("{}.{}", self.run, draft.content);
        let (from, kind, rest) = match self.file(draft.content) {
            Some(path) => {
                let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
                ("sender@elsewhere.example".to_owned(), Kind::Plain, with_crlf(&text))
            }
            None => {
                let (from, mail) = self.composer.compose(&draft, &id);
                (from, draft.kind, mail)
            }
        };
        let (mail, digest) = mark(self.span, &id, &rest);
        let stuffed = wire::smtp::client::stuff(&mail);
        Ok(Mail { id, digest, kind, from, to: draft.to, listed: draft.listed, slow: draft.slow, stuffed })
    }

    /// The file that is mail number `content`, if it is one: composed mails are spread evenly among them.
    fn file(&self, content: u64) -> Option<&Path> {
        if self.files.is_empty() {
            return None;
        }
        let before = |number: u64| (number as f64 * self.generated).floor();
        if before(content + 1) > before(content) {
            return None;
        }
        let index = content - before(content) as u64;
        Some(&self.files[index as usize % self.files.len()])
    }
}

/// The mails that a path names: those of a folder and the folders in it, in the order of their names; or a file with
/// one path a line.
///
/// # Errors
/// When it cannot be read, or names none.
pub(crate) fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if path.is_dir() {
        walk(path, &mut found)?;
        found.sort();
    } else {
        let list = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let names = list.lines().filter_map(|line| line.split('\t').next()).filter(|name| !name.is_empty());
        found.extend(names.map(PathBuf::from));
    }
    if found.is_empty() {
        bail!("{} names no mails", path.display());
    }
    Ok(found)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

/// Header fields that a chain cuts out when they come from outside, because it writes them itself. A mail of an archive
/// has those of its own chain: they are sent under another name, so that nothing of it may change.
const CUT: [&str; 2] = ["x-chainmail-", "authentication-results:"];

/// As a mail travels: every line with CR LF, and none longer than may be (RFC 5321 section 4.5.3.1.6). A file of an
/// archive has neither.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut mail = Vec::with_capacity(text.len() + text.len() / 30 + 2);
    let mut is_header = true;
    for line in text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n') {
        let line: Vec<u8> = line.iter().copied().filter(|byte| *byte != b'\r' && *byte != 0).collect();
        is_header &= !line.is_empty();
        let begins = |name: &&str| line.get(..name.len()).is_some_and(|own| own.eq_ignore_ascii_case(name.as_bytes()));
        if is_header && CUT.iter().any(begins) {
            mail.extend_from_slice(b"X-Sent-");
        }
        let mut parts = line.chunks(990).peekable();
        if parts.peek().is_none() {
            mail.extend_from_slice(b"\r\n");
        }
        parts.for_each(|part| mail.extend_from_slice(&[part, b"\r\n"].concat()));
    }
    mail
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::mix::tests::shares;

    fn mails(files: Vec<PathBuf>, generated: f64) -> Mails {
        let shares = shares(&["--repeat", "0"]);
        let composer = Composer::new(1, &shares, "date".into()).unwrap();
        Mails { run: "r".into(), span: Span::Whole, mix: Mix::new(1, 10, shares), composer, files, generated }
    }

    #[test]
    fn files_and_composed_mails_take_turns() {
        for (generated, want) in [(0.0, "a b a b a b a b"), (0.5, "a - b - a - b -"), (1.0, "- - - - - - - -")] {
            let mails = mails(vec!["a".into(), "b".into()], generated);
            let names = (0..8).map(|n| mails.file(n).map_or("-".into(), |path| path.display().to_string()));
            assert_eq!(names.collect::<Vec<_>>().join(" "), want);
        }
    }

    #[test]
    fn a_mail_is_what_its_mark_says() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        std::fs::write(folder.path().join("b/2"), "Subject: two\n\n.dot\n\nlast").unwrap();
        std::fs::write(folder.path().join("1"), "Subject: one\r\n\r\n\r\n").unwrap();
        let files = files(folder.path()).unwrap();
        assert_eq!(files, [folder.path().join("1"), folder.path().join("b/2")]);
        let mails = mails(files, 0.0);
        for (number, want) in [(0, "Subject: one\r\n\r\n\r\n"), (1, "Subject: two\r\n\r\n..dot\r\n\r\nlast\r\n")] {
            let mail = mails.mail(number).unwrap();
            let text = String::from_utf8(mail.stuffed.to_vec()).unwrap();
            assert_eq!(text.split_once("\r\n").unwrap().1, format!("{want}.\r\n"));
            assert_eq!(mail.digest, blake3::hash(want.replace("..", ".").as_bytes()));
            assert_eq!(mails.mail(number).unwrap().stuffed, mail.stuffed);
        }
        let own = b"x-chainmail-spam: no\nX-Other: a\n\nX-Chainmail-Spam: no\n";
        let sent = b"X-Sent-x-chainmail-spam: no\r\nX-Other: a\r\n\r\nX-Chainmail-Spam: no\r\n";
        assert_eq!(with_crlf(own), sent, "only in the header");
        assert!(with_crlf(&[b'a'; 3000]).split(|byte| *byte == b'\n').all(|line| line.len() < 998));
    }
}
