//! Parameters in pieces (RFC 2231 section 3): `name*0=a; name*1=b` is `name=ab`, and is told so in BODYSTRUCTURE
//! (section 6; RFC 9051 section 7.5.2), or each client would have to do the same.
//!
//! A value with a charset keeps its form in one piece: `name*=utf-8''a%20b` is what clients look for. Pieces that do
//! not make a whole are told as they came.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

type Parameter = (String, String);

/// A piece of a value.
#[derive(Clone, Copy)]
struct Piece<'a> {
    number: usize,
    /// Octets of it are written with `%`, and the first one begins with the charset.
    is_encoded: bool,
    value: &'a str,
}

/// The parameters, each in one piece, which stands where its first one stood.
pub(super) fn joined(parameters: &[Parameter]) -> Cow<'_, [Parameter]> {
    if !parameters.iter().any(|(name, _)| name.contains('*')) {
        return Cow::Borrowed(parameters);
    }
    let mut pieces: BTreeMap<&str, Vec<Piece<'_>>> = BTreeMap::new();
    for (name, value) in parameters {
        if let Some((base, number, is_encoded)) = read(name) {
            pieces.entry(base).or_default().push(Piece { number, is_encoded, value });
        }
    }
    let is_there = |name: &str| parameters.iter().any(|(other, _)| other == name);
    let whole = |(base, pieces)| Some((base, join(base, pieces)?)).filter(|(_, (name, _))| !is_there(name));
    let mut whole: BTreeMap<&str, Parameter> =
        pieces.iter().filter_map(|(base, pieces)| whole((*base, pieces))).collect();
    let is_whole: Vec<&str> = whole.keys().copied().collect();
    let one = |parameter: &Parameter| match read(&parameter.0) {
        Some((base, ..)) if is_whole.contains(&base) => whole.remove(base),
        _ => Some(parameter.clone()),
    };
    Cow::Owned(parameters.iter().filter_map(one).collect())
}

/// What `name*1*` says: the name, the number of the piece, and whether that is encoded.
fn read(name: &str) -> Option<(&str, usize, bool)> {
    let (name, is_encoded) = name.strip_suffix('*').map_or((name, false), |name| (name, true));
    let (base, number) = name.rsplit_once('*')?;
    let is_number = number == "0" || (!number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit()));
    Some((base, number.parse().ok().filter(|_| is_number)?, is_encoded))
}

/// The whole; none if a piece is missing, or is there twice, or nothing says in which charset it is.
fn join(base: &str, pieces: &[Piece<'_>]) -> Option<Parameter> {
    let mut pieces = pieces.to_vec();
    pieces.sort_by_key(|piece| piece.number);
    if pieces.iter().enumerate().any(|(at, piece)| piece.number != at) {
        return None;
    }
    if !pieces.iter().any(|piece| piece.is_encoded) {
        return Some((base.to_owned(), pieces.iter().map(|piece| piece.value).collect()));
    }
    pieces.first().filter(|first| first.is_encoded)?;
    let mut value = String::new();
    for piece in pieces {
        if piece.is_encoded { value.push_str(piece.value) } else { encode(&mut value, piece.value) }
    }
    Some((format!("{base}*"), value))
}

/// Writes a piece among others that are encoded.
fn encode(out: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`{|}~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into memory does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(parameters: &[(&str, &str)], want: &[(&str, &str)]) {
        let own = |list: &[(&str, &str)]| -> Vec<Parameter> {
            list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        assert_eq!(joined(&own(parameters)).into_owned(), own(want));
    }

    #[test]
    fn pieces_are_joined() {
        check(&[("x", "y"), ("name*1", "b"), ("name*0", "a"), ("z", "")], &[("x", "y"), ("name", "ab"), ("z", "")]);
        check(
            &[("name*0*", "utf-8''a%20"), ("name*1", "b c%"), ("name*2*", "%C3%A4")],
            &[("name*", "utf-8''a%20b%20c%25%C3%A4")],
        );
        check(&[("a*0", "1"), ("b*0*", "utf-8''2"), ("a*1", "3")], &[("a", "13"), ("b*", "utf-8''2")]);
        let many: Vec<(String, String)> = (0..12).map(|at| (format!("n*{at}"), at.to_string())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        check(&many, &[("n", "01234567891011")]);
    }

    #[test]
    fn what_makes_no_whole_stays_as_it_is() {
        for parameters in [
            &[("name*", "utf-8''a"), ("*", ""), ("x*y", "z")][..],
            &[("name*1", "b"), ("name*2", "c")],
            &[("name*0", "a"), ("name*2", "c")],
            &[("name*0", "a"), ("name*0", "b")],
            &[("name*1", "b"), ("name*01", "c")],
            &[("name*0", "a"), ("name*1*", "%20")],
            &[("name", "short"), ("name*0", "a"), ("name*1", "b")],
        ] {
            check(parameters, parameters);
        }
        // The short one is for those who do not know the other.
        check(
            &[("name", "short"), ("name*0*", "utf-8''a"), ("name*1", "b")],
            &[("name", "short"), ("name*", "utf-8''ab")],
        );
    }
}
