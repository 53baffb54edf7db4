//! Reading one section of the configuration, field by field.
//!
//! Each field is read by one call that names its key, its default, its range and what it is for; from those calls come
//! the checked value, every mistake with its path, the printed form of a checked file, and the written reference. A
//! mistake never ends the reading: the default stands in for the value and the next field is looked at.

use std::cell::RefCell;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::{ByteSize, Problems, Span};

/// One field as it was read: the reference and the printed form of a configuration are made of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Keys from the top, joined by dots.
    pub path: String,
    /// What it is for, and how its default was chosen.
    pub doc: &'static str,
    /// What stands in for it when it is not written; empty if nothing does.
    pub default: String,
    /// What is allowed; empty if anything of its type is.
    pub range: String,
    /// What it is in this file.
    pub value: String,
}

/// What reading a whole file gave besides the values.
#[derive(Debug, Default)]
pub struct Sheet {
    /// Every mistake.
    pub problems: Problems,
    /// Every field, in the order of reading.
    pub entries: Vec<Entry>,
}

/// One section of the file, while it is being read.
#[derive(Debug)]
pub struct Section {
    path: String,
    rest: Map<String, Value>,
    sheet: Rc<RefCell<Sheet>>,
}

impl Section {
    /// The whole file.
    pub fn root(value: Value, sheet: Rc<RefCell<Sheet>>) -> Self {
        Self::new(String::new(), Some(value), sheet)
    }

    fn new(path: String, value: Option<Value>, sheet: Rc<RefCell<Sheet>>) -> Self {
        let rest = match value {
            Some(Value::Object(map)) => map,
            None | Some(Value::Null) => Map::new(),
            Some(other) => {
                let path = if path.is_empty() { "the file" } else { &path };
                sheet
                    .borrow_mut()
                    .problems
                    .add(path, format_args!("{} where keys and values were expected", kind(&other)));
                Map::new()
            }
        };
        Self { path, rest, sheet }
    }

    /// The path of a key of this section.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a mistake about a key of this section.
    pub fn wrong(&self, key: &str, text: impl Display) {
        self.sheet.borrow_mut().problems.add(&self.path(key), text);
    }

    /// Whether the file has this key here.
    pub fn has(&self, key: &str) -> bool {
        self.rest.contains_key(key)
    }

    /// The section below this key, empty if it is not written.
    pub fn section(&mut self, key: &str) -> Self {
        let value = self.rest.remove(key);
        Self::new(self.path(key), value, Rc::clone(&self.sheet))
    }

