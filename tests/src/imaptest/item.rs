//! A reply of a server, or one that a script wants, as a tree of atoms, strings and lists.

use std::fmt;

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An atom or a quoted string. What is in brackets is part of it: `BODY[HEADER.FIELDS (FROM)]<0>`.
    Text(Vec<u8>),
    /// A literal. Its octets count, letters' case included.
    Literal(Vec<u8>),
    /// Something in parentheses, or the code in brackets at the beginning of a status reply.
    List(Vec<Self>),
}

impl Item {
    /// The octets of a string, whichever way it was written.
    pub fn octets(&self) -> Option<&[u8]> {
        match self {
            Self::Text(octets) | Self::Literal(octets) => Some(octets),
            Self::List(_) => None,
        }
    }

    /// Whether it is this word.
    pub fn is(&self, word: &str) -> bool {
        self.octets().is_some_and(|octets| octets.eq_ignore_ascii_case(word.as_bytes()))
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(octets) => f.write_str(&String::from_utf8_lossy(octets)),
            Self::Literal(octets) => write!(f, "{:?}", String::from_utf8_lossy(octets)),
            Self::List(items) => write!(f, "({})", line(items)),
        }
    }
}

/// Items as a line.
pub fn line(items: &[Item]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Whether this word begins a status reply, behind which comes text for people.
pub fn is_status(word: &[u8]) -> bool {
    ["ok", "no", "bad", "bye", "preauth"].iter().any(|status| word.eq_ignore_ascii_case(status.as_bytes()))
}

/// Reads a reply without its tag and line end. Of a status reply only the word and the code are kept.
pub fn parse(reply: &[u8]) -> Vec<Item> {
    let mut reader = Reader { octets: reply, at: 0 };
    let mut items = Vec::new();
    while let Some(item) = reader.item() {
        items.push(item);
        if items.len() == 1 && items[0].octets().is_some_and(is_status) {
            reader.skip_spaces();
            if reader.peek() == Some(b'[') {
                reader.at += 1;
                items.push(Item::List(reader.until(b']')));
            }
            return items;
        }
    }
    items
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.octets.get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    fn item(&mut self) -> Option<Item> {
        self.skip_spaces();
        match self.peek()? {
            b'(' => {
                self.at += 1;
                Some(Item::List(self.until(b')')))
            }
            b'"' => Some(self.quoted()),
            b'{' => Some(self.literal().unwrap_or_else(|| self.atom(b')'))),
            b'~' if self.octets.get(self.at + 1) == Some(&b'{') => {
                self.at += 1;
                Some(self.literal().unwrap_or_else(|| self.atom(b')')))
            }
            // One that nothing opened.
            b')' => {
                self.at += 1;
                Some(Item::Text(b")".to_vec()))
            }
            _ => Some(self.atom(b')')),
        }
    }

    fn until(&mut self, end: u8) -> Vec<Item> {
        let mut items = Vec::new();
        loop {
            self.skip_spaces();
            match self.peek() {
                None => return items,
                Some(octet) if octet == end => {
                    self.at += 1;
                    return items;
                }
                Some(b'(' | b'"' | b'{' | b'~') => items.extend(self.item()),
                Some(_) => items.push(self.atom(end)),
            }
        }
    }

    fn quoted(&mut self) -> Item {
        let mut octets = Vec::new();
        self.at += 1;
        while let Some(octet) = self.peek() {
            self.at += 1;
            match octet {
                b'"' => break,
                b'\\' => {
                    octets.extend(self.peek());
                    self.at += 1;
                }
                _ => octets.push(octet),
            }
        }
        Item::Text(octets)
    }

    /// `{n}`, a line end, and the octets.
    fn literal(&mut self) -> Option<Item> {
        let rest = &self.octets[self.at + 1..];
        let digits = rest.iter().take_while(|octet| octet.is_ascii_digit()).count();
        let count: usize = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        let octets = rest[digits..].strip_prefix(b"}\r\n")?.get(..count)?;
        self.at += 1 + digits + 3 + count;
        Some(Item::Literal(octets.to_vec()))
    }

    /// At least one octet, whatever it is: reading must go on.
    fn atom(&mut self, end: u8) -> Item {
        let begun = self.at;
        while let Some(octet) = self.peek() {
            let is_end = octet == b' ' || octet == b'(' || octet == b')' || octet == end;
            if is_end && self.at > begun {
                break;
            }
            let close = self.octets[self.at..].iter().position(|&octet| octet == b']');
            match (octet, close) {
                (b'[', Some(close)) if end != b']' => self.at += close + 1,
                _ => self.at += 1,
            }
        }
        // Names of header fields may be quoted or not.
        let mut atom = self.octets[begun..self.at].to_vec();
        if atom.contains(&b'[') {
            atom.retain(|&octet| octet != b'"');
        }
        Item::Text(atom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reply: &str, want: &str) {
        let items = parse(reply.as_bytes());
        assert_eq!(items.iter().map(|item| format!("<{item}>")).collect::<String>(), want);
    }

    #[test]
    fn replies_are_read() {
        check("3 EXISTS", "<3><EXISTS>");
        check("LIST (\\Noselect) \"/\" \"a b\"", "<LIST><(\\Noselect)></><a b>");
        check("OK [UIDNEXT 4] next (one", "<OK><(UIDNEXT 4)>");
        check("OK [PERMANENTFLAGS (\\Seen \\*)] x", "<OK><(PERMANENTFLAGS (\\Seen \\*))>");
        check("BYE see you", "<BYE>");
        check("THREAD (1)((2)(3 4))", "<THREAD><(1)><((2) (3 4))>");
        check(
            "1 FETCH (BODY[HEADER.FIELDS (\"A\" B)]<0> {3}\r\n) x)",
            "<1><FETCH><(BODY[HEADER.FIELDS (A B)]<0> \") x\")>",
        );
        check("1 FETCH (BINARY[1] ~{2}\r\nab UID 4)", "<1><FETCH><(BINARY[1] \"ab\" UID 4)>");
        check("SEARCH", "<SEARCH>");
        check("LIST () NIL a[b", "<LIST><()><NIL><a[b>");
    }
}
