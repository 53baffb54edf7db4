//! Plays a script: prepares the connections, sends the commands, and compares what comes.

use std::collections::BTreeMap;

use super::compare::{Known, Variables, expand, fits};
use super::item::{self, Item};
use super::script::{Mail, Script, State, Step, Wanted};
use super::{Outcome, Session};

/// Where a script is played: an account with nothing in it but what it has from the start.
pub struct Place<'a> {
    pub port: u16,
    pub user: &'a str,
    pub password: &'a str,
}

/// The mailbox of the scripts.
const MAILBOX: &str = "imaptest";

struct Game<'a> {
    script: &'a Script,
    sessions: Vec<Session>,
    variables: Variables,
    /// How many mails of the mailbox file were used.
    mails: usize,
}

/// Plays a script to its end, or to the first step that fails.
pub fn play(script: &Script, place: &Place<'_>) -> Outcome {
    match prepare(script, place) {
        Err(why) => Outcome::Failed(why),
        Ok(Err(missing)) => Outcome::Skipped(missing),
        Ok(Ok(mut game)) => {
            for step in &script.steps {
                if let Err(why) = game.step(step) {
                    return Outcome::Failed(why);
                }
            }
            Outcome::Passed
        }
    }
}

/// The connections in the state that the script wants; or the capabilities that are missing.
fn prepare<'a>(script: &'a Script, place: &Place<'_>) -> Result<Result<Game<'a>, Vec<String>>, String> {
    let mut sessions = Vec::new();
    for _ in 0..script.connections {
        sessions.push(Session::connect(place.port).map_err(|error| error.to_string())?);
    }
    let login = format!("login {} {}", place.user, place.password);
    // What a server can do it may say only to those whom it knows.
    let mut asked = Session::connect(place.port).map_err(|error| error.to_string())?;
    asked.must(login.as_bytes())?;
    let offered = asked
        .must(b"capability")?
        .iter()
        .map(|reply| String::from_utf8_lossy(reply).to_uppercase())
        .collect::<String>();
    let has = |name: &String| offered.split_whitespace().any(|word| word == name);
    let missing: Vec<String> = script.capabilities.iter().filter(|name| !has(name)).cloned().collect();
    if !missing.is_empty() {
        return Ok(Err(missing));
    }
    let (name, domain) = place.user.split_once('@').unwrap_or((place.user, ""));
    let variables = [
        ("mailbox", MAILBOX),
        ("mailbox_url", MAILBOX),
        ("user", place.user),
        ("username", name),
        ("domain", domain),
        ("password", place.password),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into();
    let mut game = Game { script, sessions, variables, mails: 0 };
    if script.state >= State::Auth {
        for session in &mut game.sessions {
            session.must(login.as_bytes())?;
        }
    }
    if script.state >= State::Created {
        game.sessions[0].must(format!("create {MAILBOX}").as_bytes())?;
    }
    if script.state >= State::Appended {
        for _ in 0..script.messages.unwrap_or(script.mails.len()) {
            let mail = game.next_mail();
            game.sessions[0].must(&append(MAILBOX.as_bytes(), mail))?;
        }
    }
    if script.state >= State::Selected {
        for session in &mut game.sessions {
            session.must(format!("select {MAILBOX}").as_bytes())?;
        }
    }
    Ok(Ok(game))
}

fn append(arguments: &[u8], mail: &Mail) -> Vec<u8> {
    let rest = format!(" \"{}\" {{{}}}\r\n", mail.date, mail.text.len());
    [b"append ", arguments, rest.as_bytes(), &mail.text].concat()
}

impl<'a> Game<'a> {
    fn next_mail(&mut self) -> &'a Mail {
        self.mails += 1;
        &self.script.mails[(self.mails - 1) % self.script.mails.len()]
    }

    /// A command as it is sent. One that appends nothing appends the next mail of the mailbox file.
    fn text(&mut self, command: &[u8]) -> Result<Vec<u8>, String> {
        let command = with_values(command, &self.variables)?;
        let lower = command.to_ascii_lowercase();
        let is_own = command.contains(&b'\r') || lower.windows(10).any(|part| part == b" catenate ");
        if lower == b"append" {
            Ok(append(MAILBOX.as_bytes(), self.next_mail()))
        } else if lower.starts_with(b"append ") && !is_own {
            Ok(append(&command[7..], self.next_mail()))
        } else {
            Ok(command)
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let told = |text: &[u8]| format!("{}: {}", step.connection + 1, String::from_utf8_lossy(text));
        let at_first = self.sessions[step.connection].messages().to_vec();
        let mut tags = BTreeMap::new();
        let mut log = String::new();
        for command in &step.commands {
            let text = self.text(&command.text)?;
            log += &format!("C{}\n", told(&text));
            let tag = self.sessions[step.connection].send(&text).map_err(|error| format!("{log}{error}"))?;
            tags.insert(tag, command);
        }
        if let [tag] = tags.keys().collect::<Vec<_>>()[..] {
            self.variables.insert("tag".to_owned(), tag.as_bytes().to_vec());
        }
        let mut open: Vec<bool> = step.replies.iter().map(|(wanted, _)| *wanted == Wanted::Must).collect();
        while !tags.is_empty() {
            let before = self.sessions[step.connection].messages().to_vec();
            let reply = self.sessions[step.connection].reply().map_err(|error| format!("{log}{error}"))?;
            log += &format!("S{}\n", told(&reply));
            let numbers: Vec<usize> = at_first
                .iter()
                .map(|name| before.iter().position(|other| other == name).map_or(0, |at| at + 1))
                .collect();
            if let Some(reply) = reply.strip_prefix(b"* ") {
                self.untagged(step, &item::parse(reply), &numbers, &mut open).map_err(|why| format!("{log}{why}"))?;
                continue;
            }
            let end = reply.iter().position(|&octet| octet == b' ').unwrap_or(reply.len());
            let tag = String::from_utf8_lossy(&reply[..end]).into_owned();
            let command = tags.remove(&tag).ok_or_else(|| format!("{log}nothing has this tag"))?;
            let got = item::parse(&reply[end..]);
            let status = Item::Text(command.end.status.clone().unwrap_or_default().into_bytes());
            let want: Vec<Item> = [status].into_iter().chain(command.end.code.iter().cloned()).collect();
            let mut known = Known { variables: std::mem::take(&mut self.variables), numbers: &numbers };
            let fits = command.end.status.is_none() || fits(&want, &got, &mut known);
            self.variables = known.variables;
            if !fits {
                return Err(format!("{log}wanted: {}", item::line(&want)));
            }
        }
        let missing = step.replies.iter().zip(open).find(|(_, open)| *open);
        missing.map_or(Ok(()), |((_, want), _)| Err(format!("{log}wanted: {}", item::line(want))))
    }

    /// One reply may be several that are wanted: the flags that came with a text.
    fn untagged(&mut self, step: &Step, got: &[Item], numbers: &[usize], open: &mut [bool]) -> Result<(), String> {
        let mut known = Known { variables: std::mem::take(&mut self.variables), numbers };
        let mut result = Ok(());
        let mut is_known = false;
        for ((wanted, want), open) in step.replies.iter().zip(open) {
            if *wanted == Wanted::Must && !*open {
                continue;
            }
            if fits(want, got, &mut known) {
                is_known = true;
                *open = false;
                if *wanted == Wanted::MustNot {
                    result = Err(format!("not wanted: {}", item::line(want)));
                }
            }
        }
        self.variables = known.variables;
        if self.script.is_strict && !is_known {
            return Err(format!("nobody expects this: {}", item::line(got)));
        }
        result
    }
}

/// A command with its values put in. What stands in literals is sent as it is.
fn with_values(command: &[u8], variables: &Variables) -> Result<Vec<u8>, String> {
    let (head, rest) = match command.windows(3).position(|part| part == b"}\r\n") {
        Some(at) => command.split_at(at + 3),
        None => (command, &[][..]),
    };
    let mut out = expand(head, variables, None).map_err(|name| format!("${name} has no value"))?;
    let open = head.iter().rposition(|&octet| octet == b'{');
    let count = open.and_then(|open| std::str::from_utf8(&head[open + 1..head.len() - 3]).ok()?.parse::<usize>().ok());
    if let Some(count) = count.filter(|_| !rest.is_empty()) {
        out.extend(&rest[..count]);
        out.extend(with_values(&rest[count..], variables)?);
    }
    Ok(out)
}
