//! `turnpike loadtest`: from arguments to a plan, from its report to text and JSON.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::loadtest::{ConnectionsPlan, Plan, QoS, Shape, Target, Version};
use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

/// Put load on a broker, Turnpike or another one, and check what arrives.
#[derive(Args, Debug)]
pub(crate) struct Loadtest {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Each publisher has a topic and a subscriber of its own.
    Pairs {
        #[command(flatten)]
        load: Load,
        /// Pairs of connections.
        #[arg(long, default_value_t = 100)]
        pairs: usize,
    },
    /// Many publishers, one topic, one subscriber.
    FanIn {
        #[command(flatten)]
        load: Load,
        /// Connections that publish.
        #[arg(long, default_value_t = 100)]
        publishers: usize,
    },
    /// One publisher, one topic, many subscribers.
    FanOut {
        #[command(flatten)]
        load: Load,
        /// Connections that subscribe.
        #[arg(long, default_value_t = 500)]
        subscribers: usize,
    },
    /// Idle connections with one subscription each.
    Connections {
        #[command(flatten)]
        broker: Broker,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        connections: usize,
        /// Seconds that they stay before memory is looked at.
        #[arg(long, default_value_t = 1.0)]
        hold: f64,
    },
    /// A bare relay to compare a broker with: it receives and sends, and reads nothing.
    Relay {
        /// Where it listens.
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:1884")]
        listen: SocketAddr,
    },
}

/// Which broker is loaded, and where the result goes.
#[derive(Args, Debug)]
struct Broker {
    /// Where the broker listens [default: 127.0.0.1:1883, or as the credentials say].
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    /// File with the line that `turnpike serve --json` printed: connects as the demo clients, with
    /// topics below the demo channel.
    #[arg(long, value_name = "FILE", conflicts_with = "topic_prefix")]
    credentials: Option<PathBuf>,
    /// Without credentials: topics begin with this.
    #[arg(long, value_name = "TOPIC", default_value = "loadtest")]
    topic_prefix: String,
    /// Protocol version.
    #[arg(long, value_enum, default_value_t = Mqtt::V311)]
    mqtt: Mqtt,
    /// Process of the broker on this machine, whose CPU time and memory are measured.
    #[arg(long)]
    pid: Option<u32>,
    /// Also write the result as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Load {
    #[command(flatten)]
    broker: Broker,
    /// QoS of messages and subscriptions.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Messages that a publisher sends with one system call.
    #[arg(long, default_value_t = 1)]
    burst: usize,
    /// Messages of a publisher that may be on their way [default: one burst].
    #[arg(long)]
    window: Option<usize>,
    /// Seconds of load before the measurement.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 3.0)]
    duration: f64,
    /// Measure so many messages instead, without warming up.
    #[arg(long)]
    messages: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mqtt {
    #[value(name = "3.1.1")]
    V311,
    #[value(name = "5")]
    V5,
}

/// Does what the arguments say.
///
/// # Errors
/// The load could not be put on the broker, or something was wrong with what arrived.
pub(crate) fn run(arguments: Loadtest) -> anyhow::Result<()> {
    match arguments.what {
        What::Pairs { load, pairs } => {
            let plan = load.plan(Shape::Pairs, pairs, pairs)?;
            measure(&plan, load.broker.json.as_deref())
        }
        What::FanIn { load, publishers } => {
            let plan = load.plan(Shape::FanIn, publishers, 1)?;
            measure(&plan, load.broker.json.as_deref())
        }
        What::FanOut { load, subscribers } => {
            let plan = load.plan(Shape::FanOut, 1, subscribers)?;
            measure(&plan, load.broker.json.as_deref())
        }
        What::Connections {
            broker,
            connections,
            hold,
        } => {
            let plan = ConnectionsPlan {
                target: broker.target()?,
                version: broker.version(),
                count: connections,
                hold: seconds(hold)?,
                pid: broker.pid,
            };
            let report = ::loadtest::connections(&plan)?;
            println!("{report}");
            write_json(broker.json.as_deref(), &report)
        }
        What::Relay { listen } => Ok(::loadtest::relay(listen)?),
    }
}

fn measure(plan: &Plan, json: Option<&Path>) -> anyhow::Result<()> {
    let report = ::loadtest::run(plan)?;
    println!("{report}");
    write_json(json, &report)?;
    if !report.verdict.is_clean() {
        bail!("not everything arrived as it was sent");
    }
    Ok(())
}

fn write_json(file: Option<&Path>, report: &impl Serialize) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(file, text + "\n")
        .with_context(|| format!("{} cannot be written", file.display()))
}

fn seconds(number: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(number).context("a number of seconds is wanted")
}

impl Broker {
    fn target(&self) -> anyhow::Result<Target> {
        let mut target = match &self.credentials {
            Some(file) => Target::demo(file)?,
            None => Target::anonymous(DEFAULT_ADDRESS, &self.topic_prefix),
        };
        if let Some(address) = self.address {
            target.address = address;
        }
        Ok(target)
    }

    fn version(&self) -> Version {
        match self.mqtt {
            Mqtt::V311 => Version::V311,
            Mqtt::V5 => Version::V5,
        }
    }
}

const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1883);

impl Load {
    fn plan(&self, shape: Shape, publishers: usize, subscribers: usize) -> anyhow::Result<Plan> {
        Ok(Plan {
            version: self.broker.version(),
            qos: QoS::from_bits(self.qos).context("a QoS is 0, 1 or 2")?,
            payload_bytes: self.payload,
            publishers,
            subscribers,
            burst: self.burst,
            window: self.window.unwrap_or(self.burst),
            warm_up: seconds(self.warm_up)?,
            duration: seconds(self.duration)?,
            messages: self.messages,
            pid: self.broker.pid,
            ..Plan::new(shape, self.broker.target()?)
        })
    }
}
