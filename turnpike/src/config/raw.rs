//! What was written, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::keys::KEYS;
use super::value::Value;
use super::{Fault, Faults};

/// Beginning of the names of variables that configure Turnpike.
pub(crate) const PREFIX: &str = "TURNPIKE_";
/// The variable that names the file. It is no key of the file.
pub(crate) const FILE_VARIABLE: &str = "TURNPIKE_CONFIG";

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A line of the file.
    File(PathBuf, usize),
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// One key that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// Everything that was written, by key; the last layer wins. Keys may be unknown and values wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawConfig {
    pub(crate) entries: BTreeMap<String, Entry>,
    /// What could not even be read as keys and values.
    pub(crate) faults: Vec<Fault>,
}

impl RawConfig {
    /// Lays a file over what is there.
    ///
    /// # Errors
    /// The file cannot be read. What is wrong inside is told with everything else.
    pub(crate) fn file(&mut self, path: &Path) -> Result<(), Faults> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = match error.kind() {
                std::io::ErrorKind::NotFound => "does not exist".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            let text = format!("configuration file {} {what}", path.display());
            Faults(vec![Fault { origin: None, text }])
        })?;
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let origin = Some(Origin::File(path.to_owned(), line(&text, at)));
            self.faults.push(Fault {
                origin,
                text: format!("not TOML: {}", error.message()),
            });
        }
        let origin = |at| Origin::File(path.to_owned(), line(&text, at));
        self.table("", table.get_ref(), &origin);
        Ok(())
    }

    /// Lays variables over what is there: `TURNPIKE_LISTENERS__MQTT__ADDRESS` is
    /// `listeners.mqtt.address`.
    pub(crate) fn variables(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in variables {
            let Some(key) = name.strip_prefix(PREFIX).filter(|_| name != FILE_VARIABLE) else {
                continue;
            };
            let path = key.to_lowercase().replace("__", ".");
            let entry = Entry {
                value: Value::Loose(value),
                origin: Origin::Variable(name),
            };
            self.entries.insert(path, entry);
        }
    }

    /// Lays a flag over what is there.
    pub(crate) fn flag(&mut self, flag: &'static str, path: &str, value: impl Into<String>) {
        let value = Value::Loose(value.into());
        self.entries.insert(
            path.to_owned(),
            Entry {
                value,
                origin: Origin::Flag(flag),
            },
        );
    }

    fn table(&mut self, above: &str, table: &DeTable<'_>, origin: &impl Fn(usize) -> Origin) {
        for (key, value) in table {
            let name = key.get_ref();
            let path = if above.is_empty() {
                name.to_string()
            } else {
                format!("{above}.{name}")
            };
            let value = match value.get_ref() {
                DeValue::Table(inner) if !inner.is_empty() || is_table(&path) => {
                    self.table(&path, inner, origin);
                    continue;
                }
                DeValue::Table(_) => Value::Other("an empty table"),
                DeValue::String(text) => Value::Text(text.to_string()),
                DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                    .map_or(Value::Other("a number beyond 64 bits"), Value::Integer),
                DeValue::Boolean(value) => Value::Boolean(*value),
                DeValue::Float(_) => Value::Other("a number with a fraction"),
                DeValue::Datetime(_) => Value::Other("a date"),
                DeValue::Array(_) => Value::Other("a list"),
            };
            self.entries.insert(
                path,
                Entry {
                    value,
                    origin: origin(key.span().start),
                },
            );
        }
    }
}

/// Whether keys are known below this path.
pub(super) fn is_table(path: &str) -> bool {
    KEYS.iter().any(|key| {
        key.path
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// Line of a byte, from 1.
fn line(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}
