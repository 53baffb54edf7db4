//! Rules about structure, attachments, links and pages.

use std::net::IpAddr;

use super::{Rule, registered, rule, when};
use crate::facts::{Content, Facts};
use crate::html::Link;

/// What a computer runs when it is opened.
const PROGRAMS: [&str; 22] = [
    "exe", "scr", "pif", "com", "bat", "cmd", "vbs", "vbe", "js", "jse", "wsf", "wsh", "hta", "msi", "lnk", "cpl",
    "jar", "ps1", "reg", "iso", "img", "chm",
];
/// What is put in front of such an ending to look harmless.
const HARMLESS: [&str; 12] = ["pdf", "doc", "docx", "xls", "xlsx", "jpg", "jpeg", "png", "gif", "txt", "zip", "mp3"];
/// Hosts that hide where a link leads.
const SHORTENERS: [&str; 9] =
    ["bit.ly", "tinyurl.com", "goo.gl", "t.co", "is.gd", "ow.ly", "rebrand.ly", "cutt.ly", "rb.gy"];

pub(super) const RULES: &[Rule] = &[
    rule("UNPARSABLE", 3.0, "It cannot be parsed as a mail.", |facts| when(facts.content.is_none())),
    rule("PARTS_MANY", 1.5, "More than 200 parts.", |facts| seen(facts, |content| content.parts > 200)),
    rule("NESTED_DEEP", 1.5, "Mails within mails, more than five deep.", |facts| {
        seen(facts, |content| content.depth > 5)
    }),
    rule("ENCODING_BROKEN", 0.8, "A part whose encoding is broken.", |facts| seen(facts, |content| content.broken > 0)),
    rule("TEXT_HIDDEN", 1.2, "Plain ASCII text wrapped into base64.", |facts| {
        seen(facts, |content| content.hides_ascii)
    }),
    rule("EMPTY", 1.0, "Nothing to read and nothing attached.", |facts| {
        seen(facts, |content| {
            let nothing = content.page.as_ref().is_none_or(|page| page.readable == 0 && page.images == 0);
            nothing && content.text.trim().is_empty() && content.attachments.is_empty()
        })
    }),
    rule("ATTACHED_PROGRAM", 4.0, "A program is attached.", |facts| {
        attached(facts, |name| ending(name).is_some_and(|(_, end)| PROGRAMS.contains(&end.as_str())))
    }),
    rule("ATTACHED_DISGUISED", 3.0, "A program that ends like a document in front of its real ending.", |facts| {
        attached(facts, |name| {
            let Some((front, end)) = ending(name) else { return false };
            let before = ending(front).map(|(_, end)| end);
            PROGRAMS.contains(&end.as_str()) && before.is_some_and(|end| HARMLESS.contains(&end.trim_end()))
        })
    }),
    rule(
        "ATTACHED_NAME_TURNED",
        3.0,
        "An attachment whose name is written backwards or stretched to hide its end.",
        |facts| {
            attached(facts, |name| {
                name.contains(['\u{202e}', '\u{202d}', '\u{2066}', '\u{2067}']) || name.contains("          ")
            })
        },
    ),
    rule("ATTACHED_PAGE", 1.0, "A page is attached instead of shown.", |facts| {
        seen(facts, |content| content.attached_pages > 0)
    }),
    rule("LINK_ADDRESS", 2.0, "A link to a bare address.", |facts| {
        linked(facts, |link| {
            host(&link.target).is_some_and(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok())
        })
    }),
    rule("LINK_LIES", 2.5, "A link that shows another site than it leads to.", |facts| linked(facts, lies)),
    rule("LINK_USER", 2.0, "A link with a name in front of its host.", |facts| {
        linked(facts, |link| authority(&link.target).is_some_and(|authority| authority.contains('@')))
    }),
    rule("LINK_FOREIGN_SCRIPT", 0.8, "A link to a host in punycode.", |facts| {
        linked(facts, |link| {
            host(&link.target).is_some_and(|host| host.split('.').any(|label| label.starts_with("xn--")))
        })
    }),
    rule("LINK_PORT", 1.0, "A link to an unusual port.", |facts| {
        linked(facts, |link| port(&link.target).is_some_and(|port| !matches!(port, "80" | "443" | "")))
    }),
    rule("LINK_SHORTENED", 0.7, "A link that hides where it leads behind a shortener.", |facts| {
        linked(facts, |link| host(&link.target).is_some_and(|host| SHORTENERS.contains(&host.as_str())))
    }),
    rule("LINK_RUNS", 3.0, "A link that runs something: javascript: or data:.", |facts| {
        linked(facts, |link| {
            let scheme = link.target.split(':').next().unwrap_or_default();
            ["javascript", "vbscript", "data"].iter().any(|word| scheme.eq_ignore_ascii_case(word))
        })
    }),
    rule("PAGE_ONLY", 0.5, "A page without a text beside it.", |facts| {
        seen(facts, |content| content.page.is_some() && content.text.trim().is_empty())
    }),
    rule("PAGE_IMAGE", 1.2, "A page that is an image with hardly a word.", |facts| {
        seen(facts, |content| content.page.as_ref().is_some_and(|page| page.images > 0 && page.readable < 50))
    }),
    rule("PAGE_FORM", 0.5, "A page with a form.", |facts| {
        seen(facts, |content| content.page.as_ref().is_some_and(|page| page.forms > 0))
    }),
    rule("PAGE_PASSWORD", 3.0, "A page that asks for a password.", |facts| {
        seen(facts, |content| content.page.as_ref().is_some_and(|page| page.passwords > 0))
    }),
    rule("PAGE_SCRIPT", 1.0, "A page with a script.", |facts| {
        seen(facts, |content| content.page.as_ref().is_some_and(|page| page.scripts > 0))
    }),
    rule("PAGE_REFRESH", 2.0, "A page that leads elsewhere by itself.", |facts| {
        seen(facts, |content| content.page.as_ref().is_some_and(|page| page.refreshes))
    }),
    rule("TEXT_SCATTERED", 1.0, "Characters of no width among the letters, one in fifty.", |facts| {
        let scattered = |content: &Content| {
            content.page.as_ref().is_some_and(|page| page.invisible > 20 && page.invisible * 50 > page.readable)
        };
        seen(facts, scattered)
    }),
];

