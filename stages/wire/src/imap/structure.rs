//! BODY and BODYSTRUCTURE (RFC 3501 section 7.4.2): the tree of a message's parts.

use bytes::{BufMut as _, BytesMut};

use super::encode::{self, nstring};
use super::envelope::{envelope, quoted};
use super::pieces::joined;
use crate::mime::{Field, Kind, Part, several, structured};

pub(super) const NAMES: [&str; 8] = [
    "content-type",
    "content-id",
    "content-description",
    "content-transfer-encoding",
    "content-md5",
    "content-disposition",
    "content-language",
    "content-location",
];

/// Which of the two is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// BODY.
    Basic,
    /// BODYSTRUCTURE.
    Extended,
}

/// The fields of a part that its structure tells of.
struct About {
    content: Option<Field>,
    id: Option<Vec<u8>>,
    description: Option<Vec<u8>>,
    encoding: Option<Vec<u8>>,
    md5: Option<Vec<u8>>,
    disposition: Option<Field>,
    language: Option<Vec<u8>>,
    location: Option<Vec<u8>>,
}

impl About {
    fn of(header: &[u8]) -> Self {
        let [content, id, description, encoding, md5, disposition, language, location] = several(header, NAMES);
        let structured = |raw: Option<Vec<u8>>| raw.map(|raw| structured(&raw));
        let (content, disposition) = (structured(content), structured(disposition));
        Self { content, id, description, encoding, md5, disposition, language, location }
    }
}

/// Writes the structure of a part.
pub(super) fn structure(out: &mut BytesMut, text: &[u8], part: &Part, form: Form) {
    let about = About::of(&text[part.header.clone()]);
    out.put_u8(b'(');
    if let Kind::Multipart(parts) = &part.kind {
        for part in parts {
            structure(out, text, part, form);
        }
        let content = about.content.as_ref();
        let subtype = content.and_then(|content| content.value.split_once('/')).map_or("mixed", |(_, subtype)| subtype);
        out.put_u8(b' ');
        quoted(out, subtype.trim());
        if form == Form::Extended {
            out.put_u8(b' ');
            parameters(out, content);
            extension(out, &about);
        }
    } else {
        leaf(out, text, part, &about, form);
    }
    out.put_u8(b')');
}

/// The media type that is told of a part that has no parts, and whether its parameters are told.
fn media<'a>(part: &Part, content: Option<&'a Field>) -> (&'a str, &'a str, bool) {
    let is_message = matches!(part.kind, Kind::Message(_));
    let Some(content) = content.filter(|content| !content.value.is_empty()) else {
        return if is_message { ("message", "rfc822", false) } else { ("text", "plain", false) };
    };
    let (main, sub) = content.value.split_once('/').unwrap_or(("text", "plain"));
    let (main, sub) = (main.trim(), sub.trim());
    match (main, sub) {
        // A message that is nested too deep to be looked into, or is encoded, has no envelope to be given.
        _ if main.eq_ignore_ascii_case("message") && is_message_type(sub) && !is_message => {
            ("application", "octet-stream", true)
        }
        // Parts were announced and none is there, or none was looked for: what is there is text.
        _ if main.eq_ignore_ascii_case("multipart") => ("text", "plain", false),
        _ => (main, sub, true),
    }
}

/// RFC 9051 section 7.5.2: both have an envelope, a structure and lines.
fn is_message_type(sub: &str) -> bool {
    sub.eq_ignore_ascii_case("rfc822") || sub.eq_ignore_ascii_case("global")
}

fn leaf(out: &mut BytesMut, text: &[u8], part: &Part, about: &About, form: Form) {
    let body = &text[part.body.clone()];
    let (main, sub, tells_parameters) = media(part, about.content.as_ref());
    quoted(out, main);
    out.put_u8(b' ');
    quoted(out, sub);
    out.put_u8(b' ');
    match &about.content {
        Some(content) if tells_parameters => parameters(out, Some(content)),
        _ if main == "text" => out.put_slice(b"(\"charset\" \"us-ascii\")"),
        _ => out.put_slice(b"NIL"),
    }
    for value in [&about.id, &about.description] {
        out.put_u8(b' ');
        nstring(out, value.as_deref());
    }
    out.put_u8(b' ');
    nstring(out, Some(about.encoding.as_deref().unwrap_or(b"7bit")));
    encode::number(out, body.len() as u64);
    let lines = || memchr::memchr_iter(b'\n', body).count() as u64;
    if let Kind::Message(inner) = &part.kind {
        out.put_u8(b' ');
        envelope(out, &text[inner.header.clone()]);
        out.put_u8(b' ');
        structure(out, text, inner, form);
        encode::number(out, lines());
    } else if main.eq_ignore_ascii_case("text") {
        encode::number(out, lines());
    }
    if form == Form::Extended {
        out.put_u8(b' ');
        nstring(out, about.md5.as_deref());
        extension(out, about);
    }
}

