//! Whether a reply is the one that a script wants: lists with and without an order, variables that take their value
//! from the first reply they meet, message numbers that follow expunges.

use std::collections::BTreeMap;

use super::item::Item;

/// What `$names` stand for.
pub(super) type Variables = BTreeMap<String, Vec<u8>>;

/// What a comparison knows.
#[derive(Clone)]
pub(super) struct Known<'a> {
    pub variables: Variables,
    /// Where the messages are now that had the numbers 1, 2 and so on when the command was sent; zero: expunged.
    pub numbers: &'a [usize],
}

/// How the elements of a list are compared.
#[derive(Default)]
struct Rule {
    /// Elements that belong together, where their order does not matter.
    chain: Option<usize>,
    may_have_more: bool,
    ignored: Vec<Vec<u8>>,
    banned: Vec<Vec<u8>>,
}

/// Whether a reply is the wanted one. Variables get their values only if it is.
pub(super) fn fits(want: &[Item], got: &[Item], known: &mut Known<'_>) -> bool {
    let mut attempt = known.clone();
    // Text for people follows a status.
    let is_status = want.first().and_then(Item::octets).is_some_and(super::item::is_status);
    let got = if is_status { &got[..got.len().min(want.len())] } else { got };
    let fits = want.len() == got.len()
        && want.iter().zip(got).enumerate().all(|(at, (want_one, got_one))| {
            let rule = default_rule(want, at);
            one(want_one, got_one, rule, is_fetch(want) && at == 2, &mut attempt)
        });
    if fits {
        known.variables = attempt.variables;
    }
    fits
}

fn is_fetch(want: &[Item]) -> bool {
    want.get(1).is_some_and(|word| word.is("fetch"))
}

/// How a list at the top of a reply is compared where the script says nothing.
fn default_rule(want: &[Item], at: usize) -> Rule {
    let in_any_order = |chain| Rule { chain: Some(chain), may_have_more: true, ..Rule::default() };
    let first = |word: &str| want.first().is_some_and(|item| item.is(word));
    if at == 2 && (is_fetch(want) || first("status")) {
        in_any_order(2)
    } else if (first("list") || first("lsub")) && at == 1 {
        in_any_order(1)
    } else {
        Rule::default()
    }
}

fn one(want: &Item, got: &Item, rule: Rule, is_fetch: bool, known: &mut Known<'_>) -> bool {
    match (want, got) {
        (Item::Text(want), _) if want == b"$" => true,
        (Item::Text(want), Item::Text(got) | Item::Literal(got)) => text(want, got, known),
        (Item::Literal(want), Item::Text(got) | Item::Literal(got)) => want == got,
        (Item::List(want), Item::List(got)) => list(want, got, rule, is_fetch, known),
        _ => false,
    }
}

fn list(want: &[Item], got: &[Item], default: Rule, is_fetch: bool, known: &mut Known<'_>) -> bool {
    let directives = want.iter().take_while(|item| item.octets().is_some_and(|text| text.starts_with(b"$!"))).count();
    let rule = if directives == 0 { default } else { written(&want[..directives]) };
    let want = &want[directives..];
    let is_one_of = |list: &[Vec<u8>], item: &Item| {
        list.iter().any(|name| item.octets().is_some_and(|octets| octets.eq_ignore_ascii_case(name)))
    };
    if got.iter().any(|item| is_one_of(&rule.banned, item)) {
        return false;
    }
    let Some(chain) = rule.chain else {
        let enough = if rule.may_have_more { got.len() >= want.len() } else { got.len() == want.len() };
        return enough && want.iter().zip(got).all(|(want, got)| one(want, got, Rule::default(), false, known));
    };
    let mut left: Vec<&[Item]> = got.chunks(chain).collect();
    for links in want.chunks(chain) {
        let found = left.iter().position(|chunk| {
            let mut attempt = known.clone();
            let fits = chunk.len() == links.len()
                && links.iter().zip(*chunk).all(|(want, got)| {
                    let rule = if is_fetch && links[0].is("flags") { flags() } else { Rule::default() };
                    one(want, got, rule, false, &mut attempt)
                });
            if fits {
                known.variables = attempt.variables;
            }
            fits
        });
        let Some(found) = found else { return false };
        left.remove(found);
    }
    rule.may_have_more || left.iter().all(|chunk| is_one_of(&rule.ignored, &chunk[0]))
}

/// The flags of a FETCH: just these, in any order; whether a message is recent is not asked.
fn flags() -> Rule {
    Rule { chain: Some(1), ignored: vec![b"\\recent".to_vec()], ..Rule::default() }
}

fn written(directives: &[Item]) -> Rule {
    let mut rule = Rule::default();
    for directive in directives {
        let text = String::from_utf8_lossy(directive.octets().unwrap_or_default()).into_owned();
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        match name {
            "$!ordered" => rule.chain = None,
            "$!unordered" => {
                rule.chain = Some(if value.is_empty() { 1 } else { value.parse().unwrap() });
                rule.may_have_more = true;
            }
            "$!extra" => rule.may_have_more = true,
            "$!noextra" => rule.may_have_more = false,
            "$!ignore" => rule.ignored.push(value.as_bytes().to_vec()),
            "$!ban" => {
                rule.banned.push(value.as_bytes().to_vec());
                // A list in which something is banned may have other things in it.
                rule.may_have_more = true;
            }
            other => panic!("no directive: {other}"),
        }
    }
    rule
}

