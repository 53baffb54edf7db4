//! The parts of a message and where they lie (RFC 2045, RFC 2046). Reading never fails: what is odd becomes text. What
//! it takes has bounds, whatever the message is made of.

mod decode;
mod text;

pub use decode::decode;
pub use text::{Encoding, Text, text, with_text};

use std::ops::Range;

/// Parts within parts are followed so deep.
const DEPTH: usize = 50;
/// So many parts are told apart.
const PARTS: usize = 1000;
/// So many parameters of a field are told apart.
const PARAMETERS: usize = 1000;
/// Boundaries are looked for in so many times the bytes of the message: one time for each level that it may well have.
const PASSES: usize = 16;

/// A part: a header, a body, and what is in it.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where its header lies, the blank line included.
    pub header: Range<usize>,
    /// Where its body lies.
    pub body: Range<usize>,
    /// What the body is made of.
    pub kind: Kind,
}

/// What is in a part.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Text, an image, whatever has no parts; also what lies too deep to be looked into.
    Leaf,
    /// Parts.
    Multipart(Vec<Part>),
    /// A message.
    Message(Box<Part>),
}

/// A structured field: its value and its parameters, names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Field {
    /// What stands before the first semicolon.
    pub value: String,
    /// The parameters.
    pub parameters: Vec<(String, String)>,
}

impl Field {
    /// The value of the first parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// What may still be spent on reading a message.
struct Budget {
    parts: usize,
    bytes: usize,
}

/// The parts of a whole message.
pub fn parse(text: &[u8]) -> Part {
    let mut budget = Budget { parts: PARTS, bytes: text.len().saturating_mul(PASSES) };
    parse_part(text, 0..text.len(), "text/plain", DEPTH, &mut budget)
}

/// A whole message as if it had no parts.
pub fn parse_header(text: &[u8]) -> Part {
    let begin = header_end(text);
    Part { header: 0..begin, body: begin..text.len(), kind: Kind::Leaf }
}

fn parse_part(text: &[u8], range: Range<usize>, default: &str, depth: usize, budget: &mut Budget) -> Part {
    let begin = header_end(&text[range.clone()]) + range.start;
    let (header, body) = (range.start..begin, begin..range.end);
    budget.parts = budget.parts.saturating_sub(1);
    let mut kind = Kind::Leaf;
    if depth > 0 && budget.parts > 0 && budget.bytes >= body.len() {
        let content = field(&text[header.clone()], "content-type").map(|raw| structured(&raw)).unwrap_or_default();
        let value = if content.value.is_empty() { default } else { content.value.as_str() }.to_ascii_lowercase();
        if let Some(boundary) = content.parameter("boundary").filter(|_| value.starts_with("multipart/")) {
            budget.bytes -= body.len();
            // RFC 2046 section 5.1.5: what a digest holds are messages, unless it says otherwise.
            let default = if value == "multipart/digest" { "message/rfc822" } else { "text/plain" };
            let ranges = split(text, body.clone(), boundary.as_bytes());
            let mut parts = Vec::new();
            for range in ranges {
                if budget.parts == 0 {
                    break;
                }
                parts.push(parse_part(text, range, default, depth - 1, budget));
            }
            if !parts.is_empty() {
                kind = Kind::Multipart(parts);
            }
        } else if is_message(&value, &text[header.clone()]) {
            let inner = parse_part(text, body.clone(), "text/plain", depth - 1, budget);
            kind = Kind::Message(Box::new(inner));
        }
    }
    Part { header, body, kind }
}

/// Whether a part of this type is a message. One in UTF-8 may be encoded (RFC 6532 section 3.7), and is looked into
/// only if it is not.
fn is_message(value: &str, header: &[u8]) -> bool {
    let is_plain = |encoding: Vec<u8>| {
        let encoding = encoding.trim_ascii();
        !encoding.eq_ignore_ascii_case(b"base64") && !encoding.eq_ignore_ascii_case(b"quoted-printable")
    };
    match value {
        "message/rfc822" => true,
        "message/global" => field(header, "content-transfer-encoding").is_none_or(is_plain),
        _ => false,
    }
}

/// Where the header ends: behind its blank line, or at the end of the text.
fn header_end(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(end) = memchr::memchr(b'\n', &text[at..]) {
        let line = &text[at..=at + end];
        at += end + 1;
        if matches!(line, b"\r\n" | b"\n") {
            return at;
        }
    }
    text.len()
}

/// The ranges between boundary lines (RFC 2046 section 5.1.1); the line end before a boundary belongs to it.
fn split(text: &[u8], body: Range<usize>, boundary: &[u8]) -> Vec<Range<usize>> {
    let (mut parts, mut begin, mut at) = (Vec::new(), None, body.start);
    while at < body.end && parts.len() < PARTS {
        let end = memchr::memchr(b'\n', &text[at..body.end]).map_or(body.end, |end| at + end + 1);
        let line = &text[at..end];
        let after = line.strip_prefix(b"--").and_then(|rest| rest.strip_prefix(boundary));
        if let Some(after) = after.filter(|after| after.starts_with(b"--") || after.trim_ascii().is_empty()) {
            if let Some(begin) = begin.take() {
                parts.push(begin..trim_line_end(text, begin, at));
            }
            if after.starts_with(b"--") {
                return parts;
            }
            begin = Some(end);
        }
        at = end;
    }
    if let Some(begin) = begin {
        parts.push(begin..body.end);
    }
    parts
}

fn trim_line_end(text: &[u8], begin: usize, end: usize) -> usize {
    let slice = &text[begin..end];
    end - if slice.ends_with(b"\r\n") { 2 } else { usize::from(slice.ends_with(b"\n")) }
}

/// The fields of a header, one after the other: the name of each, and the range of the whole field, line ends included.
#[derive(Debug)]
pub struct Fields<'a> {
    header: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of this header.
    pub fn of(header: &'a [u8]) -> Self {
        Self { header, at: 0 }
    }

