//! SMTP commands: one line in, one command or the reply that says what is wrong with it.

use super::path::Path;
use super::reply::Reply;

/// A command of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// EHLO with the client's name.
    Ehlo(String),
    /// HELO with the client's name.
    Helo(String),
    /// MAIL.
    Mail(Sender),
    /// RCPT.
    Rcpt(Recipient),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP, whatever its argument.
    Noop,
    /// VRFY, whatever its argument: it is never answered in substance.
    Vrfy,
    /// HELP.
    Help,
    /// STARTTLS.
    StartTls,
    /// QUIT.
    Quit,
}

/// MAIL FROM with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The reverse path.
    pub path: Path,
    /// SIZE (RFC 1870), bytes.
    pub size: Option<u64>,
    /// ENVID (RFC 3461), as given; empty if none.
    pub envid: String,
    /// RET (RFC 3461), upper case; empty if none.
    pub ret: String,
}

/// RCPT TO with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The forward path.
    pub path: Path,
    /// ORCPT (RFC 3461), as given; empty if none.
    pub orcpt: String,
    /// NOTIFY (RFC 3461), upper case; empty if none.
    pub notify: String,
}

impl Command {
    /// Reads one line without its line end.
    ///
    /// # Errors
    /// The reply that tells the client what is wrong.
    pub fn parse(line: &[u8]) -> Result<Self, Reply> {
        let line = std::str::from_utf8(line).map_err(|_| Reply::unknown_command())?;
        let line = line.trim_end_matches([' ', '\t']);
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let argument = argument.trim_start();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => Ok(Self::Ehlo(name(argument, "EHLO hostname")?)),
            "HELO" => Ok(Self::Helo(name(argument, "HELO hostname")?)),
            "MAIL" => Ok(Self::Mail(sender(argument)?)),
            "RCPT" => Ok(Self::Rcpt(recipient(argument)?)),
            "DATA" => alone(argument, Self::Data, "DATA"),
            "RSET" => alone(argument, Self::Rset, "RSET"),
            "NOOP" => Ok(Self::Noop),
            "VRFY" if argument.is_empty() => Err(Reply::syntax("VRFY address")),
            "VRFY" => Ok(Self::Vrfy),
            "HELP" => Ok(Self::Help),
            "STARTTLS" => alone(argument, Self::StartTls, "STARTTLS"),
            "QUIT" => alone(argument, Self::Quit, "QUIT"),
            "EXPN" | "AUTH" | "BDAT" | "TURN" | "ETRN" | "SEND" | "SAML" | "SOML" => Err(Reply::not_implemented()),
            _ => Err(Reply::unknown_command()),
        }
    }
}

fn alone(argument: &str, command: Command, syntax: &str) -> Result<Command, Reply> {
    if argument.is_empty() { Ok(command) } else { Err(Reply::syntax(syntax)) }
}

fn name(argument: &str, syntax: &str) -> Result<String, Reply> {
    let good = !argument.is_empty() && argument.len() <= 255 && argument.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(argument.to_owned()) } else { Err(Reply::syntax(syntax)) }
}

/// What follows `FROM:` or `TO:`, in whatever case, with the spaces that some clients put there.
fn behind_keyword<'a>(argument: &'a str, keyword: &str, syntax: &str) -> Result<&'a str, Reply> {
    match argument.get(..keyword.len()) {
        Some(start) if start.eq_ignore_ascii_case(keyword) => Ok(argument[keyword.len()..].trim_start()),
        _ => Err(Reply::syntax(syntax)),
    }
}

fn sender(argument: &str) -> Result<Sender, Reply> {
    let text = behind_keyword(argument, "FROM:", "MAIL FROM:<address>")?;
    let (path, rest) = Path::parse(text).map_err(Reply::bad_address)?;
    if !path.is_null() && path.domain().is_empty() {
        return Err(Reply::bad_address("the domain is missing"));
    }
    let mut sender = Sender { path, size: None, envid: String::new(), ret: String::new() };
    for (key, value) in parameters(rest) {
        match (key.to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(value)) => {
                sender.size = Some(value.parse().map_err(|_| Reply::syntax("SIZE=number"))?);
            }
            ("BODY", Some(value)) if is_one_of(value, &["7BIT", "8BITMIME"]) => {}
            ("RET", Some(value)) if is_one_of(value, &["FULL", "HDRS"]) => sender.ret = value.to_ascii_uppercase(),
            ("ENVID", Some(value)) if value.len() <= 100 => value.clone_into(&mut sender.envid),
            _ => return Err(Reply::unknown_parameter(key)),
        }
    }
    Ok(sender)
}

