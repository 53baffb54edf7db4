//! POP3 commands: one line in, one command or what is wrong with it.

use crate::secret::Secret;

/// A command of the client. Message numbers count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    User(String),
    Pass(Secret<String>),
    AuthPlain(Option<Secret<String>>),
    /// AUTH without a mechanism: the client asks which there are (RFC 5034 section 6 via RFC 1734 practice).
    AuthList,
    Stls,
    Capa,
    Stat,
    List(Option<usize>),
    Uidl(Option<usize>),
    Retr(usize),
    Top(usize, usize),
    Dele(usize),
    Rset,
    Noop,
    Quit,
}

impl Command {
    /// Reads one line without its line end.
    pub(super) fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let line = std::str::from_utf8(line).map_err(|_| "not a command")?;
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = argument.split_ascii_whitespace().collect();
        match (verb.to_ascii_uppercase().as_str(), words.as_slice()) {
            ("USER", [name]) => Ok(Self::User((*name).to_owned())),
            // A password may hold spaces: all of the line behind the first one is it.
            ("PASS", _) if !argument.is_empty() => Ok(Self::Pass(Secret::new(argument.to_owned()))),
            ("AUTH", []) => Ok(Self::AuthList),
            ("AUTH", [mechanism]) if mechanism.eq_ignore_ascii_case("PLAIN") => Ok(Self::AuthPlain(None)),
            ("AUTH", [mechanism, initial]) if mechanism.eq_ignore_ascii_case("PLAIN") => {
                Ok(Self::AuthPlain(Some(Secret::new((*initial).to_owned()))))
            }
            ("AUTH", _) => Err("only AUTH PLAIN is known"),
            ("STLS", []) => Ok(Self::Stls),
            ("CAPA", []) => Ok(Self::Capa),
            ("STAT", []) => Ok(Self::Stat),
            ("LIST", []) => Ok(Self::List(None)),
            ("LIST", [number]) => Ok(Self::List(Some(count(number)?))),
            ("UIDL", []) => Ok(Self::Uidl(None)),
            ("UIDL", [number]) => Ok(Self::Uidl(Some(count(number)?))),
            ("RETR", [number]) => Ok(Self::Retr(count(number)?)),
            ("TOP", [number, lines]) => Ok(Self::Top(count(number)?, count(lines)?)),
            ("DELE", [number]) => Ok(Self::Dele(count(number)?)),
            ("RSET", []) => Ok(Self::Rset),
            ("NOOP", []) => Ok(Self::Noop),
            ("QUIT", []) => Ok(Self::Quit),
            ("USER" | "PASS" | "RETR" | "TOP" | "DELE" | "LIST" | "UIDL", _) => Err("wrong arguments"),
            ("STLS" | "CAPA" | "STAT" | "RSET" | "NOOP" | "QUIT", _) => Err("this command has no arguments"),
            _ => Err("command not known"),
        }
    }
}

fn count(text: &str) -> Result<usize, &'static str> {
    text.parse().map_err(|_| "a number was expected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        for (line, want) in [
            ("user alice", Ok(Command::User("alice".into()))),
            ("PASS a b ", Ok(Command::Pass(Secret::new("a b ".into())))),
            ("AUTH plain", Ok(Command::AuthPlain(None))),
            ("TOP 1 0", Ok(Command::Top(1, 0))),
            ("LIST", Ok(Command::List(None))),
            ("UIDL 3", Ok(Command::Uidl(Some(3)))),
            ("RETR x", Err("a number was expected")),
            ("RETR", Err("wrong arguments")),
            ("AUTH LOGIN", Err("only AUTH PLAIN is known")),
            ("QUIT now", Err("this command has no arguments")),
            ("", Err("command not known")),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), want, "{line}");
        }
    }
}
