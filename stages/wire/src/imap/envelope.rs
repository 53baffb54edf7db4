//! ENVELOPE (RFC 3501 section 7.4.2): the header as a list of strings and addresses. Names stay encoded as they came.

use bytes::{BufMut as _, BytesMut};

use super::encode::{nstring, string};
use crate::mime::several;

/// Addresses of one field are told apart up to this many.
const ADDRESSES: usize = 1000;
/// Words and marks of one field that are looked at. A field of commas would otherwise take thirty times its bytes in
/// memory.
const TOKENS: usize = 100 * ADDRESSES;

/// Writes the envelope of a message with this header.
pub(super) fn envelope(out: &mut BytesMut, header: &[u8]) {
    let names = ["date", "subject", "from", "sender", "reply-to", "to", "cc", "bcc", "in-reply-to", "message-id"];
    let [date, subject, from, sender, reply_to, to, cc, bcc, in_reply_to, message_id] = several(header, names);
    out.put_u8(b'(');
    nstring(out, date.as_deref());
    out.put_u8(b' ');
    nstring(out, subject.as_deref());
    out.put_u8(b' ');
    let begin = out.len();
    addresses(out, from.as_deref());
    let end = out.len();
    // An absent Sender or Reply-To is the From.
    for value in [sender, reply_to] {
        out.put_u8(b' ');
        match value.filter(|value| !value.is_empty()) {
            Some(value) => addresses(out, Some(&value)),
            None => out.extend_from_within(begin..end),
        }
    }
    for value in [to, cc, bcc] {
        out.put_u8(b' ');
        addresses(out, value.as_deref());
    }
    for value in [in_reply_to, message_id] {
        out.put_u8(b' ');
        nstring(out, value.as_deref());
    }
    out.put_u8(b')');
}

fn addresses(out: &mut BytesMut, value: Option<&[u8]>) {
    let list = value.map(parse).unwrap_or_default();
    if list.is_empty() {
        return out.put_slice(b"NIL");
    }
    out.put_u8(b'(');
    for address in list.iter().take(ADDRESSES) {
        out.put_u8(b'(');
        nstring(out, address.name.as_deref());
        out.put_u8(b' ');
        nstring(out, address.route.as_deref());
        out.put_u8(b' ');
        nstring(out, address.mailbox.as_deref());
        out.put_u8(b' ');
        nstring(out, address.host.as_deref());
        out.put_u8(b')');
    }
    out.put_u8(b')');
}

/// One address. A group begins with one that has no host, and ends with one that has nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) name: Option<Vec<u8>>,
    /// A source route, without its colon: nobody follows it any more.
    route: Option<Vec<u8>>,
    pub(super) mailbox: Option<Vec<u8>>,
    pub(super) host: Option<Vec<u8>>,
}

/// The addresses in a field.
pub(super) fn addresses_of(value: &[u8]) -> impl Iterator<Item = Address> {
    parse(value).into_iter().take(ADDRESSES)
}

/// The words of an address list: quoted strings and comments are one each.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(Vec<u8>),
    Comment(Vec<u8>),
    Mark(u8),
}

fn tokens(text: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at)
        && tokens.len() < TOKENS
    {
        match byte {
            b' ' | b'\t' => at += 1,
            b'"' | b'(' => {
                let (content, used) = enclosed(&text[at..]);
                tokens.push(if *byte == b'"' { Token::Word(content) } else { Token::Comment(content) });
                at += used;
            }
            b'<' | b'>' | b',' | b';' | b':' | b'@' => {
                tokens.push(Token::Mark(*byte));
                at += 1;
            }
            _ => {
                let end = text[at..]
                    .iter()
                    .position(|byte| b" \t\"(<>,;:@".contains(byte))
                    .map_or(text.len(), |end| at + end);
                tokens.push(Token::Word(text[at..end].to_vec()));
                at = end;
            }
        }
    }
    tokens
}

/// The content of a quoted string or a comment, and its length with its marks.
fn enclosed(text: &[u8]) -> (Vec<u8>, usize) {
    let (mut content, mut depth, mut at) = (Vec::new(), 1_u32, 1);
    let comment = text[0] == b'(';
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'\\' if at < text.len() => {
                content.push(text[at]);
                at += 1;
                continue;
            }
            b'(' if comment => depth += 1,
            b')' if comment => depth -= 1,
            b'"' if !comment => depth = 0,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        content.push(*byte);
    }
    (content, at)
}

fn parse(text: &[u8]) -> Vec<Address> {
    let mut list = Vec::new();
    let mut pending = Pending::default();
    let mut in_group = false;
    for token in tokens(text) {
        match token {
            Token::Word(word) => pending.word(word),
            Token::Comment(comment) => pending.comment = Some(comment),
            Token::Mark(b'<') => pending.angle = Some(Vec::new()),
            Token::Mark(b'@') => pending.at(),
            Token::Mark(b':') if pending.angle.is_none() && !in_group => {
                in_group = true;
                let name = std::mem::take(&mut pending).phrase;
                list.push(Address { mailbox: Some(name.join(&b' ')), ..Address::default() });
            }
            // A source route ends here; what counts follows.
            Token::Mark(b':') => {
                pending.route = pending.angle.replace(Vec::new()).filter(|route| route.starts_with(b"@"));
            }
            Token::Mark(b',') if pending.angle.as_ref().is_some_and(|route| route.starts_with(b"@")) => {
                pending.angle.get_or_insert_default().push(b',');
            }
            Token::Mark(mark @ (b',' | b';')) => {
                list.extend(std::mem::take(&mut pending).finish());
                if mark == b';' && std::mem::take(&mut in_group) {
                    list.push(Address::default());
                }
            }
            Token::Mark(_) => {}
        }
    }
    list.extend(pending.finish());
    if in_group {
        list.push(Address::default());
    }
    list
}