    /// The sections of the list below this key.
    pub fn sections(&mut self, key: &str) -> Vec<Self> {
        let items = match self.rest.remove(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.wrong(key, format_args!("{} where a list was expected", kind(&other)));
                Vec::new()
            }
        };
        let path = self.path(key);
        let item = |(index, value)| Self::new(format!("{path}[{index}]"), Some(value), Rc::clone(&self.sheet));
        items.into_iter().enumerate().map(item).collect()
    }

    /// A text of any kind.
    pub fn text(&mut self, key: &str, default: &str, doc: &'static str) -> String {
        self.parsed(key, default, doc)
    }

    /// A file or folder.
    pub fn file(&mut self, key: &str, default: &str, doc: &'static str) -> PathBuf {
        self.parsed(key, default, doc)
    }

    /// An address with its port.
    pub fn address(&mut self, key: &str, default: &str, doc: &'static str) -> SocketAddr {
        let text: String = self.parsed(key, default, doc);
        self.one_address(key, &text).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// A list of addresses with their ports.
    pub fn addresses(&mut self, key: &str, default: &[&str], doc: &'static str) -> Vec<SocketAddr> {
        let texts = self.texts(key, default, doc);
        texts.iter().filter_map(|text| self.one_address(key, text)).collect()
    }

    fn one_address(&self, key: &str, text: &str) -> Option<SocketAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            self.wrong(
                key,
                format_args!("{text:?} is not an address with its port, like 127.0.0.1:2525 or [::1]:2525"),
            );
        }
        address
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &str, default: &[&str], doc: &'static str) -> Vec<String> {
        let default: Vec<String> = default.iter().map(|&text| text.to_owned()).collect();
        let values = match self.rest.remove(key) {
            None | Some(Value::Null) => default.clone(),
            Some(Value::Array(items)) => items.iter().filter_map(|item| self.scalar(key, item)).collect(),
            Some(other) => {
                self.wrong(key, format_args!("{} where a list was expected, like [a, b]", kind(&other)));
                default.clone()
            }
        };
        self.note(key, doc, list(&default), String::new(), list(&values));
        values
    }

    /// A length of time, with its unit in the file.
    pub fn span(&mut self, key: &str, default: &str, range: RangeInclusive<&str>, doc: &'static str) -> Span {
        let bounds = read_default::<Span>(range.start())..=read_default::<Span>(range.end());
        self.within(key, default, bounds, doc)
    }

    /// A number of bytes, with its unit in the file.
    pub fn size(&mut self, key: &str, default: &str, range: RangeInclusive<&str>, doc: &'static str) -> ByteSize {
        let bounds = read_default::<ByteSize>(range.start())..=read_default::<ByteSize>(range.end());
        self.within(key, default, bounds, doc)
    }

    /// A whole number.
    pub fn count(&mut self, key: &str, default: u64, range: RangeInclusive<u64>, doc: &'static str) -> u64 {
        self.within(key, &default.to_string(), range, doc)
    }

    /// A number with a fraction.
    pub fn number(&mut self, key: &str, default: f64, range: RangeInclusive<f64>, doc: &'static str) -> f64 {
        self.within(key, &default.to_string(), range, doc)
    }

    /// `true` or `false`.
    pub fn switch(&mut self, key: &str, default: &str, doc: &'static str) -> bool {
        self.parsed(key, default, doc)
    }

    /// One of a few words.
    pub fn choice(&mut self, key: &str, words: &[&'static str], doc: &'static str) -> &'static str {
        let default = words.first().copied().unwrap_or_default();
        let text = self.rest.remove(key).and_then(|value| self.scalar(key, &value));
        let found = text.as_deref().map_or(Some(default), |text| words.iter().copied().find(|&word| word == text));
        if found.is_none() {
            self.wrong(key, format_args!("{:?} is not known: {}", text.unwrap_or_default(), words.join(", ")));
        }
        let value = found.unwrap_or(default);
        self.note(key, doc, default.to_owned(), words.join(", "), value.to_owned());
        value
    }

    /// Anything that can be read from one text.
    pub fn parsed<T: FromStr>(&mut self, key: &str, default: &str, doc: &'static str) -> T
    where
        T::Err: Display,
    {
        let (value, text) = self.read(key, default);
        self.note(key, doc, default.to_owned(), String::new(), text);
        value
    }

    /// All keys have been read: whatever is left is not known.
    pub fn finish(self) {
        for key in self.rest.keys() {
            self.wrong(key, "this key is not known here");
        }
    }

    fn within<T>(&mut self, key: &str, default: &str, range: RangeInclusive<T>, doc: &'static str) -> T
    where
        T: FromStr + PartialOrd + Display,
        T::Err: Display,
    {
        let (mut value, mut text): (T, String) = self.read(key, default);
        if !range.contains(&value) {
            self.wrong(key, format_args!("{text} is out of range: from {} to {}", range.start(), range.end()));
            (value, text) = (read_default(default), default.to_owned());
        }
        self.note(key, doc, default.to_owned(), format!("{} to {}", range.start(), range.end()), text);
        value
    }

    fn read<T: FromStr>(&mut self, key: &str, default: &str) -> (T, String)
    where
        T::Err: Display,
    {
        let Some(text) = self.rest.remove(key).and_then(|value| self.scalar(key, &value)) else {
            return (read_default(default), default.to_owned());
        };
        match text.parse() {
            Ok(value) => (value, text),
            Err(error) => {
                let shown = error.to_string();
                let quoted = if shown.contains(&text) { shown } else { format!("{text:?} cannot be read: {shown}") };
                self.wrong(key, quoted);
                (read_default(default), default.to_owned())
            }
        }
    }

    fn scalar(&self, key: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(answer) => Some(answer.to_string()),
            Value::Null => None,
            Value::Array(_) | Value::Object(_) => {
                self.wrong(key, format_args!("{} where one value was expected", kind(value)));
                None
            }
        }
    }

    fn note(&self, key: &str, doc: &'static str, default: String, range: String, value: String) {
        let path = self.path(key);
        self.sheet.borrow_mut().entries.push(Entry { path, doc, default, range, value });
    }
}

