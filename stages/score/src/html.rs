//! What rules want of HTML: links with their texts, forms, scripts, images, and how much there is to read. A reader of
//! tags, not a browser: it never fails, and takes each byte once.

/// A link and what it pretends to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Where it leads, as written, without blanks around.
    pub target: String,
    /// What is shown for it; empty in plain text.
    pub shown: String,
}

/// A page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Its links.
    pub links: Vec<Link>,
    /// Characters to read.
    pub readable: usize,
    /// Images.
    pub images: usize,
    /// Forms.
    pub forms: usize,
    /// Fields for passwords.
    pub passwords: usize,
    /// Scripts, and event handlers.
    pub scripts: usize,
    /// Whether it leads elsewhere by itself.
    pub refreshes: bool,
    /// Characters of no width.
    pub invisible: usize,
}

/// Links looked at in one mail; what has more is spam or a list of links, and told by these.
const LINKS: usize = 500;

/// Reads a page.
pub fn read(page: &str) -> Page {
    let mut reader = Reader::default();
    let mut rest = page;
    while let Some(open) = rest.find('<') {
        reader.text(&rest[..open]);
        rest = &rest[open..];
        let length = if let Some(comment) = rest.strip_prefix("<!--") {
            comment.find("-->").map_or(rest.len(), |end| end + 7)
        } else if rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!') {
            let length = tag_length(rest);
            reader.tag(&rest[1..length]);
            length
        } else {
            reader.text("<");
            1
        };
        rest = &rest[length..];
    }
    reader.text(rest);
    reader.close_link();
    reader.page
}

/// Links of a plain text.
pub fn links_of_text(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    let mut rest = text;
    while let Some(found) = rest.find("://") {
        let scheme = ["https", "http"].into_iter().find(|scheme| ends_with(&rest[..found], scheme));
        let behind = &rest[found + 3..];
        let length = behind
            .find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | ')' | ']'))
            .unwrap_or(behind.len());
        if let Some(scheme) = scheme
            && links.len() < LINKS
        {
            let target = format!("{scheme}://{}", behind[..length].trim_end_matches(['.', ',', ';', '!', '?', '\'']));
            links.push(Link { target, shown: String::new() });
        }
        rest = &behind[length..];
    }
    links
}

fn ends_with(text: &str, word: &str) -> bool {
    let at = text.len().checked_sub(word.len()).filter(|&at| text.is_char_boundary(at));
    at.is_some_and(|at| text[at..].eq_ignore_ascii_case(word))
}

/// The length of the tag at the front, with its brackets; quoted values may hold brackets.
fn tag_length(text: &str) -> usize {
    let (mut quote, mut before) = (None, b'<');
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (None, b'"' | b'\'') if before == b'=' => quote = Some(byte),
            (None, b'>') => return at + 1,
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            before = byte;
        }
    }
    text.len()
}

#[derive(Default)]
struct Reader {
    page: Page,
    link: Option<Link>,
    /// Within these, text is not there to be read.
    unread: Option<&'static str>,
}

