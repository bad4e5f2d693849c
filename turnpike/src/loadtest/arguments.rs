//! The arguments of `turnpike loadtest`. Where emqtt-bench has a flag for the same, its name is
//! understood as well.

use std::net::SocketAddr;
use std::path::PathBuf;

use ::loadtest::{Endpoint, Flow, QoS, Ready, TlsFiles, Version};
use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::writable;

/// Put load on a broker, Turnpike or another one, and check what arrives.
#[derive(Args, Debug)]
pub(crate) struct Loadtest {
    #[command(subcommand)]
    pub(super) what: What,
}

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Each publisher has a topic and a subscriber of its own.
    Pairs {
        #[command(flatten)]
        load: Load,
        /// Pairs of connections.
        #[arg(long, short = 'c', alias = "count", default_value_t = 100)]
        pairs: usize,
    },
    /// Many publishers, one topic, one subscriber.
    FanIn {
        #[command(flatten)]
        load: Load,
        /// Connections that publish.
        #[arg(long, short = 'c', alias = "count", default_value_t = 100)]
        publishers: usize,
    },
    /// One publisher, one topic, many subscribers.
    FanOut {
        #[command(flatten)]
        load: Load,
        /// Connections that subscribe.
        #[arg(long, short = 'c', alias = "count", default_value_t = 500)]
        subscribers: usize,
        /// Processes that hold them, for which a payload has 24 bytes at least if they are several
        /// [default: as many as descriptors demand].
        #[arg(long)]
        processes: Option<usize>,
    },
    /// Publishers, one topic, and a shared subscription whose members share the messages.
    Shared {
        #[command(flatten)]
        load: Load,
        /// Connections that publish.
        #[arg(long, default_value_t = 10)]
        publishers: usize,
        /// Members of the shared subscription.
        #[arg(long, short = 'c', alias = "count", default_value_t = 50)]
        members: usize,
    },
    /// A bit of everything at once, with connections that come and go beside it.
    Mixed {
        #[command(flatten)]
        broker: Broker,
        /// Compare every byte, and let a second decoder read every packet.
        #[arg(long)]
        strict: bool,
    },
    /// What a file in TOML says (docs/loadtest.md).
    Scenario {
        #[command(flatten)]
        broker: Broker,
        /// Compare every byte, and let a second decoder read every packet.
        #[arg(long)]
        strict: bool,
        /// The file.
        file: PathBuf,
    },
    /// Many connections with one subscription each; with --rate, messages to them.
    Connections(Connections),
    /// Connect, subscribe, disconnect, again and again.
    Churn(Churn),
    /// Everybody comes back at once, beside the messages of others.
    ReconnectStorm(Storm),
    /// Take a right away and give it back while messages flow. Needs Turnpike's control API.
    Revocation(Revocation),
    /// Show two results beside each other.
    Compare {
        /// A file that --json wrote.
        before: PathBuf,
        /// Another one, of the same load.
        after: PathBuf,
    },
    /// A bare relay to compare a broker with: it receives and sends, and reads nothing.
    Relay {
        /// Where it listens.
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:1884")]
        listen: SocketAddr,
    },
    /// A part of a load: started by other commands.
    #[command(hide = true)]
    Worker,
}

