//! Every reply that an SMTP client can get from us.
//!
//! The class is stored once; the basic code and the enhanced one (RFC 3463) derive from it. Texts tell the sender what
//! it can do, and nothing about our insides.

use std::fmt;

use bytes::Bytes;

use crate::session::Tls;

/// The longest text of a reply: with its codes and line end it stays below the 512 octets of RFC 5321
/// section 4.5.3.1.5.
const TEXT_MOST: usize = 480;

/// Who should do what next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Done = 2,
    GoOn = 3,
    Later = 4,
    Never = 5,
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    class: Class,
    /// The last two digits of the basic code.
    basic: u8,
    /// The last two parts of the enhanced code. None for the greeting, HELO, EHLO and 354 (RFC 2034 section 4).
    enhanced: Option<(u8, u16)>,
    text: String,
}

impl Reply {
    fn new(class: Class, basic: u8, enhanced: (u8, u16), text: impl Into<String>) -> Self {
        Self { class, basic, enhanced: Some(enhanced), text: printable(&text.into()) }
    }

    fn plain(class: Class, basic: u8, text: impl Into<String>) -> Self {
        Self { class, basic, enhanced: None, text: printable(&text.into()) }
    }

    /// The basic code, 200 to 599.
    pub fn code(&self) -> u16 {
        self.class as u16 * 100 + u16::from(self.basic)
    }

    /// Whether the command was done, or may go on.
    pub fn is_positive(&self) -> bool {
        matches!(self.class, Class::Done | Class::GoOn)
    }

    /// Whether trying the same again is of no use.
    pub fn is_permanent(&self) -> bool {
        self.class == Class::Never
    }

    /// The reply as it goes over the wire, with its CRLF.
    pub fn encode(&self) -> Bytes {
        format!("{self}\r\n").into()
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.enhanced {
            Some((subject, detail)) => {
                write!(f, "{} {}.{subject}.{detail} {}", self.code(), self.class as u8, self.text)
            }
            None => write!(f, "{} {}", self.code(), self.text),
        }
    }
}

/// One line of printable ASCII: what mail brought in must not forge lines of our protocol.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(TEXT_MOST).collect()
}

/// 250 to EHLO, with what is offered.
pub(super) fn offers(hostname: &str, size: u64, tls: Tls, dsn: bool) -> Bytes {
    let tls = if tls == Tls::Offered { "250-STARTTLS\r\n" } else { "" };
    let dsn = if dsn { "250-DSN\r\n" } else { "" };
    let text = format!(
        "250-{hostname}\r\n250-PIPELINING\r\n250-SIZE {size}\r\n{tls}{dsn}250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
    );
    text.into()
}

/// The rows.
impl Reply {
    /// 220, the greeting.
    pub fn greeting(hostname: &str) -> Self {
        Self::plain(Class::Done, 20, format!("{hostname} ESMTP Chainmail"))
    }

    /// 220, TLS may begin (RFC 3207).
    pub fn start_tls() -> Self {
        Self::new(Class::Done, 20, (0, 0), "Ready to start TLS")
    }

    /// 221.
    pub fn bye() -> Self {
        Self::new(Class::Done, 21, (0, 0), "Bye")
    }

    /// 250 to HELO.
    pub fn hello(hostname: &str) -> Self {
        Self::plain(Class::Done, 50, hostname)
    }

    /// 250, nothing to say.
    pub fn ok() -> Self {
        Self::new(Class::Done, 50, (0, 0), "Ok")
    }

    /// 250 to MAIL.
    pub fn sender_ok() -> Self {
        Self::new(Class::Done, 50, (1, 0), "Sender ok")
    }

    /// 250 to RCPT.
    pub fn recipient_ok() -> Self {
        Self::new(Class::Done, 50, (1, 5), "Recipient ok")
    }

    /// 250 to a message: we have taken responsibility for it.
    pub fn kept(id: &str) -> Self {
        Self::new(Class::Done, 50, (0, 0), format!("Ok: kept as {id}"))
    }

    /// 252 to VRFY (RFC 5321 section 7.3).
    pub fn cannot_verify() -> Self {
        Self::new(Class::Done, 52, (0, 0), "Cannot verify; send some mail and see")
    }

    /// 214 to HELP.
    pub fn help() -> Self {
        Self::new(Class::Done, 14, (0, 0), "EHLO HELO MAIL RCPT DATA RSET NOOP VRFY STARTTLS QUIT; see RFC 5321")
    }

    /// 354.
    pub fn send_message() -> Self {
        Self::plain(Class::GoOn, 54, "End data with <CR><LF>.<CR><LF>")
    }

    /// 421 at shutdown.
    pub fn shutting_down(hostname: &str) -> Self {
        Self::new(Class::Later, 21, (3, 2), format!("{hostname} is restarting; try again in a moment"))
    }

    /// 421 after a silence.
    pub fn timed_out(hostname: &str) -> Self {
        Self::new(Class::Later, 21, (4, 2), format!("{hostname} heard nothing for too long"))
    }

    /// 421 after too many mistakes.
    pub fn too_many_errors() -> Self {
        Self::new(Class::Later, 21, (7, 0), "Too many errors; closing")
    }

    /// 421 after too many commands that bring no mail.
    pub fn too_idle() -> Self {
        Self::new(Class::Later, 21, (7, 0), "Too many commands without mail; closing")
    }

    /// 421 after as many messages as one connection may bring.
    pub fn enough_mail() -> Self {
        Self::new(Class::Later, 21, (4, 5), "Enough messages for one connection; the others on a new one")
    }

    /// 451: something of ours does not work at the moment.
    pub fn local_error() -> Self {
        Self::new(Class::Later, 51, (3, 0), "Temporary failure; try again later")
    }