/// Compares a string. One that is nothing but a variable without a value gives it its value.
fn text(want: &[u8], got: &[u8], known: &mut Known<'_>) -> bool {
    match expand(want, &known.variables, Some(known.numbers)) {
        Ok(want) => want.eq_ignore_ascii_case(got),
        Err(name) => {
            let is_all = want == format!("${name}").as_bytes() || want == format!("${{{name}}}").as_bytes();
            if is_all {
                known.variables.insert(name, got.to_vec());
            }
            is_all
        }
    }
}

/// Puts values in for names; or the name that has none. `$$` is a dollar. Where messages may have moved, `$3` is where
/// the third one is.
pub(super) fn expand(text: &[u8], variables: &Variables, numbers: Option<&[usize]>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&octet| octet == b'$') {
        out.extend(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix(b"$") {
            out.push(b'$');
            rest = behind;
            continue;
        }
        let inner = rest.strip_prefix(b"{").unwrap_or(rest);
        let length = inner.iter().take_while(|octet| octet.is_ascii_alphanumeric() || **octet == b'_').count();
        let name = String::from_utf8_lossy(&inner[..length]).into_owned();
        rest = if inner.len() < rest.len() { &inner[length + 1..] } else { &inner[length..] };
        match (name.parse::<usize>(), numbers) {
            (Ok(number), Some(numbers)) => {
                let now = numbers.get(number - 1).copied().unwrap_or_default();
                out.extend(now.to_string().bytes());
            }
            _ => out.extend(variables.get(&name).ok_or(name)?),
        }
    }
    out.extend(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaptest::item::parse;

    /// Whether it fits, with `$two` known and the second of three messages expunged.
    #[track_caller]
    fn check(want: &str, got: &str, does: bool) -> Variables {
        let variables = Variables::from([("two".to_owned(), b"2".to_vec())]);
        let mut known = Known { variables, numbers: &[1, 0, 2] };
        assert_eq!(fits(&parse(want.as_bytes()), &parse(got.as_bytes()), &mut known), does, "{want} and {got}");
        known.variables
    }

    #[test]
    fn words_and_order() {
        check("search 1 2", "SEARCH 1 2", true);
        check("search 1 2", "SEARCH 2 1", false);
        check("search", "SEARCH 1", false);
        check("search", "SEARCH", true);
        check("thread (1 2)(3)", "THREAD (1 2)(3)", true);
        check("thread (1 2)(3)", "THREAD (1 2 3)", false);
        check("ok [unseen 1]", "OK [UNSEEN 1] the first", true);
        check("ok [unseen 1]", "OK [UNSEEN 2] the first", false);
        check("bye", "BYE see you", true);
        check("2 exists", "3 EXISTS", false);
    }

    #[test]
    fn lists_of_fetch_status_and_list() {
        check("1 fetch (flags (\\seen a) uid 4)", "1 FETCH (UID 4 FLAGS (a \\Recent \\Seen) X y)", true);
        check("1 fetch (flags (\\seen))", "1 FETCH (FLAGS (\\Seen \\Flagged))", false);
        check("1 fetch (flags (\\seen \\flagged))", "1 FETCH (FLAGS (\\Seen))", false);
        check("status m (messages 1)", "STATUS m (UNSEEN 2 MESSAGES 1)", true);
        check("status m (messages 1)", "STATUS m (UNSEEN 1 MESSAGES 2)", false);
        check("list () \"/\" m", "LIST (\\HasNoChildren) \"/\" m", true);
        check("list (\\noselect) \"/\" m", "LIST (\\HasNoChildren) \"/\" m", false);
        check("list ($!unordered $!ban=\\noselect \\a) / m", "LIST (\\b \\a) / m", true);
        check("list ($!unordered $!ban=\\noselect \\a) / m", "LIST (\\Noselect \\a) / m", false);
        check("1 fetch (x ($!unordered $!noextra $!ignore=c a b))", "1 FETCH (x (b a c))", true);
        check("1 fetch (x ($!unordered $!noextra a b))", "1 FETCH (x (b a c))", false);
        check("1 fetch (x $)", "1 FETCH (x (b a c))", true);
    }

    #[test]
    fn strings() {
        check("1 fetch (body[text] {2}\r\nab)", "1 FETCH (BODY[TEXT] \"ab\")", true);
        check("1 fetch (body[text] {2}\r\nab)", "1 FETCH (BODY[TEXT] {2}\r\naB)", false);
        check("x $$hello", "X $Hello", true);
    }

    #[test]
    fn variables_and_numbers() {
        assert_eq!(check("1 fetch (uid $new)", "1 FETCH (UID 77)", true)["new"], b"77");
        assert!(!check("1 fetch (uid $new x y)", "1 FETCH (UID 77)", false).contains_key("new"));
        check("1 fetch (uid $two)", "1 FETCH (UID 2)", true);
        check("1 fetch (uid $two)", "1 FETCH (UID 3)", false);
        check("x ${two}:$two", "X 2:2", true);
        check("x $new:$two", "X 1:2", false);
        check("$3 fetch (uid 1)", "2 FETCH (UID 1)", true);
        check("$2 fetch (uid 1)", "2 FETCH (UID 1)", false);
    }
}