    fn line_end(&self, at: usize) -> usize {
        memchr::memchr(b'\n', &self.header[at..]).map_or(self.header.len(), |end| at + end + 1)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.header.len() {
            let begin = self.at;
            self.at = self.line_end(begin);
            let first = &self.header[begin..self.at];
            while matches!(self.header.get(self.at), Some(b' ' | b'\t')) {
                self.at = self.line_end(self.at);
            }
            // What continues nothing, and a line without a colon, are no fields.
            if let Some(colon) = memchr::memchr(b':', first).filter(|_| !matches!(first[0], b' ' | b'\t')) {
                return Some((first[..colon].trim_ascii_end(), begin..self.at));
            }
        }
        None
    }
}

/// Every field of a header.
pub fn fields(header: &[u8]) -> Vec<(&[u8], Range<usize>)> {
    Fields::of(header).collect()
}

/// The first field of this name, unfolded, without its name.
pub fn field(header: &[u8], name: &str) -> Option<Vec<u8>> {
    let [found] = several(header, [name]);
    found
}

/// The first field of each of these names, unfolded, without its name.
pub fn several<const N: usize>(header: &[u8], names: [&str; N]) -> [Option<Vec<u8>>; N] {
    let mut found = [const { None }; N];
    let mut missing = N;
    for (name, range) in Fields::of(header) {
        let at = names.iter().position(|wanted| wanted.as_bytes().eq_ignore_ascii_case(name));
        let Some(at) = at.filter(|at| found[*at].is_none()) else { continue };
        let raw = &header[range];
        found[at] = memchr::memchr(b':', raw).map(|colon| unfold(&raw[colon + 1..]));
        missing -= 1;
        if missing == 0 {
            break;
        }
    }
    found
}

fn unfold(raw: &[u8]) -> Vec<u8> {
    let raw = raw.trim_ascii();
    if memchr::memchr2(b'\r', b'\n', raw).is_none() {
        return raw.to_vec();
    }
    raw.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
}