    /// 451: the directory cannot say whether this recipient exists.
    pub fn recipient_unsure() -> Self {
        Self::new(Class::Later, 51, (3, 0), "Recipient cannot be checked at the moment; try again later")
    }

    /// 452: the journal or the memory for mails in flight is full.
    pub fn no_room() -> Self {
        Self::new(Class::Later, 52, (3, 1), "No room for more mail at the moment; try again later")
    }

    /// 452: RFC 5321 section 4.5.3.1.10.
    pub fn too_many_recipients() -> Self {
        Self::new(Class::Later, 52, (5, 3), "Too many recipients; send to the others separately")
    }

    /// 454.
    pub fn tls_unavailable() -> Self {
        Self::new(Class::Later, 54, (7, 0), "TLS is not available at the moment")
    }

    /// 500: not a command at all.
    pub fn unknown_command() -> Self {
        Self::new(Class::Never, 0, (5, 2), "Command not recognised")
    }

    /// 500: the line is too long.
    pub fn line_too_long() -> Self {
        Self::new(Class::Never, 0, (5, 2), "Line too long")
    }

    /// 500: a CR without LF, an LF without CR, or a NUL.
    pub fn bare_line_end() -> Self {
        Self::new(Class::Never, 0, (5, 2), "Lines end with CR and LF, and hold no NUL")
    }

    /// 501, with what was expected.
    pub fn syntax(expected: &str) -> Self {
        Self::new(Class::Never, 1, (5, 4), format!("Syntax: {expected}"))
    }

    /// 501: a sender's address that cannot be read.
    pub fn bad_sender(why: &str) -> Self {
        Self::new(Class::Never, 1, (1, 7), format!("Bad address: {why}"))
    }

    /// 501: a recipient's address that cannot be read.
    pub fn bad_recipient(why: &str) -> Self {
        Self::new(Class::Never, 1, (1, 3), format!("Bad address: {why}"))
    }

    /// 501: a parameter that is known, with a value that is not, or given twice.
    pub fn bad_parameter(name: &str) -> Self {
        Self::new(Class::Never, 1, (5, 4), format!("Bad value of {name}"))
    }

    /// 502.
    pub fn not_implemented() -> Self {
        Self::new(Class::Never, 2, (5, 1), "Command not implemented")
    }

    /// 503, with what should have come.
    pub fn out_of_order(expected: &str) -> Self {
        Self::new(Class::Never, 3, (5, 1), expected)
    }

    /// 550: nobody has that address.
    pub fn unknown_recipient() -> Self {
        Self::new(Class::Never, 50, (1, 1), "No such recipient here")
    }

    /// 550: the account is suspended.
    pub fn suspended_recipient() -> Self {
        Self::new(Class::Never, 50, (2, 1), "Recipient's mailbox is suspended")
    }

    /// 550: the domain is not ours.
    pub fn no_relay() -> Self {
        Self::new(Class::Never, 50, (7, 1), "Mail for that domain is not accepted here")
    }

    /// 550: the chain takes the message for spam.
    pub fn spam() -> Self {
        Self::refused("it looks like spam")
    }

    /// 550: a virus was found, with the scanner's name for it.
    pub fn infected(name: &str) -> Self {
        Self::refused(&format!("it carries {name}"))
    }

    /// 550: refused by the chain's verdict.
    pub fn refused(reason: &str) -> Self {
        Self::new(Class::Never, 50, (7, 1), format!("Message refused: {reason}"))
    }

    /// 550: line ends that others could read differently (smuggling).
    pub fn bare_line_end_in_message() -> Self {
        Self::new(Class::Never, 50, (6, 11), "Message refused: every line must end with CR and LF")
    }

    /// 552: larger than allowed.
    pub fn too_large(most: u64) -> Self {
        Self::new(Class::Never, 52, (3, 4), format!("Message is larger than the {most} bytes that are accepted"))
    }

    /// 552: the header section alone is too large.
    pub fn header_too_large() -> Self {
        Self::new(Class::Never, 52, (3, 4), "Message refused: its header section is too large")
    }

    /// 554: no valid recipients.
    pub fn no_recipients() -> Self {
        Self::new(Class::Never, 54, (5, 1), "No valid recipients")
    }

    /// 554: whoever speaks does not speak SMTP.
    pub fn other_protocol() -> Self {
        Self::new(Class::Never, 54, (5, 1), "This is SMTP; closing")
    }

    /// 554 in place of a greeting: the client is listed.
    pub fn listed(client: &str, zone: &str, text: &str) -> Self {
        let text = if text.is_empty() { String::new() } else { format!("; {text}") };
        Self::new(Class::Never, 54, (7, 1), format!("Service unavailable; client [{client}] is listed by {zone}{text}"))
    }

    /// 555: a parameter of MAIL or RCPT that we did not offer (RFC 5321 section 4.1.1.11).
    pub fn unknown_parameter(name: &str) -> Self {
        Self::new(Class::Never, 55, (5, 4), format!("Parameter not recognised: {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_codes_derive_from_the_class() {
        assert_eq!(
            &Reply::no_room().encode()[..],
            b"452 4.3.1 No room for more mail at the moment; try again later\r\n"
        );
        assert_eq!(&Reply::bare_line_end_in_message().encode()[..10], b"550 5.6.11");
        assert_eq!(&Reply::send_message().encode()[..9], b"354 End d");
    }

    #[test]
    fn no_text_forges_a_line() {
        let reply = Reply::refused("a\r\n250 ok\0ü").encode();
        assert_eq!(&reply[..], b"550 5.7.1 Message refused: a??250 ok??\r\n");
        assert!(Reply::refused(&"x".repeat(10_000)).encode().len() <= 512);
    }
}