fn recipient(argument: &str) -> Result<Recipient, Reply> {
    let text = behind_keyword(argument, "TO:", "RCPT TO:<address>")?;
    let (path, rest) = Path::parse(text).map_err(Reply::bad_address)?;
    if path.is_null() {
        return Err(Reply::bad_address("a recipient has an address"));
    }
    let mut recipient = Recipient { path, orcpt: String::new(), notify: String::new() };
    for (key, value) in parameters(rest) {
        match (key.to_ascii_uppercase().as_str(), value) {
            ("ORCPT", Some(value)) if value.len() <= 500 => value.clone_into(&mut recipient.orcpt),
            ("NOTIFY", Some(value))
                if value.split(',').all(|one| is_one_of(one, &["NEVER", "SUCCESS", "FAILURE", "DELAY"])) =>
            {
                recipient.notify = value.to_ascii_uppercase();
            }
            _ => return Err(Reply::unknown_parameter(key)),
        }
    }
    Ok(recipient)
}

fn parameters(rest: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    rest.split_ascii_whitespace().map(|parameter| match parameter.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (parameter, None),
    })
}

fn is_one_of(value: &str, words: &[&str]) -> bool {
    words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn refused(line: &str, code: u16) {
        assert_eq!(Command::parse(line.as_bytes()).unwrap_err().code(), code, "{line}");
    }

    #[test]
    fn plain_commands_in_any_case() {
        assert_eq!(Command::parse(b"data"), Ok(Command::Data));
        assert_eq!(Command::parse(b"NoOp whatever"), Ok(Command::Noop));
        assert_eq!(Command::parse(b"QUIT  "), Ok(Command::Quit));
        assert_eq!(Command::parse(b"EHLO [127.0.0.1]"), Ok(Command::Ehlo("[127.0.0.1]".into())));
    }

    #[test]
    fn sender_with_parameters() {
        let Command::Mail(sender) = Command::parse(b"MAIL FROM:<a@b> SIZE=100 BODY=8bitmime RET=hdrs ENVID=x").unwrap()
        else {
            panic!("not MAIL")
        };
        assert_eq!((sender.path.as_str(), sender.size), ("a@b", Some(100)));
        assert_eq!((sender.ret.as_str(), sender.envid.as_str()), ("HDRS", "x"));
        assert!(matches!(Command::parse(b"mail from: <>"), Ok(Command::Mail(sender)) if sender.path.is_null()));
    }

    #[test]
    fn recipient_with_parameters() {
        let line = b"RCPT TO:<a@b> NOTIFY=success,Delay ORCPT=rfc822;a@b";
        let Command::Rcpt(recipient) = Command::parse(line).unwrap() else { panic!("not RCPT") };
        assert_eq!((recipient.notify.as_str(), recipient.orcpt.as_str()), ("SUCCESS,DELAY", "rfc822;a@b"));
        assert!(matches!(Command::parse(b"RCPT TO:<postmaster>"), Ok(Command::Rcpt(_))));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, code) in [
            ("", 500),
            ("FOO", 500),
            ("EHLO", 501),
            ("EHLO a b", 501),
            ("MAIL <a@b>", 501),
            ("MAIL FROM:a@b", 501),
            ("MAIL FROM:<a>", 501),
            ("MAIL FROM:<postmaster>", 501),
            ("MAIL FROM:<a@b> SIZE=x", 501),
            ("MAIL FROM:<a@b> SMTPUTF8", 555),
            ("MAIL FROM:<a@b> BODY=BINARYMIME", 555),
            ("RCPT TO:<>", 501),
            ("RCPT TO:<a@b> X=1", 555),
            ("DATA now", 501),
            ("VRFY", 501),
            ("AUTH PLAIN x", 502),
            ("BDAT 5", 502),
        ] {
            refused(line, code);
        }
        assert_eq!(Command::parse(b"MAIL FROM:<\xff@b>").unwrap_err().code(), 500);
    }
}
