//! Typed reading of the merged tree: each value is asked for by key, and what does not fit is noted.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use akis_model::Pattern;
use url::Url;

use super::schema::{self, Place};
use super::source::{Node, Origin, Value};
use super::units;

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    place: String,
    message: String,
    /// The file could not be read, or not as a whole.
    is_of_file: bool,
}

impl Mistake {
    pub(super) fn new(place: impl fmt::Display, message: String) -> Self {
        Self { place: place.to_string(), message, is_of_file: false }
    }

    pub(super) fn at(key: &str, origin: &Origin, message: String) -> Self {
        Self::new(format!("{key} ({origin})"), message)
    }

    pub(super) fn of_file(place: impl fmt::Display, message: String) -> Self {
        Self { is_of_file: true, ..Self::new(place, message) }
    }

    /// Whether it may be why the configuration lacks what this section is for: something there was refused, or the file was.
    pub fn may_hide(&self, section: &str) -> bool {
        let rest = self.place.strip_prefix(section);
        self.is_of_file || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ' ']))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The tree, and the mistakes found in it so far.
pub(super) struct Reader {
    root: BTreeMap<String, Node>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Reader {
    pub(super) fn new(root: BTreeMap<String, Node>, mistakes: Vec<Mistake>) -> Self {
        Self { root, mistakes }
    }

    /// Notes a mistake in the value of `key`, naming who set it.
    pub(super) fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let mistake = match self.node(key) {
            Some(node) => Mistake::at(key, &node.origin, message.into()),
            None => Mistake::new(key, message.into()),
        };
        self.mistakes.push(mistake);
    }

    /// The names in a table, or none.
    pub(super) fn names(&self, key: &str) -> Vec<String> {
        match self.node(key).map(|node| &node.value) {
            Some(Value::Table(table)) => table.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a key or table is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        debug_assert_eq!(schema::place(key), Place::Key, "{key} is missing in the table of keys");
        match self.node(key)?.value.clone() {
            Value::Text(text) => Some(text),
            other => self.no(key, &other, "must be text in quotes"),
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        match self.node(key)?.value.clone() {
            Value::Boolean(truth) => Some(truth),
            Value::Text(text) if self.is_bare(key) && text == "true" => Some(true),
            Value::Text(text) if self.is_bare(key) && text == "false" => Some(false),
            other => self.no(key, &other, "must be true or false"),
        }
    }

    /// A whole number of any width, inside `range`.
    pub(super) fn number<T>(&mut self, key: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        let value = self.node(key)?.value.clone();
        let number = match &value {
            Value::Integer(number) => Some(*number),
            Value::Text(text) if self.is_bare(key) => text.parse().ok(),
            _ => None,
        };
        match number.and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                let rule = format!("must be a whole number from {} to {}", range.start(), range.end());
                self.no(key, &value, &rule)
            }
        }
    }

    pub(super) fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let value = self.node(key)?.value.clone();
        let parsed = match &value {
            Value::Text(text) => units::parse_duration(text),
            _ => None,
        };
        let Some(duration) = parsed else {
            return self.no(key, &value, "must be a duration such as \"250ms\", \"20s\" or \"1h\"");
        };
        if range.contains(&duration) {
            return Some(duration);
        }
        let (low, high) = (units::render_duration(*range.start()), units::render_duration(*range.end()));
        self.no(key, &value, &format!("must be from {low} to {high}"))
    }

    pub(super) fn size(&mut self, key: &str, range: RangeInclusive<usize>) -> Option<usize> {
        let value = self.node(key)?.value.clone();
        let parsed = match &value {
            Value::Text(text) => units::parse_size(text).and_then(|bytes| usize::try_from(bytes).ok()),
            _ => None,
        };
        let Some(bytes) = parsed else {
            return self.no(key, &value, "must be a size such as \"64KiB\" or \"1MiB\"");
        };
        if range.contains(&bytes) {
            return Some(bytes);
        }
        let (low, high) = (units::render_size(*range.start()), units::render_size(*range.end()));
        self.no(key, &value, &format!("must be from {low} to {high}"))
    }

    pub(super) fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let text = self.text(key)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => self.no(
                key,
                &Value::Text(text),
                "must be an IP address with a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"",
            ),
        }
    }

    /// An address of another server. It is not echoed: it may hold a password.
    pub(super) fn url(&mut self, key: &str, schemes: &[&str]) -> Option<String> {
        let text = self.text(key)?;
        let choice = schemes.join("://, ");
        let wrong = match Url::parse(&text) {
            Err(error) => Some(format!("is no URL: {error}")),
            Ok(url) if !schemes.contains(&url.scheme()) => Some(format!("must begin with one of {choice}://")),
            Ok(url) if url.host_str().is_none_or(str::is_empty) => Some("is a URL without a host".to_owned()),
            Ok(_) => None,
        };
        match wrong {
            None => Some(text),
            Some(message) => {
                self.refuse(key, message);
                None
            }
        }
    }

    /// A list of texts; from a variable or a flag separated by commas.
    pub(super) fn list(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.node(key)?.value.clone();
        let items = match &value {
            Value::Text(text) if self.is_bare(key) => {
                Some(text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
            }
            Value::List(items) => items
                .iter()
                .map(|item| match &item.value {
                    Value::Text(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        match items {
            Some(items) => Some(items),
            None => self.no(key, &value, "must be a list of texts, such as [\"a\", \"b\"]"),
        }
    }

    /// A list of channel patterns.
    pub(super) fn patterns(&mut self, key: &str) -> Option<Vec<String>> {
        let items = self.list(key)?;
        for item in &items {
            if let Err(error) = Pattern::parse(item) {
                self.refuse(key, error.to_string());
            }
        }
        Some(items)
    }

    /// The tables of an array of tables.
    pub(super) fn tables(&mut self, key: &str) -> Vec<(String, BTreeMap<String, Node>)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.refuse(key, format!("must be tables in the file: [[{key}]]"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (i, item) in items.clone().into_iter().enumerate() {
            match item.value {
                Value::Table(table) => tables.push((format!("{key}[{i}] ({})", item.origin), table)),
                _ => self.mistakes.push(Mistake::at(key, &item.origin, "must be a table".to_owned())),
            }
        }
        tables
    }

    fn node(&self, key: &str) -> Option<&Node> {
        let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &self.root;
        for name in tables.split('.').filter(|name| !name.is_empty()) {
            match &table.get(name)?.value {
                Value::Table(inner) => table = inner,
                _ => return None,
            }
        }
        table.get(last)
    }

    /// Whether the value came as bare text, so that numbers and lists have to be read out of it.
    fn is_bare(&self, key: &str) -> bool {
        self.node(key).is_some_and(|node| matches!(node.origin, Origin::Variable(_) | Origin::Flag(_)))
    }

    fn no<T>(&mut self, key: &str, value: &Value, rule: &str) -> Option<T> {
        let shown = match value {
            // A secret is none the less one without its quotes.
            _ if schema::is_secret(key) => "this".to_owned(),
            Value::Text(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(truth) => truth.to_string(),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Other(what) => (*what).to_owned(),
        };
        self.refuse(key, format!("{rule}, not {shown}"));
        None
    }
}
