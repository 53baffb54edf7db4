//! SMTP commands: one line in, one command or the reply that says what is wrong with it.

use super::path::Path;
use super::reply::Reply;

/// Bytes of ENVID: RFC 3461 section 4.4.
const ENVID_MOST: usize = 100;

/// Bytes of ORCPT: RFC 3461 section 4.2.
const ORCPT_MOST: usize = 500;

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
    /// A request of HTTP: a browser was tricked into speaking to us, and its body may hold commands.
    OtherProtocol,
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
            "GET" | "POST" | "PUT" | "HEAD" | "OPTIONS" | "CONNECT" => Ok(Self::OtherProtocol),
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
    let (path, rest) = Path::parse(text).map_err(Reply::bad_sender)?;
    if !path.is_null() && path.domain().is_empty() {
        return Err(Reply::bad_sender("the domain is missing"));
    }
    let mut sender = Sender { path, size: None, envid: String::new(), ret: String::new() };
    for (key, value) in parameters(rest)? {
        match (key.as_str(), value) {
            ("SIZE", value) => sender.size = Some(size(value)?),
            ("BODY", value) if is_one_of(value, &["7BIT", "8BITMIME"]) => {}
            ("RET", value) if is_one_of(value, &["FULL", "HDRS"]) => sender.ret = value.to_ascii_uppercase(),
            ("ENVID", value) if value.len() <= ENVID_MOST && is_xtext(value) => value.clone_into(&mut sender.envid),
            ("RET" | "ENVID", _) => return Err(Reply::bad_parameter(&key)),
            ("BODY", value) => return Err(Reply::unknown_parameter(&format!("BODY={value}"))),
            _ => return Err(Reply::unknown_parameter(&key)),
        }
    }
    Ok(sender)
}

fn recipient(argument: &str) -> Result<Recipient, Reply> {
    let text = behind_keyword(argument, "TO:", "RCPT TO:<address>")?;
    let (path, rest) = Path::parse(text).map_err(Reply::bad_recipient)?;
    if path.is_null() {
        return Err(Reply::bad_recipient("a recipient has an address"));
    }
    let mut recipient = Recipient { path, orcpt: String::new(), notify: String::new() };
    for (key, value) in parameters(rest)? {
        match key.as_str() {
            "ORCPT" if value.len() <= ORCPT_MOST && is_orcpt(value) => value.clone_into(&mut recipient.orcpt),
            "NOTIFY" if is_notify(value) => recipient.notify = value.to_ascii_uppercase(),
            "ORCPT" | "NOTIFY" => return Err(Reply::bad_parameter(&key)),
            _ => return Err(Reply::unknown_parameter(&key)),
        }
    }
    Ok(recipient)
}

/// The parameters behind a path, their names in upper case; the value is empty if there is none.
fn parameters(rest: &str) -> Result<Vec<(String, &str)>, Reply> {
    let mut found: Vec<(String, &str)> = Vec::new();
    for parameter in rest.split_ascii_whitespace() {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let key = key.to_ascii_uppercase();
        // There are four different ones at most, so this comparison of each with each ends soon.
        if found.iter().any(|(other, _)| *other == key) {
            return Err(Reply::bad_parameter(&key));
        }
        found.push((key, value));
    }
    Ok(found)
}

/// RFC 1870 section 4: up to 20 digits. What does not fit into 64 bits is too large in any case.
fn size(value: &str) -> Result<u64, Reply> {
    if value.is_empty() || value.len() > 20 || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Reply::bad_parameter("SIZE"));
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

/// RFC 3461 section 4: printable ASCII, in which `+` begins two hexadecimal digits and `=` does not occur.
fn is_xtext(value: &str) -> bool {
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        let is_hex = |byte: Option<u8>| byte.is_some_and(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
        match byte {
            b'+' if is_hex(bytes.next()) && is_hex(bytes.next()) => {}
            b'+' | b'=' => return false,
            _ if byte.is_ascii_graphic() => {}
            _ => return false,
        }
    }
    !value.is_empty()
}

/// RFC 3461 section 4.2: the type of the address, `;`, and the address.
fn is_orcpt(value: &str) -> bool {
    value.split_once(';').is_some_and(|(kind, address)| {
        !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && is_xtext(address)
    })
}

/// RFC 3461 section 4.1: NEVER stands alone.
fn is_notify(value: &str) -> bool {
    value.eq_ignore_ascii_case("NEVER") || value.split(',').all(|one| is_one_of(one, &["SUCCESS", "FAILURE", "DELAY"]))
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
    fn a_size_beyond_64_bits_is_a_size() {
        let line = b"MAIL FROM:<> SIZE=99999999999999999999";
        assert!(matches!(Command::parse(line), Ok(Command::Mail(sender)) if sender.size == Some(u64::MAX)));
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
            ("MAIL FROM:<a@b> SIZE=+1", 501),
            ("MAIL FROM:<a@b> SIZE=1 size=1", 501),
            ("MAIL FROM:<a@b> RET=x", 501),
            ("MAIL FROM:<a@b> ENVID=a+b", 501),
            ("MAIL FROM:<a@b> ENVID=a=b", 501),
            ("RCPT TO:<a@b> ORCPT=a@b", 501),
            ("RCPT TO:<a@b> NOTIFY=NEVER,DELAY", 501),
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
        assert_eq!(Command::parse(b"GET / HTTP/1.1"), Ok(Command::OtherProtocol));
        assert_eq!(Command::parse(b"MAIL FROM:<\xff@b>").unwrap_err().code(), 500);
    }
}
