//! BODY and BODYSTRUCTURE (RFC 3501 section 7.4.2): the tree of a message's parts.

use bytes::{BufMut as _, BytesMut};

use super::encode::nstring;
use super::envelope::{envelope, quoted};
use crate::mime::{Field, Kind, Part, field, structured};

/// Which of the two is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// BODY.
    Basic,
    /// BODYSTRUCTURE.
    Extended,
}

/// Writes the structure of a part.
pub(super) fn structure(out: &mut BytesMut, text: &[u8], part: &Part, form: Form) {
    let header = &text[part.header.clone()];
    let content = field(header, "content-type").map(|raw| structured(&raw));
    out.put_u8(b'(');
    if let Kind::Multipart(parts) = &part.kind {
        for part in parts {
            structure(out, text, part, form);
        }
        let subtype =
            content.as_ref().and_then(|content| content.value.split_once('/')).map_or("mixed", |(_, subtype)| subtype);
        out.put_u8(b' ');
        quoted(out, subtype.trim());
        if form == Form::Extended {
            out.put_u8(b' ');
            parameters(out, content.as_ref());
            extension(out, header);
        }
    } else {
        leaf(out, text, part, content.as_ref(), form);
    }
    out.put_u8(b')');
}

fn leaf(out: &mut BytesMut, text: &[u8], part: &Part, content: Option<&Field>, form: Form) {
    let header = &text[part.header.clone()];
    let body = &text[part.body.clone()];
    let default = if matches!(part.kind, Kind::Message(_)) { "message/rfc822" } else { "text/plain" };
    let value = content.map_or(default, |content| content.value.as_str());
    let (main, sub) = value.split_once('/').unwrap_or(("text", "plain"));
    // A message that is nested too deep to be looked into has no envelope to be given.
    let is_closed = value.eq_ignore_ascii_case("message/rfc822") && matches!(part.kind, Kind::Leaf);
    let (main, sub) = if is_closed { ("application", "octet-stream") } else { (main.trim(), sub.trim()) };
    quoted(out, main);
    out.put_u8(b' ');
    quoted(out, sub);
    out.put_u8(b' ');
    if content.is_none() && main == "text" {
        out.put_slice(b"(\"charset\" \"us-ascii\")");
    } else {
        parameters(out, content);
    }
    for name in ["content-id", "content-description"] {
        out.put_u8(b' ');
        nstring(out, field(header, name).as_deref());
    }
    out.put_u8(b' ');
    let encoding = field(header, "content-transfer-encoding");
    nstring(out, Some(encoding.as_deref().unwrap_or(b"7bit")));
    out.put_slice(format!(" {}", body.len()).as_bytes());
    let lines = memchr::memchr_iter(b'\n', body).count();
    if let Kind::Message(inner) = &part.kind {
        out.put_u8(b' ');
        envelope(out, &text[inner.header.clone()]);
        out.put_u8(b' ');
        structure(out, text, inner, form);
        out.put_slice(format!(" {lines}").as_bytes());
    } else if main.eq_ignore_ascii_case("text") {
        out.put_slice(format!(" {lines}").as_bytes());
    }
    if form == Form::Extended {
        out.put_u8(b' ');
        nstring(out, field(header, "content-md5").as_deref());
        extension(out, header);
    }
}

/// Disposition, language and location.
fn extension(out: &mut BytesMut, header: &[u8]) {
    out.put_u8(b' ');
    match field(header, "content-disposition").map(|raw| structured(&raw)) {
        Some(disposition) if !disposition.value.is_empty() => {
            out.put_u8(b'(');
            quoted(out, &disposition.value);
            out.put_u8(b' ');
            parameters(out, Some(&disposition));
            out.put_u8(b')');
        }
        _ => out.put_slice(b"NIL"),
    }
    for name in ["content-language", "content-location"] {
        out.put_u8(b' ');
        nstring(out, field(header, name).as_deref());
    }
}

fn parameters(out: &mut BytesMut, content: Option<&Field>) {
    let list = content.map(|content| content.parameters.as_slice()).unwrap_or_default();
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
    fn parts_and_a_message() {
        let text = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png; name=x\r\nContent-Disposition: attachment; filename=y\r\n\r\nPNG\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nt\r\n--b--\r\n";
        let image = "(\"image\" \"png\" (\"name\" \"x\") NIL NIL \"7bit\" 3)";
        let inner = "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 1 0)";
        let message = format!(
            "(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 15 (NIL \"s\" NIL NIL NIL NIL NIL NIL NIL NIL) {inner} 2)"
        );
        check(text, Form::Basic, &format!("({image}{message} \"mixed\")"));
    }
}