/// Which broker is loaded, as whom, and where the result goes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Broker {
    /// Where the broker listens: HOST:PORT, or mqtt://, mqtts://, ws:// or wss:// before it
    /// [default: 127.0.0.1:1883, or as the credentials say].
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["host", "port"])]
    pub(super) address: Option<String>,
    /// Host of the broker, as emqtt-bench has it.
    #[arg(long, value_name = "HOST")]
    pub(super) host: Option<String>,
    /// Port of the broker, as emqtt-bench has it.
    #[arg(long, short = 'p', value_name = "PORT")]
    pub(super) port: Option<u16>,
    /// TLS, as emqtt-bench has it; with --ws on top.
    #[arg(long, short = 'S')]
    pub(super) ssl: bool,
    /// WebSocket, as emqtt-bench has it.
    #[arg(long)]
    pub(super) ws: bool,
    /// Authority of the broker's certificate in PEM.
    #[arg(long, value_name = "FILE", alias = "cacertfile")]
    pub(super) tls_ca: Option<PathBuf>,
    /// Check nothing of the broker's certificate.
    #[arg(long)]
    pub(super) tls_insecure: bool,
    /// Certificate to show to the broker, in PEM.
    #[arg(long, value_name = "FILE", alias = "certfile")]
    pub(super) tls_certificate: Option<PathBuf>,
    /// Its private key in PEM.
    #[arg(long, value_name = "FILE", alias = "keyfile")]
    pub(super) tls_key: Option<PathBuf>,
    /// User name of all connections.
    #[arg(long, short = 'u', value_name = "NAME")]
    pub(super) username: Option<String>,
    /// Password of all connections.
    #[arg(long, short = 'P', value_name = "TEXT", requires = "username")]
    pub(super) password: Option<String>,
    /// File with the line that `turnpike serve --json` printed: connects as the demo clients, with
    /// topics below the demo channel; with --provision it names the control API and its
    /// administrator.
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    pub(super) credentials: Option<PathBuf>,
    /// Make a domain with a client for each connection and a channel for each topic, and remove it
    /// at the end.
    #[arg(long)]
    pub(super) provision: bool,
    /// Channels that are made at most; topics share them [default: one for each topic].
    #[arg(long, value_name = "N", requires = "provision")]
    pub(super) channels: Option<usize>,
    /// Control API, if no credentials name it.
    #[arg(long, value_name = "HOST:PORT", requires = "provision")]
    pub(super) api: Option<String>,
    /// Authority of its certificate in PEM, where --api is https://HOST:PORT; --api is needed for it
    /// beside --credentials as well.
    #[arg(long, value_name = "FILE", requires = "api")]
    pub(super) api_ca: Option<PathBuf>,
    /// Its administrator.
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub(super) admin: String,
    /// File with the administrator's password.
    #[arg(long, value_name = "FILE")]
    pub(super) admin_password_file: Option<PathBuf>,
    /// Keep what --provision makes, and write its clients and channels into this file.
    #[arg(long, value_name = "FILE", requires = "provision")]
    pub(super) save_clients: Option<PathBuf>,
    /// Connect as the clients of a file that --save-clients wrote for the same load.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["provision", "username"])]
    pub(super) clients_file: Option<PathBuf>,
    /// Without clients of its own: topics begin with this.
    #[arg(
        long,
        short = 't',
        alias = "topic",
        value_name = "TOPIC",
        default_value = "loadtest"
    )]
    pub(super) topic_prefix: String,
    /// Protocol version.
    #[arg(long, short = 'V', alias = "ver", value_enum, default_value_t = Mqtt::V311)]
    mqtt: Mqtt,
    /// Process of the broker on this machine, whose CPU time and memory are measured.
    #[arg(long)]
    pub(super) pid: Option<u32>,
    /// Also write the result as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Also write the result as one page of HTML with plots.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Show nothing while it runs.
    #[arg(long)]
    pub(super) quiet: bool,
}

#[derive(Args, Debug)]
pub(super) struct Load {
    #[command(flatten)]
    pub(super) broker: Broker,
    /// QoS of messages and subscriptions.
    #[arg(long, short = 'q', default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Bytes of a payload.
    #[arg(long, short = 's', alias = "size", default_value_t = 64)]
    payload: usize,
    /// Messages that a publisher sends with one system call.
    #[arg(long, default_value_t = 1)]
    burst: usize,
    /// Messages of a publisher that may be on their way [default: one burst, without bound with a
    /// rate].
    #[arg(long, short = 'F', alias = "inflight")]
    window: Option<usize>,
    /// Messages of all publishers in a second, sent by the clock; latency counts from the moment
    /// a message was meant to be sent [default: as fast as the window allows].
    #[arg(long)]
    rate: Option<f64>,
    /// Milliseconds between two messages of a publisher, as emqtt-bench has it: a rate.
    #[arg(
        long = "interval-of-msg",
        alias = "interval_of_msg",
        short = 'I',
        conflicts_with = "rate",
        value_name = "MS"
    )]
    interval_of_msg: Option<f64>,
    /// Topics in all [default: one for each pair, else one].
    #[arg(long)]
    topics: Option<usize>,
    /// Filters of each subscriber for each topic: one with a wildcard that matches, others that do
    /// not; 0 subscribes to the topic itself.
    #[arg(long, default_value_t = 0)]
    filters: usize,
    /// User Properties of each message, in MQTT 5.
    #[arg(long, default_value_t = 0)]
    properties: usize,
    /// Publishers take their topics at random instead of in turns.
    #[arg(long)]
    random: bool,
    /// How closely is looked at what arrives: usual looks at number, order, length and last byte;
    /// strict at every byte, and lets a second decoder (mqttbytes) read every packet.
    #[arg(long, value_enum, default_value_t = Verify::Usual)]
    verify: Verify,
    /// Seconds of load before the measurement.
    #[arg(long, default_value_t = 0.5)]
    pub(super) warm_up: f64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 3.0)]
    pub(super) duration: f64,
    /// Measure so many messages instead, without warming up.
    #[arg(long, short = 'L', alias = "limit")]
    pub(super) messages: Option<u64>,
}

