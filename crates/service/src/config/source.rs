//! Where values come from: the file, the environment, flags, merged into one tree that remembers each origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::Mistake;
use super::schema::{self, Place};

/// The file that is read when none is named and it is there.
const DEFAULT_FILE: &str = "akis.toml";

/// What every variable begins with.
const VARIABLE_PREFIX: &str = "AKIS_";

/// Variables with the prefix that are no configuration: the token of `publish` and `tail`.
const OTHER_VARIABLES: [&str; 1] = ["AKIS_TOKEN"];

/// A name that differs from another one in so many letters is that one misspelled.
const SLIP: usize = 2;

/// Everything that a configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named by `--config`; without it `akis.toml` in the working directory, when it is there.
    pub file: Option<PathBuf>,
    /// The environment: names and values. Names that do not begin with `AKIS_` are ignored.
    pub environment: Vec<(String, String)>,
    /// Flags that stand for keys.
    pub flags: Vec<Flag>,
    /// What a command has in the place of the defaults: keys and values as flags have them.
    pub defaults: Vec<(&'static str, &'static str)>,
}

/// A flag that was given and stands for a key.
#[derive(Debug, Clone)]
pub struct Flag {
    /// How the user knows it: `--listen`.
    pub name: &'static str,
    /// The key that it overrides: `gateway.listen`.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

/// Who set a value.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// The file, and a line counted from 1.
    File(Arc<Path>, usize),
    /// A variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value and who set it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// A value before anybody asked for a type.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// A date, a fraction: nothing that any key takes.
    Other(&'static str),
}

/// Reads all sources. What is wrong with their form, and unknown names, go to `mistakes`.
pub(super) fn read(sources: &Sources, mistakes: &mut Vec<Mistake>) -> BTreeMap<String, Node> {
    let mut root = read_file(sources.file.as_deref(), mistakes);
    refuse_unknown(&root, "", mistakes);
    for (name, value) in &sources.environment {
        if let Some(path) = variable_path(name, value) {
            set(&mut root, &path, Origin::Variable(name.clone()), value, mistakes);
        }
    }
    for (key, value) in &sources.defaults {
        if !has(&root, key) {
            set(&mut root, key, Origin::Flag("default"), value, mistakes);
        }
    }
    for flag in &sources.flags {
        set(&mut root, flag.key, Origin::Flag(flag.name), &flag.value, mistakes);
    }
    root
}

fn read_file(named: Option<&Path>, mistakes: &mut Vec<Mistake>) -> BTreeMap<String, Node> {
    let path: Arc<Path> = named.unwrap_or(Path::new(DEFAULT_FILE)).into();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => {
            mistakes.push(Mistake::of_file(path.display(), format!("cannot be read: {error}")));
            return BTreeMap::new();
        }
    };
    let file = File { path, text: &text };
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        // Only the message: the text around it could hold a secret.
        let at = error.span().map_or(0, |span| span.start);
        mistakes.push(Mistake::of_file(file.origin(at), format!("no TOML: {}", error.message().replace('\n', ", "))));
    }
    file.table(table.get_ref())
}

struct File<'a> {
    path: Arc<Path>,
    text: &'a str,
}

impl File<'_> {
    fn origin(&self, at: usize) -> Origin {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        Origin::File(Arc::clone(&self.path), 1 + before.iter().filter(|byte| **byte == b'\n').count())
    }

    fn table(&self, table: &DeTable<'_>) -> BTreeMap<String, Node> {
        table.iter().map(|(name, value)| (name.get_ref().to_string(), self.node(name.span().start, value))).collect()
    }

    fn node(&self, at: usize, value: &Spanned<DeValue<'_>>) -> Node {
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                .map_or(Value::Other("a number out of range"), Value::Integer),
            DeValue::Boolean(truth) => Value::Boolean(*truth),
            DeValue::Float(_) => Value::Other("a fraction"),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.node(item.span().start, item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { origin: self.origin(at), value }
    }
}