/// A value with parameters (RFC 2045 section 5.1), comments left out.
pub fn structured(raw: &[u8]) -> Field {
    let text = String::from_utf8_lossy(raw);
    let mut pieces = split_outside_quotes(&text, ';', PARAMETERS + 1).into_iter();
    let value = pieces.next().unwrap_or_default().trim().to_owned();
    let parameter = |piece: String| {
        let (name, value) = piece.split_once('=')?;
        Some((name.trim().to_ascii_lowercase(), unquote(value.trim())))
    };
    Field { value, parameters: pieces.filter_map(parameter).collect() }
}

/// The first pieces, up to so many.
fn split_outside_quotes(text: &str, separator: char, most: usize) -> Vec<String> {
    let (mut pieces, mut current) = (Vec::new(), String::new());
    let (mut quoted, mut escaped, mut depth) = (false, false, 0_u32);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted || depth > 0 => escaped = true,
            '"' if depth == 0 => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth > 0 => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if c == separator && !quoted && depth == 0 {
            pieces.push(std::mem::take(&mut current));
            if pieces.len() == most {
                return pieces;
            }
        } else if depth == 0 {
            current.push(c);
        }
    }
    pieces.push(current);
    pieces
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let mut out = String::new();
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIXED: &str = "Content-Type: multipart/mixed; (c) boundary=\"b b\"\r\n\r\npreamble\r\n--b b\r\n\r\none\r\n\
                         --b b \r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ntwo\r\n\r\n--b b--\r\n\
                         epilogue\r\n";

    #[test]
    fn parts_lie_where_they_lie() {
        let part = parse(MIXED.as_bytes());
        let Kind::Multipart(parts) = &part.kind else { panic!("not multipart") };
        assert_eq!((&MIXED[parts[0].body.clone()], parts.len()), ("one", 2));
        let Kind::Message(inner) = &parts[1].kind else { panic!("not a message") };
        assert_eq!((&MIXED[inner.header.clone()], &MIXED[inner.body.clone()]), ("Subject: in\r\n\r\n", "two\r\n"));
    }

    #[test]
    fn fields_unfold() {
        let header = b"A: 1\r\n  2\r\nb : x\r\nno colon\r\n\r\n";
        assert_eq!(field(header, "a").as_deref(), Some(&b"1  2"[..]));
        assert_eq!(field(header, "B").as_deref(), Some(&b"x"[..]));
        let field = structured(b"text/plain; charset=\"a;\\\"b\" (x;y); Name = n");
        assert_eq!(field.value, "text/plain");
        assert_eq!((field.parameter("charset"), field.parameter("name")), (Some("a;\"b"), Some("n")));
    }

    #[test]
    fn a_digest_holds_messages() {
        let text = b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: in\r\n\r\ntwo\r\n--b\r\n\
                     Content-Type: text/plain\r\n\r\nSubject: x\r\n--b--\r\n";
        let Kind::Multipart(parts) = parse(text).kind else { panic!("not multipart") };
        assert!(matches!((&parts[0].kind, &parts[1].kind), (Kind::Message(_), Kind::Leaf)));
    }

    #[test]
    fn nesting_has_a_bound() {
        let deep = "Content-Type: message/rfc822\r\n\r\n".repeat(10_000);
        parse(deep.as_bytes());
        let wide = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\n".repeat(100_000));
        parse(wide.as_bytes());
        let levels = "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n".repeat(100_000);
        parse(levels.as_bytes());
    }

    #[test]
    fn parameters_have_a_bound() {
        let field = structured(format!("a/b{}", "; n=v".repeat(100_000)).as_bytes());
        assert_eq!((field.value.as_str(), field.parameters.len()), ("a/b", PARAMETERS));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "(Content-Type: multipart/x; boundary=b\r\n|--b(--)?\r\n|\r\n\
    |message/rfc822|[a-z:;\"()\\\\ ]|\u{e4}){0,40}") {
            parse(text.as_bytes());
            structured(text.as_bytes());
        }
    }
}
