//! A script of imaptest: its header, its mailbox, and its steps.
//!
//! A script that cannot be read is a mistake of the reader's or the script's, and ends the test: nothing is guessed.

use std::collections::BTreeMap;

use super::item::{self, Item};

/// How far a connection is brought before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    NonAuth,
    Auth,
    Created,
    Appended,
    Selected,
}

/// How often a reply is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Must,
    May,
    MustNot,
}

/// The end of a command: the status, or none if any will do, and the code behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub status: Option<String>,
    pub code: Vec<Item>,
}

/// A command, with literals as `{n}` and their octets, and the end that is wanted.
#[derive(Clone, Debug)]
pub struct Command {
    pub text: Vec<u8>,
    pub end: End,
    /// The script's name for it, where several are under way.
    tag: Option<String>,
}

/// Commands that are sent together on one connection, and the replies to all of them.
#[derive(Clone, Debug, Default)]
pub struct Step {
    pub connection: usize,
    pub commands: Vec<Command>,
    pub replies: Vec<(Wanted, Vec<Item>)>,
}

/// A group of the set.
#[derive(Clone, Debug)]
pub struct Script {
    pub capabilities: Vec<String>,
    pub connections: usize,
    pub state: State,
    /// How many mails are in the mailbox; none: as many as there are.
    pub messages: Option<usize>,
    /// Whether every untagged reply must be named.
    pub is_strict: bool,
    pub steps: Vec<Step>,
    pub mails: Vec<Mail>,
}

/// A mail of the mailbox.
#[derive(Clone, Debug)]
pub struct Mail {
    /// As IMAP writes it.
    pub date: String,
    pub text: Vec<u8>,
}

impl Script {
    pub fn read(text: &[u8], mbox: &[u8]) -> Self {
        let lines = lines(text);
        let end = lines.iter().position(Vec::is_empty).unwrap_or(lines.len());
        let header: BTreeMap<String, String> = lines[..end]
            .iter()
            .filter(|line| !line.starts_with(b"#"))
            .map(|line| {
                let line = String::from_utf8(line.clone()).unwrap();
                let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line}"));
                (key.trim().to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        let state = match header.get("state").map_or("selected", String::as_str) {
            "nonauth" => State::NonAuth,
            "auth" => State::Auth,
            "created" => State::Created,
            "appended" => State::Appended,
            "selected" => State::Selected,
            other => panic!("no state: {other}"),
        };
        let connections = header.get("connections").map_or(1, |count| count.parse().unwrap());
        let messages = header.get("messages").filter(|count| *count != "all").map(|count| count.parse().unwrap());
        let mut reader = Reader { connections, ..Reader::default() };
        for line in lines.get(end..).unwrap_or_default().iter().filter(|line| !line.is_empty() && line[0] != b'#') {
            reader.line(line);
        }
        Self {
            capabilities: header
                .get("capabilities")
                .map(|list| list.split_whitespace().map(str::to_ascii_uppercase).collect())
                .unwrap_or_default(),
            connections,
            state,
            messages,
            is_strict: header.get("ignore_extra_untagged").is_some_and(|value| value == "no"),
            steps: reader.done(),
            mails: mails(mbox),
        }
    }
}

/// The lines of a script. A line that opens a text with `{{{` goes on to the end of the line behind `}}}`, and holds
/// the text as a literal. With `~{{{` the octets are those of the script; else its line ends become those of IMAP.
fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut whole: Vec<u8> = Vec::new();
    let mut literal: Option<(Vec<u8>, bool)> = None;
    for line in text.split(|&octet| octet == b'\n') {
        let mut rest = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some((octets, is_raw)) = &mut literal {
            let Some(behind) = rest.strip_prefix(b"}}}") else {
                octets.extend(if *is_raw { line } else { rest });
                octets.extend(if *is_raw { &b"\n"[..] } else { b"\r\n" });
                continue;
            };
            // The line end before the closing line belongs to the script.
            octets.truncate(octets.len().saturating_sub(if *is_raw { 1 } else { 2 }));
            whole.extend(format!("{{{}}}\r\n", octets.len()).bytes());
            whole.append(octets);
            literal = None;
            rest = behind;
        }
        if let Some(open) = rest.strip_suffix(b"{{{") {
            whole.extend(open);
            literal = Some((Vec::new(), open.ends_with(b"~")));
        } else {
            let spaces = rest.iter().rev().take_while(|octet| **octet == b' ').count();
            whole.extend(&rest[..rest.len() - spaces]);
            lines.push(std::mem::take(&mut whole));
        }
    }
    lines
}

/// The words with which a command may end. The empty string stands for any.
fn status(word: &[u8]) -> Option<Option<String>> {
    match word.to_ascii_lowercase().as_slice() {
        b"ok" => Some(Some("OK".to_owned())),
        b"no" => Some(Some("NO".to_owned())),
        b"bad" => Some(Some("BAD".to_owned())),
        b"\"\"" => Some(None),
        _ => None,
    }
}

/// The first word of a line, and the rest.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|&octet| octet == b' ').unwrap_or(line.len());
    (&line[..end], line.get(end + 1..).unwrap_or_default())
}

