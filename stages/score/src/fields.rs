//! The header fields of a mail as bytes: where each begins and ends. Needed where a parser's view is not enough, to cut
//! a field out or to see that it stands there twice.

use proto::Cut;

/// One field of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Bytes before it.
    pub offset: usize,
    /// All of it, its line ends included.
    pub raw: &'a [u8],
    /// Its name as written, without blanks at its end.
    pub name: &'a [u8],
    /// What follows the colon, folded as written.
    pub value: &'a [u8],
}

/// The lines up to the first empty one, each with those that continue it, and where it begins.
fn lines(mail: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let rest = mail.get(offset..).filter(|rest| !rest.is_empty() && !is_empty_line(rest))?;
        let line = (offset, &rest[..field_length(rest)]);
        offset += line.1.len();
        Some(line)
    })
}

fn is_empty_line(text: &[u8]) -> bool {
    text.starts_with(b"\r\n") || text.starts_with(b"\n")
}

fn field((offset, raw): (usize, &[u8])) -> Option<Field<'_>> {
    let colon = raw.iter().position(|&byte| byte == b':')?;
    let name = raw[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then(|| Field { offset, raw, name, value: &raw[colon + 1..] })
}

/// The fields up to the first empty line (RFC 5322 section 2.2). Lines that are no fields are stepped over, as readers
/// of mail do.
pub fn fields(mail: &[u8]) -> impl Iterator<Item = Field<'_>> {
    lines(mail).filter_map(field)
}

/// How many lines of the header are no fields. The line of an mbox file at the top (RFC 4155) is not counted.
pub fn strays(mail: &[u8]) -> usize {
    lines(mail).filter(|line| field(*line).is_none() && !(line.0 == 0 && line.1.starts_with(b"From "))).count()
}

