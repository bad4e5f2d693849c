//! Configuration: a file, `TURNPIKE_…` variables over it, flags over both.
//!
//! What people write is a [`RawConfig`]: keys with a value and a place. It becomes a [`Config`] only
//! as a whole; every fault is told at once, with its key, its place and what is accepted. Only the
//! [`Config`] travels.

#[macro_use]
mod key;
mod keys;
mod listeners;
mod oauth;
mod raw;
mod value;

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use listeners::{ApiListener, CoapListener, MqttListener};
pub(crate) use raw::{Origin, RawConfig};

use control_api::Database;
use raw::is_table;

use crate::feed::FeedSettings;

use keys::KEYS;

/// The checked configuration, defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) role: Role,
    pub(crate) feed: FeedSettings,
    pub(crate) demo: bool,
    pub(crate) shards: usize,
    pub(crate) own_descriptors: bool,
    /// Microseconds.
    pub(crate) shard_rest_us: u32,
    pub(crate) shutdown_grace: Duration,
    pub(crate) sys_interval: Duration,
    pub(crate) log_filter: String,
    pub(crate) log_json: bool,
    pub(crate) mqtt: MqttListener,
    pub(crate) mqtts: MqttListener,
    pub(crate) ws: MqttListener,
    pub(crate) wss: MqttListener,
    pub(crate) http: MqttListener,
    /// Origins of pages that may read answers over HTTP.
    pub(crate) http_cors_origins: Vec<String>,
    /// What is answered over HTTP as older servers do.
    pub(crate) http_compat: broker::HttpCompat,
    pub(crate) coap: CoapListener,
    pub(crate) coaps: CoapListener,
    pub(crate) quic: MqttListener,
    /// Silence after which a QUIC connection is over.
    pub(crate) quic_idle: Duration,
    pub(crate) api: ApiListener,
    pub(crate) admin_username: String,
    pub(crate) database: Option<Database>,
    pub(crate) control: control_api::ApiSettings,
    pub(crate) limits: broker::Limits,
}