/// Defaults and bounds are written in the code in the same form as in the file, so they are read by the same parser.
fn read_default<T: FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("the default or bound {text:?} does not follow its own rules"))
}

fn list(values: &[String]) -> String {
    format!("[{}]", values.join(", "))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a section",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(file: Value, read: impl FnOnce(&mut Section), want: &[&str]) -> Vec<Entry> {
        let sheet = Rc::new(RefCell::new(Sheet::default()));
        let mut section = Section::root(file, Rc::clone(&sheet)).section("a");
        read(&mut section);
        section.finish();
        let sheet = sheet.borrow();
        assert_eq!(sheet.problems.lines(), want);
        sheet.entries.clone()
    }

    #[test]
    fn what_is_written_counts_else_the_default() {
        let entries = check(
            json!({"a": {"wait": "3s"}}),
            |section| {
                assert_eq!(section.span("wait", "8s", "0"..="1min", "d"), Span::seconds(3));
                assert_eq!(section.size("room", "25MiB", "1KiB"..="1GiB", "d"), ByteSize::mib(25));
                assert_eq!(section.count("workers", 4, 1..=64, "d"), 4);
                assert_eq!(section.addresses("listen", &["127.0.0.1:1"], "d").len(), 1);
            },
            &[],
        );
        assert_eq!((entries[0].path.as_str(), entries[0].value.as_str()), ("a.wait", "3s"));
        assert_eq!((entries[1].default.as_str(), entries[1].range.as_str()), ("25MiB", "1KiB to 1GiB"));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        check(
            json!({"a": {"wait": "30", "room": "2TiB", "workers": "many", "listen": ["x"], "odd": 1, "way": "up"}}),
            |section| {
                section.span("wait", "8s", "0"..="1min", "d");
                section.size("room", "25MiB", "1KiB"..="1GiB", "d");
                section.count("workers", 4, 1..=64, "d");
                section.addresses("listen", &[], "d");
                section.choice("way", &["left", "right"], "d");
            },
            &[
                "a.wait: \"30\" is not a length of time: write a number and its unit, like 30s, 5min or 250ms",
                "a.room: 2TiB is out of range: from 1KiB to 1GiB",
                "a.workers: \"many\" cannot be read: invalid digit found in string",
                "a.listen: \"x\" is not an address with its port, like 127.0.0.1:2525 or [::1]:2525",
                "a.way: \"up\" is not known: left, right",
                "a.odd: this key is not known here",
            ],
        );
    }

    #[test]
    fn a_section_of_the_wrong_kind_is_one_mistake() {
        check(json!({"a": [1]}), |_| {}, &["a: a list where keys and values were expected"]);
        check(
            json!({"a": {"b": {"c": 1}}}),
            |s| drop(s.text("b", "x", "d")),
            &["a.b: a section where one value was expected"],
        );
        check(
            json!({"a": {"b": 1}}),
            |s| assert!(s.sections("b").is_empty()),
            &["a.b: a number where a list was expected"],
        );
    }
}