#[derive(Default)]
struct Reader {
    connections: usize,
    steps: Vec<Step>,
    /// Commands of the last step whose end comes behind the replies.
    open: usize,
}

impl Reader {
    fn line(&mut self, line: &[u8]) {
        let (first, rest) = word(line);
        let wanted = match first {
            b"*" => Wanted::Must,
            b"?" => Wanted::May,
            b"!" => Wanted::MustNot,
            _ => return self.command(line),
        };
        self.steps.last_mut().expect("a reply belongs to a command").replies.push((wanted, item::parse(rest)));
    }

    fn command(&mut self, line: &[u8]) {
        let (first, rest) = word(line);
        let number = std::str::from_utf8(first).ok().and_then(|word| word.parse::<usize>().ok());
        let (connection, line) = number.map_or((0, line), |number| (number - 1, rest));
        assert!(connection < self.connections, "no such connection: {}", String::from_utf8_lossy(line));
        let (first, rest) = word(line);
        if first.starts_with(b"tag") {
            let tag = String::from_utf8(first.to_vec()).unwrap();
            let (first, code) = word(rest);
            return match status(first) {
                Some(status) => self.ends(Some(&tag), status, code),
                None => self.begins(connection, rest, None, Some(tag)),
            };
        }
        match status(first) {
            Some(status) if self.open > 0 => self.ends(None, status, rest),
            Some(status) => self.begins(connection, rest, Some(status), None),
            None => self.begins(connection, line, None, None),
        }
    }

    fn begins(&mut self, connection: usize, text: &[u8], status: Option<Option<String>>, tag: Option<String>) {
        assert!(self.open == 0 || tag.is_some(), "the last command has no end: {}", String::from_utf8_lossy(text));
        if self.open == 0 {
            self.steps.push(Step { connection, ..Step::default() });
        }
        self.open += usize::from(status.is_none());
        let end = End { status: status.flatten(), code: Vec::new() };
        let step = self.steps.last_mut().expect("one was just begun");
        step.commands.push(Command { text: text.to_vec(), end, tag });
    }

    fn ends(&mut self, tag: Option<&str>, status: Option<String>, code: &[u8]) {
        let step = self.steps.last_mut().expect("an end belongs to a command");
        let mut commands = step.commands.iter_mut();
        let command = commands.find(|command| command.tag.as_deref() == tag).expect("an end belongs to a command");
        let code = [b"ok ", code].concat();
        command.end = End { status, code: item::parse(&code).split_off(1) };
        self.open -= 1;
    }

    fn done(self) -> Vec<Step> {
        assert_eq!(self.open, 0, "a command has no end");
        self.steps
    }
}

/// The mails of an mbox file, with line ends as IMAP has them. The empty line behind each is part of it.
fn mails(mbox: &[u8]) -> Vec<Mail> {
    let mut mails: Vec<Mail> = Vec::new();
    for line in mbox.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b"From ") {
            mails.push(Mail { date: date(&String::from_utf8_lossy(line)), text: Vec::new() });
        } else {
            let text = &mut mails.last_mut().expect("an mbox begins with From").text;
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            text.extend(line.strip_suffix(b"\r").unwrap_or(line));
            text.extend(b"\r\n");
        }
    }
    mails
}

/// `From user@domain  Fri Feb 22 17:06:23 2008 +0200`, as IMAP writes dates. Without a zone it is UTC.
fn date(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let zone = words.get(7).unwrap_or(&"+0000");
    format!("{:>2}-{}-{} {} {zone}", words[4], words[3], words[6], words[5])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read() {
        let text =
            b"connections: 2\nstate: created\n\n# a comment\n1 ok append {{{\na\n\n}}} x \n* 1 fetch (x)\n! 2 y\n\n\
            2 noop\n? 3 exists\n2 no [trycreate]\n1 tag1 a\n1 tag2 b\n* z\n1 tag2 ok\n1 tag1 bad\n";
        let script = Script::read(
            text,
            b"From u@d  Fri Feb 22 17:06:23 2008\nA: b\n\nc\n\nFrom u@d  Fri Feb  2 01:00:00 2008 +0200\nx",
        );
        assert_eq!((script.connections, script.state, script.messages), (2, State::Created, None));
        let [first, second, third] = script.steps.as_slice() else { panic!("{:?}", script.steps) };
        assert_eq!(first.commands[0].text, b"append {3}\r\na\r\n x");
        assert_eq!(first.replies.len(), 2);
        assert_eq!((second.connection, second.replies[0].0), (1, Wanted::May));
        assert_eq!(second.commands[0].end.status.as_deref(), Some("NO"));
        assert_eq!(item::line(&second.commands[0].end.code), "(trycreate)");
        let ends: Vec<_> = third.commands.iter().map(|command| command.end.status.as_deref()).collect();
        assert_eq!(ends, [Some("BAD"), Some("OK")]);
        let mails: Vec<_> = script.mails.iter().map(|mail| (&*mail.date, &*mail.text)).collect();
        let want: [(&str, &[u8]); 2] =
            [("22-Feb-2008 17:06:23 +0000", b"A: b\r\n\r\nc\r\n\r\n"), (" 2-Feb-2008 01:00:00 +0200", b"x\r\n")];
        assert_eq!(mails, want);
    }
}
