//! Reads the pieces of a command, one after the other. What cannot be read is none, and whoever asked gives up.

/// A command that is read from its begin.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether this comes next, in whichever case; then it is passed.
    pub(super) fn takes(&mut self, word: &[u8]) -> bool {
        match self.0.split_at_checked(word.len()) {
            Some((begin, rest)) if begin.eq_ignore_ascii_case(word) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// A word of these bytes, with at least one.
    pub(super) fn word(&mut self, is_part: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| !is_part(*byte)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (end > 0).then_some(word)
    }

    /// A string in quotes, a literal, or a word of these bytes.
    pub(super) fn string(&mut self, is_part: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
        match self.0.first()? {
            b'"' => self.quoted(),
            b'{' => self.literal(),
            _ => self.word(is_part).map(<[u8]>::to_vec),
        }
    }

    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        let mut rest = self.0.get(1..)?.iter();
        loop {
            match rest.next()? {
                b'"' => break,
                b'\\' => value.push(*rest.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
                b'\r' | b'\n' | 0 => return None,
                byte => value.push(*byte),
            }
        }
        self.0 = rest.as_slice();
        Some(value)
    }

    fn literal(&mut self) -> Option<Vec<u8>> {
        self.takes(b"{").then_some(())?;
        let length = self.word(|byte| byte.is_ascii_digit())?;
        let length: usize = str::from_utf8(length).ok()?.parse().ok()?;
        self.takes(b"+");
        self.takes(b"}\r\n").then_some(())?;
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value.to_vec())
    }

    /// The pieces of a list in brackets, with a space between; it may be empty.
    pub(super) fn list<T>(&mut self, mut piece: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.takes(b"(").then_some(())?;
        let mut pieces = Vec::new();
        while !self.takes(b")") {
            (pieces.is_empty() || self.takes(b" ")).then_some(())?;
            pieces.push(piece(self)?);
        }
        Some(pieces)
    }
}

/// Bytes of an atom, and `]`, of which a name may consist (RFC 3501 `astring`).
pub(super) fn is_name(byte: u8) -> bool {
    !matches!(byte, 0..=b' ' | b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | 0x7f..)
}

/// With the wildcards of LIST, too.
pub(super) fn is_pattern(byte: u8) -> bool {
    is_name(byte) || matches!(byte, b'%' | b'*')
}