/// An address while its words come in.
#[derive(Debug, Default)]
struct Pending {
    phrase: Vec<Vec<u8>>,
    angle: Option<Vec<u8>>,
    route: Option<Vec<u8>>,
    comment: Option<Vec<u8>>,
    joined: bool,
}

impl Pending {
    fn word(&mut self, word: Vec<u8>) {
        match (&mut self.angle, self.phrase.last_mut()) {
            (Some(angle), _) => angle.extend(word),
            (None, Some(last)) if std::mem::take(&mut self.joined) => last.extend(word),
            (None, _) => self.phrase.push(word),
        }
    }

    fn at(&mut self) {
        match (&mut self.angle, self.phrase.last_mut()) {
            (Some(angle), _) => angle.push(b'@'),
            (None, Some(last)) => {
                last.push(b'@');
                self.joined = true;
            }
            (None, None) => {}
        }
    }

    fn finish(self) -> Option<Address> {
        let is_comment_alone = self.angle.is_none() && self.phrase.is_empty();
        let (address, name) = match self.angle {
            Some(angle) => (angle, (!self.phrase.is_empty()).then(|| self.phrase.join(&b' '))),
            None => (self.phrase.join(&b' '), self.comment),
        };
        if is_comment_alone || address.is_empty() && name.is_none() {
            return None;
        }
        let at = address.iter().rposition(|byte| *byte == b'@');
        let (mailbox, host) = match at {
            Some(at) => (address[..at].to_vec(), address[at + 1..].to_vec()),
            None => (address, Vec::new()),
        };
        // A host that is absent is empty, not NIL: NIL would begin a group.
        Some(Address { name, route: self.route, mailbox: Some(mailbox), host: Some(host) })
    }
}

/// Writes one string; used by the structure as well.
pub(super) fn quoted(out: &mut BytesMut, value: &str) {
    string(out, value.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(value: &str, want: &str) {
        let mut out = BytesMut::new();
        addresses(&mut out, Some(value.as_bytes()));
        assert_eq!(String::from_utf8_lossy(&out), want, "{value}");
    }

    #[test]
    fn address_lists() {
        check("a@b", "((NIL NIL \"a\" \"b\"))");
        check("A B <a@b>, \"C, D\" <c@d>", "((\"A B\" NIL \"a\" \"b\")(\"C, D\" NIL \"c\" \"d\"))");
        check("a@b (Name)", "((\"Name\" NIL \"a\" \"b\"))");
        check("<@r:a@b>", "((NIL \"@r\" \"a\" \"b\"))");
        check("<@r,@s:a@b>, c@d", "((NIL \"@r,@s\" \"a\" \"b\")(NIL NIL \"c\" \"d\"))");
        check("group: (nobody) ;", "((NIL NIL \"group\" NIL)(NIL NIL NIL NIL))");
        check(
            "group: a@b, c@d;",
            "((NIL NIL \"group\" NIL)(NIL NIL \"a\" \"b\")(NIL NIL \"c\" \"d\")(NIL NIL NIL NIL))",
        );
        check("undisclosed-recipients:;", "((NIL NIL \"undisclosed-recipients\" NIL)(NIL NIL NIL NIL))");
        check("nobody", "((NIL NIL \"nobody\" \"\"))");
        check("", "NIL");
    }

    #[test]
    fn a_whole_envelope() {
        let mut out = BytesMut::new();
        envelope(&mut out, b"Date: d\r\nSubject: s\r\n\tt\r\nFrom: a@b\r\nTo: c@d\r\nMessage-ID: <m>\r\n\r\n");
        let a = "((NIL NIL \"a\" \"b\"))";
        let want = format!("(\"d\" \"s\tt\" {a} {a} {a} ((NIL NIL \"c\" \"d\")) NIL NIL NIL \"<m>\")")
            .replace("\"s\tt\"", "{3}\r\ns\tt");
        assert_eq!(String::from_utf8_lossy(&out), want);
    }

    #[test]
    fn what_is_told_apart_has_a_bound() {
        for piece in [",", "a,", "a ", "(,", "a:b;"] {
            assert!(tokens(piece.repeat(1 << 20).as_bytes()).len() <= TOKENS, "{piece}");
        }
        let many = "\"N\" <a@b.example>, ".repeat(ADDRESSES);
        assert_eq!(parse(many.as_bytes()).len(), ADDRESSES);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "([a-z@<>,;:()\"\\\\ ]|\u{e4}){0,40}") {
            parse(text.as_bytes());
        }
    }
}