/// The length of the first field with the lines that continue it.
fn field_length(text: &[u8]) -> usize {
    let mut end = 0;
    loop {
        let Some(line) = text[end..].iter().position(|&byte| byte == b'\n') else { return text.len() };
        end += line + 1;
        if !matches!(text.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
}

/// Every field of our own begins so.
const OURS: &[u8] = b"X-Chainmail-";

/// Places that are cut out of one mail. They travel in the envelope, which must stay small; no honest mail has three.
const CUTS: usize = 1000;

/// The fields of a mail that claim to be our own: they are not delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forged {
    /// Where they stand. Where there are too many, the last of these goes on to the end of the last field.
    pub cuts: Vec<Cut>,
    /// How many of them are results in our name. The others come in good faith from another Chainmail on the way, too.
    pub results: usize,
}

impl Forged {
    /// Finds them (RFC 8601 section 5 for the results).
    pub fn find(mail: &[u8], host: &str) -> Self {
        let mut forged = Self::default();
        for field in fields(mail) {
            let is_result = field.name.eq_ignore_ascii_case(b"Authentication-Results") && speaks_as(field.value, host);
            let is_ours = field.name.get(..OURS.len()).is_some_and(|name| name.eq_ignore_ascii_case(OURS));
            forged.results += usize::from(is_result);
            if is_result || is_ours {
                forged.cut(field.offset as u64, field.raw.len() as u64);
            }
        }
        forged
    }

    fn cut(&mut self, offset: u64, length: u64) {
        let is_full = self.cuts.len() == CUTS;
        match self.cuts.last_mut() {
            Some(last) if is_full || last.offset + last.length == offset => last.length = offset + length - last.offset,
            _ => self.cuts.push(Cut { offset, length }),
        }
    }
}

/// Whether the name at the front of an Authentication-Results field is this one, behind comments, quoted or not.
fn speaks_as(value: &[u8], ours: &str) -> bool {
    let rest = skip_comments(value);
    let name = match rest.strip_prefix(b"\"") {
        Some(quoted) => quoted.split(|&byte| byte == b'"').next(),
        None => rest.split(|&byte| byte == b';' || byte == b'(' || byte.is_ascii_whitespace()).next(),
    };
    name.is_some_and(|name| name.strip_suffix(b".").unwrap_or(name).eq_ignore_ascii_case(ours.as_bytes()))
}

fn skip_comments(mut value: &[u8]) -> &[u8] {
    loop {
        value = value.trim_ascii_start();
        if !value.starts_with(b"(") {
            return value;
        }
        let mut depth = 0_usize;
        let mut escaped = false;
        let end = value.iter().position(|&byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        value = end.map_or(&[], |end| &value[end + 1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mail: &str, want: &[&str]) {
        let cuts = Forged::find(mail.as_bytes(), "mx.example.org").cuts;
        let cut = |cut: &Cut| &mail[cut.offset as usize..(cut.offset + cut.length) as usize];
        assert_eq!(cuts.iter().map(cut).collect::<Vec<_>>(), want);
    }

    #[test]
    fn in_our_name() {
        let field = "authentication-results: (a (nested\\)) comment) MX.example.ORG.;\r\n spf=pass\r\n";
        check(&format!("A: b\r\n{field}To: c\r\n\r\n"), &[field]);
        let quoted = "Authentication-Results : \"mx.example.org\"; spf=pass\r\n";
        check(&format!("{quoted}{quoted}\r\n"), &[&quoted.repeat(2)]);
        check(
            "Authentication-Results:\r\n\tmx.example.org 1; none",
            &["Authentication-Results:\r\n\tmx.example.org 1; none"],
        );
    }

    #[test]
    fn in_other_names_and_elsewhere() {
        check("Authentication-Results: other.example.org; spf=pass\r\n\r\n", &[]);
        check("Authentication-Results: mx.example.org.evil; spf=pass\r\n\r\n", &[]);
        check("A: b\r\n\r\nAuthentication-Results: mx.example.org; spf=pass\r\n", &[]);
        check("Authentication-Results: (open mx.example.org\r\n\r\n", &[]);
        check("", &[]);
    }

    #[test]
    fn our_own_fields() {
        let symbols = "x-chainmail-SYMBOLS : none\r\n\tmore\r\n";
        let scan = "X-Chainmail-Scan: clean\r\n";
        let mail = format!("A: b\r\n{scan}{symbols}X-Chainmail: c\r\n{scan}To: c\r\n\r\n{scan}");
        check(&mail, &[&format!("{scan}{symbols}"), scan]);
        assert_eq!(Forged::find(mail.as_bytes(), "mx.example.org").results, 0, "a forwarder may have Chainmail, too");
    }

    #[test]
    fn more_than_an_envelope_can_hold() {
        let mail = "X-Chainmail-Scan: clean\r\nA: b\r\n".repeat(2 * CUTS);
        let cuts = Forged::find(mail.as_bytes(), "mx.example.org").cuts;
        assert_eq!(cuts.len(), CUTS);
        assert_eq!(cuts.last().map(|cut| cut.offset + cut.length), Some(mail.len() as u64 - 6));
    }

    #[test]
    fn behind_lines_that_are_no_fields() {
        let field = "Authentication-Results: mx.example.org; spf=pass\r\n";
        let odd = format!("\tfor <x>; forged\r\nSubject: x\r\nno colon\r\n two words: x\r\n: no name\r\n{field}\r\n");
        check(&odd, &[field]);
        assert_eq!(strays(odd.as_bytes()), 3);
        assert_eq!(strays(b"From a@b Tue Nov 24 12:00:00 2026\r\nA: b\r\n\r\nno field\r\n"), 0);
    }

    #[test]
    fn behind_a_line_of_an_mbox() {
        let field = "Authentication-Results: mx.example.org; spf=pass\r\n";
        check(&format!("From a@b Tue Nov 24 12:00:00 2026\r\n{field}\r\n"), &[field]);
    }
}