fn seen(facts: &Facts, test: impl Fn(&Content) -> bool) -> Option<String> {
    when(facts.content.as_ref().is_some_and(test))
}

fn attached(facts: &Facts, test: impl Fn(&str) -> bool) -> Option<String> {
    facts.content.as_ref()?.attachments.iter().find(|name| test(name)).cloned()
}

fn linked(facts: &Facts, test: impl Fn(&Link) -> bool) -> Option<String> {
    facts.content.as_ref()?.links.iter().find(|link| test(link)).map(|link| link.target.clone())
}

/// A name and its ending, in lower case.
fn ending(name: &str) -> Option<(&str, String)> {
    let (front, end) = name.trim_end_matches([' ', '.']).rsplit_once('.')?;
    let end = end.to_ascii_lowercase();
    // A name that ends with a site or an address is not the name of a program.
    let is_site = end == "com" && front.contains([' ', '@']);
    (!is_site).then_some((front, end))
}

/// What stands between the slashes of a link.
fn authority(target: &str) -> Option<&str> {
    let behind = target.split_once("://").map_or_else(|| target.strip_prefix("//"), |(_, behind)| Some(behind))?;
    let authority = behind.split(['/', '?', '#', '\\']).next()?;
    (!authority.is_empty()).then_some(authority)
}

fn host(target: &str) -> Option<String> {
    let authority = authority(target)?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let end = if host.starts_with('[') {
        host.find(']').map_or(host.len(), |end| end + 1)
    } else {
        host.find(':').unwrap_or(host.len())
    };
    Some(host[..end].trim_end_matches('.').to_ascii_lowercase())
}

fn port(target: &str) -> Option<&str> {
    let (front, port) = authority(target)?.rsplit_once(':')?;
    (!front.ends_with(':') && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(port)
}

/// Whether what is shown is itself an address of a site, and another one.
fn lies(link: &Link) -> bool {
    let shown = link.shown.split_whitespace().next().unwrap_or_default();
    let shown_host = if shown.contains("://") {
        host(shown)
    } else {
        shown.starts_with("www.").then(|| shown.split('/').next().unwrap_or_default().to_ascii_lowercase())
    };
    match (shown_host, host(&link.target)) {
        (Some(shown), Some(real)) if shown.contains('.') => registered(&shown) != registered(&real),
        _ => false,
    }
}