/// Who connects, and how.
#[derive(Args, Debug)]
pub(super) struct Devices {
    /// How many connections.
    #[arg(long, short = 'c', alias = "count", default_value_t = 1000)]
    pub(super) connections: usize,
    /// Processes that hold them [default: as many as descriptors demand].
    #[arg(long)]
    pub(super) processes: Option<usize>,
    /// Connections in the making at the same time.
    #[arg(long, default_value_t = 512)]
    pub(super) together: usize,
    /// Connections begun in a second [default: as fast as it goes].
    #[arg(long, alias = "connrate", short = 'R')]
    connect_rate: Option<f64>,
    /// Milliseconds between two connections, as emqtt-bench has it: a rate.
    #[arg(long, short = 'i', conflicts_with = "connect_rate", value_name = "MS")]
    interval: Option<f64>,
    /// Keep Alive in seconds; 0 for none. A PINGREQ is sent twice in that time.
    #[arg(long, short = 'k', alias = "keepalive", default_value_t = 60)]
    pub(super) keep_alive: u16,
    /// Connections that another run of this command holds meanwhile: their source addresses are
    /// left to it.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) beside: usize,
}

#[derive(Args, Debug)]
pub(super) struct Connections {
    #[command(flatten)]
    pub(super) broker: Broker,
    #[command(flatten)]
    pub(super) devices: Devices,
    /// Seconds that they stay before memory is looked at.
    #[arg(long, default_value_t = 1.0)]
    pub(super) hold: f64,
    /// Then messages in a second to connections at random.
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// For so many seconds.
    #[arg(long, default_value_t = 10.0)]
    pub(super) duration: f64,
    /// Bytes of their payload.
    #[arg(long, short = 's', alias = "size", default_value_t = 64)]
    pub(super) payload: usize,
}

#[derive(Args, Debug)]
pub(super) struct Churn {
    #[command(flatten)]
    pub(super) broker: Broker,
    /// Clients that take turns.
    #[arg(long, short = 'c', alias = "count", default_value_t = 1000)]
    pub(super) clients: usize,
    /// Connections in the making at the same time.
    #[arg(long, default_value_t = 64)]
    pub(super) together: usize,
    /// Connections begun in a second, by the clock [default: as fast as it goes].
    #[arg(long, alias = "connrate", short = 'R')]
    pub(super) rate: Option<f64>,
    /// QoS of the subscriptions.
    #[arg(long, short = 'q', default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(super) qos: u8,
    /// Filters that each subscribes to; with 0 it only connects.
    #[arg(long, default_value_t = 1)]
    pub(super) filters: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 3.0)]
    pub(super) duration: f64,
}

#[derive(Args, Debug)]
pub(super) struct Storm {
    #[command(flatten)]
    pub(super) broker: Broker,
    #[command(flatten)]
    pub(super) devices: Devices,
    /// Messages in a second that others send meanwhile, by the clock.
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// Pairs of connections that send them.
    #[arg(long, default_value_t = 10)]
    pub(super) pairs: usize,
    /// Seconds that they are measured before the first storm, and after the last.
    #[arg(long, default_value_t = 2.0)]
    pub(super) calm: f64,
    /// How often everybody goes and comes back.
    #[arg(long, default_value_t = 1)]
    pub(super) storms: usize,
}