/// Which half of Turnpike this process is.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// Both, joined by a pipe in memory.
    All,
    /// Users, rights and the API; brokers come over TLS.
    Control,
    /// Clients and messages; rights come from a control side elsewhere.
    Broker,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::from("./turnpike-data"),
            role: Role::All,
            feed: FeedSettings {
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9001)),
                connect: String::new(),
                certificate: None,
                key: None,
                ca: None,
            },
            demo: true,
            own_descriptors: false,
            shard_rest_us: 0,
            shards: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(64)),
            shutdown_grace: Duration::from_secs(10),
            sys_interval: Duration::from_secs(10),
            log_filter: "info".to_owned(),
            log_json: false,
            mqtt: MqttListener::on(1883, true),
            // With certificates.
            mqtts: MqttListener::on(8883, false),
            ws: MqttListener::on(8083, true),
            wss: MqttListener::on(8084, false),
            http: MqttListener::on(8008, true),
            http_cors_origins: Vec::new(),
            http_compat: broker::HttpCompat::default(),
            coap: CoapListener::on(5683),
            coaps: CoapListener::on(5684),
            // With certificates.
            quic: MqttListener::on(14567, false),
            quic_idle: Duration::from_secs(300),
            api: ApiListener {
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9000)),
                insecure: false,
                metrics_token_file: None,
                tls: listeners::Tls::default(),
            },
            admin_username: "admin".to_owned(),
            database: None,
            control: control_api::ApiSettings::default(),
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
            let (set, expected) = if let Some(key) = KEYS.iter().find(|key| key.path == path) {
                ((key.set)(&mut config, &entry.value), key.expected)
            } else if let Some((name, field)) = oauth::find(path) {
                let providers = &mut config.control.oauth;
                (
                    oauth::set(providers, name, field, &entry.value),
                    field.expected,
                )
            } else {
                faults.push(unknown(path, &entry.origin));
                continue;
            };
            if set.is_none() {
                faults.push(Fault {
                    origin: Some(entry.origin.clone()),
                    text: format!("{path} is {}; expected {expected}", entry.value),
                });
            }
        }
        config.settle(raw);
        config.check_together(raw, &mut faults);
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(Faults(faults))
        }
    }

    /// What follows from other keys where it was not written: TLS listeners are there with their
    /// certificates, and where the system is to choose one port it chooses all.
    fn settle(&mut self, raw: &RawConfig) {
        self.mqtts.enabled = !self.mqtts.tls.certificate.is_empty();
        self.wss.enabled = !self.wss.tls.certificate.is_empty();
        self.quic.enabled = !self.quic.tls.certificate.is_empty();
        if self.mqtt.address.port() == 0 {
            for (path, listener) in [
                ("listeners.mqtts.address", &mut self.mqtts),
                ("listeners.ws.address", &mut self.ws),
                ("listeners.wss.address", &mut self.wss),
                ("listeners.http.address", &mut self.http),
                ("listeners.quic.address", &mut self.quic),
            ] {
                if !raw.entries.contains_key(path) {
                    listener.address.set_port(0);
                }
            }
            for (path, listener) in [
                ("listeners.coap.address", &mut self.coap),
                ("listeners.coaps.address", &mut self.coaps),
            ] {
                if !raw.entries.contains_key(path) {
                    listener.address.set_port(0);
                }
            }
        }
    }

    /// The MQTT listeners that are there: name, and whether it speaks WebSocket.
    pub(crate) fn mqtt_listeners(
        &self,
    ) -> impl Iterator<Item = (&'static str, bool, &MqttListener)> {
        [
            ("mqtt", false, &self.mqtt),
            ("mqtts", false, &self.mqtts),
            ("ws", true, &self.ws),
            ("wss", true, &self.wss),
        ]
        .into_iter()
        .filter(|(_, _, listener)| listener.enabled)
    }

    /// Whether brokers in other processes are served.
    pub(crate) fn serves_brokers(&self) -> bool {
        self.role != Role::Broker && self.feed.has_certificate()
    }

    /// Whether any listener has the open namespace.
    pub(crate) fn is_open(&self) -> bool {
        let mut mqtt = self.mqtt_listeners();
        mqtt.any(|(_, _, listener)| listener.open) || (self.quic.enabled && self.quic.open)
    }

    /// Writes every key with its value and where that comes from, as a file that could be read back.
    pub(crate) fn show(&self, raw: &RawConfig) -> String {
        let mut text = String::new();
        let mut section = String::new();
        let keys = KEYS
            .iter()
            .filter_map(|key| Some((key.path.to_owned(), (key.show)(self)?)));
        let providers = self.control.oauth.iter().flat_map(oauth::shown);
        for (path, value) in keys.chain(providers) {
            let (table, name) = path.rsplit_once('.').unwrap_or(("", &path));
            if table != section {
                section = table.to_owned();
                let _ = writeln!(text, "\n[{table}]");
            }
            let line = format!("{name} = {value}");
            let origin = raw
                .entries
                .get(&path)
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
        for (name, listener) in [
            ("mqtt", &self.mqtt),
            ("mqtts", &self.mqtts),
            ("ws", &self.ws),
            ("wss", &self.wss),
            ("http", &self.http),
            ("quic", &self.quic),
        ] {
            for (path, text) in listener.faults(&format!("listeners.{name}")) {
                fault(&path, text);
            }
        }
        for (path, text) in self.coaps.tls.faults("listeners.coaps") {
            fault(&path, text);
        }
        if self.coap.enabled && self.coaps.enabled && self.coap.address == self.coaps.address {
            let address = self.coap.address;
            if address.port() != 0 {
                fault(
                    "listeners.coaps.address",
                    format!(
                        "listeners.coap.address and listeners.coaps.address are both {address}; expected two addresses"
                    ),
                );
            }
        }
        let files = [
            ("feed.certificate", &self.feed.certificate),
            ("feed.key", &self.feed.key),
            ("feed.ca", &self.feed.ca),
        ];
        let any = files.iter().any(|(_, file)| file.is_some());
        for (path, _) in files.iter().filter(|(_, file)| file.is_none()) {
            if any || self.role != Role::All {
                fault(
                    path,
                    format!(
                        "{path} is not set; the feed between processes needs feed.certificate, feed.key and feed.ca"
                    ),
                );
            }
        }
        if self.role == Role::Broker && self.feed.connect.is_empty() {
            fault(
                "feed.connect",
                "feed.connect is not set; expected host:port of the control side".to_owned(),
            );
        }
        for (path, text) in self.api.tls.faults("listeners.api") {
            fault(&path, text);
        }
        let sealed = self.api.tls.is_there() || self.api.insecure;
        if !self.api.address.ip().is_loopback() && !sealed {
            let (path, address) = ("listeners.api.address", self.api.address);
            fault(
                path,
                format!(
                    "{path} is {address}, where passwords and tokens would pass without TLS; expected a loopback address, listeners.api.certificate and listeners.api.key, or listeners.api.insecure = true behind a proxy that speaks TLS"
                ),
            );
        }
        if self.control.require_verified_email && self.control.mail.is_none() {
            let path = "control.require_verified_email";
            fault(
                path,
                format!("{path} is true without a way to send mail; expected control.mail as well"),
            );
        }
        for (path, text) in self.control.oauth.iter().flat_map(oauth::faults) {
            fault(&path, text);
        }
        if !self.control.oauth.is_empty() && self.control.return_urls.is_empty() {
            let path = "control.return_urls";
            fault(
                path,
                format!(
                    "{path} is not set; expected the page to which a login at a provider returns"
                ),
            );
        }
        let mut places: Vec<(&str, SocketAddr)> = self
            .mqtt_listeners()
            .map(|(name, _, listener)| (name, listener.address))
            .collect();
        if self.http.enabled {
            places.push(("http", self.http.address));
        }
        places.push(("api", self.api.address));
        for (at, (name, address)) in places.iter().enumerate() {
            let same = places[..at].iter().find(|(_, other)| other == address);
            if let Some((first, _)) = same.filter(|_| address.port() != 0) {
                fault(
                    &format!("listeners.{name}.address"),
                    format!(
                        "listeners.{first}.address and listeners.{name}.address are both {address}; expected two addresses"
                    ),
                );
            }
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
            let here =
                |key: &&key::Key| key.path.rsplit_once('.').map_or("", |(table, _)| table) == table;
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