/// Takes out of the file's tree nothing, but says which of its names no key has.
fn refuse_unknown(table: &BTreeMap<String, Node>, above: &str, mistakes: &mut Vec<Mistake>) {
    for (name, node) in table {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match (schema::place(&path), &node.value) {
            (Place::Unknown, _) => {
                let near = schema::nearest(&path);
                mistakes.push(Mistake::at(&path, &node.origin, format!("unknown key, did you mean {near}?")));
            }
            (Place::Table, Value::Table(inner)) => refuse_unknown(inner, &path, mistakes),
            (Place::Table, _) => mistakes.push(Mistake::at(&path, &node.origin, "must be a table".to_owned())),
            (Place::Key, _) => {}
        }
    }
}

fn has(root: &BTreeMap<String, Node>, path: &str) -> bool {
    let (name, below) = path.split_once('.').unwrap_or((path, ""));
    match root.get(name).map(|node| &node.value) {
        Some(Value::Table(table)) if !below.is_empty() => has(table, below),
        found => found.is_some(),
    }
}

/// Puts a text at `path`, over whatever was there.
fn set(root: &mut BTreeMap<String, Node>, path: &str, origin: Origin, value: &str, mistakes: &mut Vec<Mistake>) {
    let unknown = match schema::place(path) {
        Place::Key => None,
        Place::Table => {
            Some(format!("is a table and no variable: those of its keys begin with {}__", variable_name(path)))
        }
        Place::Unknown => Some(format!("unknown variable, did you mean {}?", nearest_variable(path))),
    };
    if let Some(message) = unknown {
        mistakes.push(Mistake::new(origin, message));
        return;
    }
    let (tables, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut table = root;
    for name in tables.split('.').filter(|name| !name.is_empty()) {
        let empty = || Node { origin: origin.clone(), value: Value::Table(BTreeMap::new()) };
        let node = table.entry(name.to_owned()).or_insert_with(empty);
        if !matches!(node.value, Value::Table(_)) {
            // The file has something else here, which was reported already.
            *node = empty();
        }
        let Value::Table(inner) = &mut node.value else { return };
        table = inner;
    }
    table.insert(last.to_owned(), Node { origin, value: Value::Text(value.to_owned()) });
}

/// The key that a variable stands for; `None` when it is not meant for us.
fn variable_path(name: &str, value: &str) -> Option<String> {
    let rest = name.strip_prefix(VARIABLE_PREFIX)?;
    if OTHER_VARIABLES.contains(&name) || is_service_link(rest, value) {
        return None;
    }
    Some(rest.to_ascii_lowercase().replace("__", "."))
}

/// The name of a variable that `path` most likely means.
fn nearest_variable(path: &str) -> String {
    let name = variable_name(path);
    let other = OTHER_VARIABLES.iter().find(|other| schema::distance(&name, other) <= SLIP);
    other.map_or_else(|| variable_name(&schema::nearest_variable(path)), |other| (*other).to_owned())
}

/// How a key, or a table, is called in the environment.
fn variable_name(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// Kubernetes puts the address of every service into the environment, so a service called `akis` or `akis-gateway` sets
/// `AKIS_SERVICE_HOST`, `AKIS_GATEWAY_PORT_8080_TCP_ADDR` and the like.
/// Source: <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_service_link(rest: &str, value: &str) -> bool {
    let rest = format!("_{rest}");
    let port = |text: &str| text.starts_with("tcp://") || text.starts_with("udp://");
    rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || (rest.ends_with("_PORT") && port(value))
        || (rest.contains("_PORT_") && (rest.contains("_TCP") || rest.contains("_UDP")))
}

/// The id of a replica that was given none: the name of the host and a random end, so that two on one host differ.
pub(super) fn replica_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    let host = if host.is_empty() { "replica" } else { &host };
    format!("{host}-{:06x}", fastrand::u32(..1 << 24))
}
