//! Configuration: a file, `TURNPIKE_…` variables over it, flags over both.
//!
//! What people write is a [`RawConfig`]: keys with a value and a place. It becomes a [`Config`] only
//! as a whole; every fault is told at once, with its key, its place and what is accepted. Only the
//! [`Config`] travels.

mod keys;
mod raw;
mod value;

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use raw::{Origin, RawConfig};

use raw::is_table;

use keys::KEYS;

/// The checked configuration, defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) demo: bool,
    pub(crate) shards: usize,
    pub(crate) shutdown_grace: Duration,
    pub(crate) sys_interval: Duration,
    pub(crate) log_filter: String,
    pub(crate) log_json: bool,
    pub(crate) mqtt: MqttListener,
    pub(crate) api: ApiListener,
    pub(crate) admin_username: String,
    pub(crate) database_url: Option<String>,
    pub(crate) limits: broker::Limits,
}

/// Where MQTT clients come in.
#[derive(Clone, Debug)]
pub(crate) struct MqttListener {
    pub(crate) address: SocketAddr,
    /// Whether topics outside `m/…` go to the open namespace.
    pub(crate) open: bool,
    /// Whether peers that nobody knows are admitted to the open namespace.
    pub(crate) anonymous: bool,
}

/// Where the control API, health and metrics are served.
#[derive(Clone, Debug)]
pub(crate) struct ApiListener {
    pub(crate) address: SocketAddr,
    /// Whether it may listen without TLS where others can read along.
    pub(crate) insecure: bool,
}

impl Default for Config {
    fn default() -> Config {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Config {
            data_dir: PathBuf::from("./turnpike-data"),
            demo: true,
            shards: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(64)),
            shutdown_grace: Duration::from_secs(10),
            sys_interval: Duration::from_secs(10),
            log_filter: "info".to_owned(),
            log_json: false,
            mqtt: MqttListener {
                address: loopback(1883),
                open: false,
                anonymous: false,
            },
            api: ApiListener {
                address: loopback(9000),
                insecure: false,
            },
            admin_username: "admin".to_owned(),
            database_url: None,
            limits: broker::Limits::default(),
        }
    }
}

impl Config {
    /// Checks everything that was written.
    ///
    /// # Errors
    /// Every key that is unknown and every value that is not accepted.
    pub(crate) fn check(raw: &RawConfig) -> Result<Config, Faults> {
        let mut faults = raw.faults.clone();
        let mut config = Config::default();
        for (path, entry) in &raw.entries {
            let Some(key) = KEYS.iter().find(|key| key.path == path) else {
                faults.push(unknown(path, &entry.origin));
                continue;
            };
            if (key.set)(&mut config, &entry.value).is_none() {
                faults.push(Fault {
                    origin: Some(entry.origin.clone()),
                    text: format!("{path} is {}; expected {}", entry.value, key.expected),
                });
            }
        }
        config.check_together(raw, &mut faults);
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(Faults(faults))
        }
    }

    /// Writes every key with its value and where that comes from, as a file that could be read back.
    pub(crate) fn show(&self, raw: &RawConfig) -> String {
        let mut text = String::new();
        let mut section = "";
        for key in KEYS {
            let Some(value) = (key.show)(self) else {
                continue;
            };
            let (table, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            if table != section {
                section = table;
                let _ = writeln!(text, "\n[{table}]");
            }
            let line = format!("{name} = {value}");
            let origin = raw
                .entries
                .get(key.path)
                .map_or_else(|| "default".to_owned(), |entry| entry.origin.to_string());
            let _ = writeln!(text, "{line:<40} # {origin}");
        }
        text
    }

    /// Rules between keys.
    fn check_together(&self, raw: &RawConfig, faults: &mut Vec<Fault>) {
        let mut fault = |path: &str, text: String| {
            let origin = raw.entries.get(path).map(|entry| entry.origin.clone());
            faults.push(Fault { origin, text });
        };
        if self.mqtt.anonymous && !self.mqtt.open {
            let path = "listeners.mqtt.anonymous";
            fault(
                path,
                format!(
                    "{path} is true without an open namespace; expected listeners.mqtt.open = true as well"
                ),
            );
        }
        if !self.api.address.ip().is_loopback() && !self.api.insecure {
            let (path, address) = ("listeners.api.address", self.api.address);
            fault(
                path,
                format!(
                    "{path} is {address}, where passwords and tokens would pass without TLS; expected a loopback address, or listeners.api.insecure = true behind a proxy that speaks TLS"
                ),
            );
        }
        let (mqtt, api) = (self.mqtt.address, self.api.address);
        if mqtt == api && mqtt.port() != 0 {
            fault(
                "listeners.api.address",
                format!(
                    "listeners.mqtt.address and listeners.api.address are both {mqtt}; expected two addresses"
                ),
            );
        }
        if self.limits.max_connect_packet_size > self.limits.max_packet_size {
            let path = "limits.max_connect_packet_size";
            let (connect, packet) = (
                self.limits.max_connect_packet_size,
                self.limits.max_packet_size,
            );
            fault(
                path,
                format!(
                    "{path} is {connect}; expected at most limits.max_packet_size, which is {packet}"
                ),
            );
        }
    }
}

/// One thing that is wrong, and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) origin: Option<Origin>,
    pub(crate) text: String,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_char('\n')?;
            }
            match &fault.origin {
                Some(origin) => write!(f, "{origin}: {}", fault.text)?,
                None => f.write_str(&fault.text)?,
            }
        }
        Ok(())
    }
}

fn unknown(path: &str, origin: &Origin) -> Fault {
    let last = path.rsplit('.').next().unwrap_or(path);
    let table = path.rsplit_once('.').map_or("", |(table, _)| table);
    // The nearest key by spelling, by its beginning, or by its last part.
    let near = KEYS
        .iter()
        .map(|key| {
            let same_end = key.path.rsplit('.').next() == Some(last);
            let near = same_end || key.path.starts_with(path) && !is_table(path);
            (if near { 1 } else { distance(path, key.path) }, key.path)
        })
        .min()
        .filter(|(distance, _)| *distance <= 3);
    let expected = match near {
        Some((_, path)) => format!("did you mean {path}?"),
        None => {
            let here = |key: &&keys::Key| {
                key.path.rsplit_once('.').map_or("", |(table, _)| table) == table
            };
            let known: Vec<_> = KEYS.iter().filter(here).map(|key| key.path).collect();
            let known = if known.is_empty() {
                KEYS.iter().map(|key| key.path).collect()
            } else {
                known
            };
            format!("expected one of {}", known.join(", "))
        }
    };
    Fault {
        origin: Some(origin.clone()),
        text: format!("{path} is no known key; {expected}"),
    }
}

/// Letters to insert, remove or change to come from one text to the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