#[derive(Args, Debug)]
pub(super) struct Revocation {
    #[command(flatten)]
    pub(super) broker: Broker,
    /// How often the right is taken.
    #[arg(long, short = 'c', alias = "count", default_value_t = 100)]
    pub(super) rounds: usize,
    /// Messages in a second meanwhile.
    #[arg(long, default_value_t = 10_000.0)]
    pub(super) rate: f64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mqtt {
    #[value(name = "3.1.1", alias = "4")]
    V311,
    #[value(name = "5")]
    V5,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Verify {
    Usual,
    Strict,
}

impl Devices {
    pub(super) fn connect_rate(&self) -> Option<f64> {
        self.connect_rate.or(self.interval.map(per_second))
    }
}

/// How many in a second, with so many milliseconds between two.
fn per_second(interval_ms: f64) -> f64 {
    1000.0 / interval_ms
}

impl Broker {
    /// Where the broker listens.
    ///
    /// # Errors
    /// What was given is no address, or the credentials cannot be read.
    pub(super) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        for file in self.json.iter().chain(&self.html) {
            writable(file)?;
        }
        let files = TlsFiles {
            ca: self.tls_ca.clone(),
            insecure: self.tls_insecure,
            certificate: self.tls_certificate.clone(),
            key: self.tls_key.clone(),
        };
        let scheme = match (self.ssl, self.ws) {
            (false, false) => "mqtt",
            (true, false) => "mqtts",
            (false, true) => "ws",
            (true, true) => "wss",
        };
        let address = match (&self.address, &self.host, self.port) {
            (Some(address), ..) if address.contains("://") && (self.ssl || self.ws) => {
                bail!("{address} names its transport: --ssl and --ws are for addresses without one")
            }
            (Some(address), ..) if address.contains("://") => address.clone(),
            (Some(address), ..) => format!("{scheme}://{address}"),
            (None, None, None) => match &self.credentials {
                Some(file) => match Ready::read(file)?.listeners.mqtt {
                    Some(address) => format!("{scheme}://{address}"),
                    None => bail!(
                        "{}: this process serves no MQTT; --address says where its broker does",
                        file.display()
                    ),
                },
                None => format!("{scheme}://127.0.0.1"),
            },
            (None, host, port) => {
                let host = host.as_deref().unwrap_or("127.0.0.1");
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                format!("{scheme}://{host}{port}")
            }
        };
        Ok(Endpoint::parse(&address, &files)?)
    }

    pub(super) fn version(&self) -> Version {
        match self.mqtt {
            Mqtt::V311 => Version::V311,
            Mqtt::V5 => Version::V5,
        }
    }

    /// Prints a result and writes its files.
    pub(super) fn show(
        &self,
        text: &impl std::fmt::Display,
        report: &impl Serialize,
    ) -> anyhow::Result<()> {
        println!("{text}");
        let value = serde_json::to_value(report)?;
        let write = |file: &PathBuf, text: String| {
            std::fs::write(file, text)
                .with_context(|| format!("{} cannot be written", file.display()))
        };
        if let Some(file) = &self.json {
            write(file, serde_json::to_string_pretty(&value)? + "\n")?;
        }
        match &self.html {
            Some(file) => write(file, ::loadtest::page(&value)),
            None => Ok(()),
        }
    }
}

impl Load {
    pub(super) fn strict(&self) -> bool {
        self.verify == Verify::Strict
    }

    /// The flow that was asked for, from the usual one of its shape.
    pub(super) fn flow(&self, usual: Flow) -> anyhow::Result<Flow> {
        let every = self.interval_of_msg.map(per_second);
        let rate = self
            .rate
            .or(every.map(|rate| rate * usual.publishers as f64));
        let window = match (self.window, rate) {
            (None, None) => Some(self.burst),
            (window, _) => window,
        };
        Ok(Flow {
            version: self.broker.version(),
            qos: QoS::from_bits(self.qos).context("a QoS is 0, 1 or 2")?,
            payload_bytes: self.payload,
            topics: self.topics.unwrap_or(usual.topics),
            burst: self.burst,
            window,
            rate,
            filters: self.filters,
            properties: self.properties,
            random: self.random,
            ..usual
        })
    }
}