impl Reader {
    fn text(&mut self, text: &str) {
        if self.unread.is_some() {
            return;
        }
        let invisible = |c: char| matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}');
        self.page.invisible += text.chars().filter(|&c| invisible(c)).count();
        self.page.readable += text.chars().filter(|&c| !c.is_whitespace() && !invisible(c)).count();
        if let Some(link) = &mut self.link
            && link.shown.len() < 1000
        {
            link.shown.push_str(text);
        }
    }

    fn tag(&mut self, tag: &str) {
        let tag = tag.trim_end_matches('>');
        let name_length =
            tag.find(|c: char| c.is_whitespace() || (c == '/' && !tag.starts_with('/'))).unwrap_or(tag.len());
        let name = tag[..name_length].to_ascii_lowercase();
        if let Some(until) = self.unread {
            if name.strip_prefix('/') == Some(until) {
                self.unread = None;
            }
            return;
        }
        match name.as_str() {
            "a" | "area" => self.open_link(tag),
            "/a" => self.close_link(),
            "img" => self.page.images += 1,
            "form" => self.page.forms += 1,
            "input" => self.page.passwords += usize::from(attribute(tag, "type").eq_ignore_ascii_case("password")),
            "meta" => self.page.refreshes |= attribute(tag, "http-equiv").eq_ignore_ascii_case("refresh"),
            "script" => {
                self.page.scripts += 1;
                self.unread = Some("script");
            }
            "style" => self.unread = Some("style"),
            "title" => self.unread = Some("title"),
            _ => {}
        }
        if ["onload", "onclick", "onerror", "onmouseover"].iter().any(|event| !attribute(tag, event).is_empty()) {
            self.page.scripts += 1;
        }
    }

    fn open_link(&mut self, tag: &str) {
        self.close_link();
        let target = attribute(tag, "href");
        if !target.is_empty() {
            self.link = Some(Link { target: target.replace("&amp;", "&"), shown: String::new() });
        }
    }

    fn close_link(&mut self) {
        if let Some(mut link) = self.link.take()
            && self.page.links.len() < LINKS
        {
            link.shown = link.shown.trim().to_owned();
            self.page.links.push(link);
        }
    }
}

/// The value of an attribute of a tag, without quotes; empty when it is not there.
fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
    let mut from = 0;
    let lower = tag.to_ascii_lowercase();
    while let Some(found) = lower[from..].find(name) {
        let at = from + found;
        from = at + name.len();
        let begins = at > 0 && matches!(tag.as_bytes()[at - 1], b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'"' | b'\'');
        let Some(value) = tag[from..].trim_start().strip_prefix('=').filter(|_| begins) else { continue };
        let value = value.trim_start();
        let quote = value.chars().next().filter(|&c| c == '"' || c == '\'');
        return match quote {
            Some(quote) => value[1..].split(quote).next().unwrap_or_default().trim(),
            None => value.split(char::is_whitespace).next().unwrap_or_default(),
        };
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(target: &str, shown: &str) -> Link {
        Link { target: target.into(), shown: shown.into() }
    }

    #[test]
    fn links_with_what_they_show() {
        let page = read(
            "<p>Hi <A class=x HREF = 'http://a.example/?a=1&amp;b=>'>see\n<b>this</b></a> <a href=//b/>c<a name=x>",
        );
        assert_eq!(page.links, [link("http://a.example/?a=1&b=>", "see\nthis"), link("//b/", "c")]);
    }

    #[test]
    fn what_is_counted() {
        let page = read(
            "<style>p > b {}</style><script>if (a < b) {}</script><!-- <img> --><img src=x onerror=f()>\
             <form><input type=password></form><meta http-equiv=\"Refresh\" content=1>a &lt; 1 < 2\u{200b}",
        );
        let want = Page {
            readable: 8,
            images: 1,
            forms: 1,
            passwords: 1,
            scripts: 2,
            refreshes: true,
            invisible: 1,
            ..Page::default()
        };
        assert_eq!(page, want);
    }

    #[test]
    fn nothing_breaks_it() {
        for odd in [
            "<",
            "<a",
            "<a href",
            "<a href=",
            "<a href=\"",
            "<!--",
            "<!-->",
            "</",
            "é<é>",
            "<\u{200b}",
            "<a href='é",
            "<é=",
        ] {
            let _ = read(odd);
            let _ = links_of_text(odd);
        }
    }

    #[test]
    fn links_in_text() {
        let links = links_of_text("See HTTPS://a.example/x. (http://b.example) ftp://c://d é://e http://");
        assert_eq!(
            links.iter().map(|link| link.target.as_str()).collect::<Vec<_>>(),
            ["https://a.example/x", "http://b.example", "http://"]
        );
    }
}