/// Disposition, language and location.
fn extension(out: &mut BytesMut, about: &About) {
    out.put_u8(b' ');
    match &about.disposition {
        Some(disposition) if !disposition.value.is_empty() => {
            out.put_u8(b'(');
            quoted(out, &disposition.value);
            out.put_u8(b' ');
            parameters(out, Some(disposition));
            out.put_u8(b')');
        }
        _ => out.put_slice(b"NIL"),
    }
    for value in [&about.language, &about.location] {
        out.put_u8(b' ');
        nstring(out, value.as_deref());
    }
}

fn parameters(out: &mut BytesMut, content: Option<&Field>) {
    let list = joined(content.map(|content| content.parameters.as_slice()).unwrap_or_default());
    if list.is_empty() {
        return out.put_slice(b"NIL");
    }
    out.put_u8(b'(');
    for (index, (name, value)) in list.iter().enumerate() {
        if index > 0 {
            out.put_u8(b' ');
        }
        quoted(out, name);
        out.put_u8(b' ');
        quoted(out, value);
    }
    out.put_u8(b')');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::parse;

    #[track_caller]
    fn check(text: &str, form: Form, want: &str) {
        let mut out = BytesMut::new();
        structure(&mut out, text.as_bytes(), &parse(text.as_bytes()), form);
        assert_eq!(String::from_utf8_lossy(&out), want);
    }

    #[test]
    fn a_plain_text() {
        let text = "A: b\r\n\r\none\r\ntwo\r\n";
        check(text, Form::Basic, "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 10 2)");
        check(
            text,
            Form::Extended,
            "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 10 2 NIL NIL NIL NIL)",
        );
    }

    #[test]
    fn a_name_in_pieces() {
        check(
            "Content-Type: image/png; name*0=\"a \"; name*1=b\r\nContent-Disposition: inline; \
             filename*0*=utf-8''%C3%A4; filename*1=.png\r\n\r\n",
            Form::Extended,
            "(\"image\" \"png\" (\"name\" \"a b\") NIL NIL \"7bit\" 0 NIL (\"inline\" (\"filename*\" \
             \"utf-8''%C3%A4.png\")) NIL NIL)",
        );
    }

    /// It was told of as a leaf, where a client of IMAP4rev2 reads an envelope.
    #[test]
    fn a_message_in_utf_8() {
        let inner = "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 3 1)";
        check(
            "Content-Type: message/global\r\n\r\nSubject: s\r\n\r\nt\r\n",
            Form::Basic,
            &format!(
                "(\"message\" \"global\" NIL NIL NIL \"7bit\" 17 (NIL \"s\" NIL NIL NIL NIL NIL NIL NIL NIL) {inner} 3)"
            ),
        );
        check(
            "Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n\r\nU3Vi\r\n",
            Form::Basic,
            "(\"application\" \"octet-stream\" NIL NIL NIL \"base64\" 6)",
        );
    }

    #[test]
    fn parts_and_a_message() {
        let text = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png; name=x\r\n\
                    Content-Disposition: attachment; filename=y\r\n\r\nPNG\r\n--b\r\nContent-Type: message/rfc822\r\n\
                    \r\nSubject: s\r\n\r\nt\r\n--b--\r\n";
        let image = "(\"image\" \"png\" (\"name\" \"x\") NIL NIL \"7bit\" 3)";
        let inner = "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 1 0)";
        let message = format!(
            "(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 15 (NIL \"s\" NIL NIL NIL NIL NIL NIL NIL NIL) {inner} 2)"
        );
        check(text, Form::Basic, &format!("({image}{message} \"mixed\")"));
    }
}
