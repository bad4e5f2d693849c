//! A part of a load in a process of its own: what many connections need where a process may have
//! few descriptors. It reads an order and commands, one line of JSON each, and answers likewise.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use codec::mqtt::{ProtocolVersion, QoS};
use hdrhistogram::Histogram;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::dial::{Dial, Numbers};
use crate::endpoint::{Endpoint, TlsFiles};
use crate::error::Error;
use crate::load::{Kept, Load};
use crate::measure::own_cpu;
use crate::plan::{Flow, Plan};
use crate::report::histogram;
use crate::target::{Login, Target};
use crate::verify::Verdict;
use crate::wire::Wire;

/// What a worker is for.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) broker: String,
    pub(crate) tls: TlsFiles,
    /// Devices first, then publishers.
    pub(crate) logins: Vec<Login>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) first_serial: usize,
    /// Connections of all workers together, in whole source addresses: those that come back have
    /// other addresses, for the ports of those that ended are not free for a minute.
    pub(crate) stride: usize,
    pub(crate) v5: bool,
    pub(crate) qos: u8,
    pub(crate) devices: usize,
    /// Connections that send to the devices while there is traffic.
    pub(crate) publishers: usize,
    pub(crate) payload_bytes: usize,
    /// Seconds; 0 for none.
    pub(crate) keep_alive: u16,
}

/// What it shall do next.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Command {
    Connect { together: usize, per_s: Option<f64> },
    Drop,
    Hold { seconds: f64 },
    Traffic { rate: f64, seconds: f64 },
}

/// What it says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Told {
    /// So many are connected.
    Progress(u64),
    Done(Box<Done>),
    Failed(String),
}

/// What came out of one command. Latencies are values in ns with their counts.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Done {
    pub(crate) made: u64,
    pub(crate) failed: u64,
    pub(crate) why: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) latency: Vec<(u64, u64)>,
    pub(crate) kept: Kept,
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) verdict: Verdict,
    /// CPU time of the command, in us.
    pub(crate) own_cpu_us: u64,
}

/// Between two words about progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Ends this process with the one that started it: connections are not held for nobody.
///
/// # Errors
/// The system refuses.
pub fn end_with_parent() -> Result<(), Error> {
    let signal = Some(Signal::KILL);
    Ok(set_parent_process_death_signal(signal).map_err(std::io::Error::from)?)
}

/// Carries out what stands in `input` until it ends.
///
/// # Errors
/// The other end is gone. What goes wrong with the load is told to it instead.
pub fn worker(input: &mut dyn BufRead, output: &mut dyn Write) -> Result<(), Error> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line).map_err(|error| {
        Error::Plan(format!(
            "{error}; a worker is started by `turnpike loadtest` itself"
        ))
    })?;
    let mut worker = match Worker::new(order) {
        Ok(worker) => worker,
        Err(error) => return say(output, &Told::Failed(error.to_string())),
    };
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let command =
            serde_json::from_str(&line).map_err(|error| Error::Plan(error.to_string()))?;
        let began = own_cpu();
        let done = worker.carry_out(command, &mut |made| say(output, &Told::Progress(made)));
        let told = match done {
            Ok(mut done) => {
                done.own_cpu_us = own_cpu().saturating_sub(began).as_micros() as u64;
                Told::Done(Box::new(done))
            }
            Err(error) => Told::Failed(error.to_string()),
        };
        say(output, &told)?;
    }
}

fn say(output: &mut dyn Write, told: &Told) -> Result<(), Error> {
    let mut text = serde_json::to_string(told).map_err(std::io::Error::from)?;
    text.push('\n');
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

struct Worker {
    order: Order,
    plan: Plan,
    epoll: Option<OwnedFd>,
    wires: Vec<Wire>,
}

impl Worker {
    fn new(order: Order) -> Result<Worker, Error> {
        let target = Target {
            endpoint: Endpoint::parse(&order.broker, &order.tls)?,
            logins: order.logins.clone(),
            prefixes: order.prefixes.clone(),
            first_serial: order.first_serial,
        };
        let flow = Flow {
            version: version(order.v5),
            qos: QoS::from_bits(order.qos).unwrap_or(QoS::AtMostOnce),
            payload_bytes: order.payload_bytes,
            rate: Some(1.0),
            ..Flow::to_devices(order.publishers.max(1), order.devices)
        };
        flow.check()?;
        crate::limits::allow_descriptors(flow.connections())?;
        Ok(Worker {
            plan: Plan::new(flow, target),
            order,
            epoll: None,
            wires: Vec::new(),
        })
    }

    fn carry_out(
        &mut self,
        command: Command,
        progress: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<Done, Error> {
        match command {
            Command::Connect { together, per_s } => self.connect(together, per_s, progress),
            Command::Drop => {
                self.wires = Vec::new();
                Ok(Done::default())
            }
            Command::Hold { seconds } => self.hold(None, seconds),
            Command::Traffic { rate, seconds } => self.hold(Some(rate), seconds),
        }
    }

    fn connect(
        &mut self,
        together: usize,
        per_s: Option<f64>,
        progress: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<Done, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (target, flow) = (&self.plan.target, &self.plan.flows[0]);
        let dial = Dial {
            together,
            per_s,
            tolerant: true,
            keep_alive: self.order.keep_alive,
            ..Dial::new(target, flow.version, flow.qos)
        };
        let numbers = Numbers::Once {
            first: 0,
            count: self.order.devices,
        };
        let filters = |connection: usize| flow.filters_of(target, 0, connection);
        let mut told = Instant::now();
        let dialled = dial.connect(&epoll, numbers, &filters, &mut |made| {
            if told.elapsed() < PROGRESS_EVERY {
                return Ok(());
            }
            told = Instant::now();
            progress(made)
        })?;
        self.plan.target.first_serial += self.order.stride;
        self.wires = dialled.kept.into_iter().map(|dialed| dialed.wire).collect();
        self.epoll = Some(epoll);
        Ok(Done {
            made: dialled.made,
            failed: dialled.failed,
            why: dialled.why,
            seconds: dialled.took.as_secs_f64(),
            latency: sparse(&dialled.latency),
            ..Done::default()
        })
    }

    /// Keeps the connections, with messages to them at `rate`.
    fn hold(&mut self, rate: Option<f64>, seconds: f64) -> Result<Done, Error> {
        let Some(epoll) = self.epoll.take() else {
            return Err(Error::Plan("nothing is connected".into()));
        };
        let wires = std::mem::take(&mut self.wires);
        let mut plan = self.plan.clone();
        match rate {
            Some(rate) => plan.flows[0].rate = Some(rate),
            None => plan.flows.clear(),
        }
        let duration = Duration::try_from_secs_f64(seconds)
            .map_err(|_| Error::Plan("a number of seconds is expected".into()))?;
        let mut load = Load::over(&plan, 1, epoll, wires)?;
        // Twice in each Keep Alive, so that one may be late.
        load.watch_over(Duration::from_secs(self.order.keep_alive.into()) / 2);
        let first = load.sample()?;
        load.record(first, duration);
        load.begin();
        load.serve(duration)?;
        let latency = sparse(load.latency());
        load.finish()?;
        let (published, delivered, verdict) = load.carried();
        let (epoll, mut wires, kept) = load.into_wires();
        wires.truncate(self.order.devices);
        (self.epoll, self.wires) = (Some(epoll), wires);
        Ok(Done {
            seconds,
            latency,
            kept,
            published,
            delivered,
            verdict,
            ..Done::default()
        })
    }
}

fn version(v5: bool) -> ProtocolVersion {
    if v5 {
        ProtocolVersion::V5
    } else {
        ProtocolVersion::V311
    }
}

fn sparse(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram
        .iter_recorded()
        .map(|step| (step.value_iterated_to(), step.count_at_value()))
        .collect()
}

/// All of them in one histogram.
pub(crate) fn gather(all: &[Done]) -> Histogram<u64> {
    let mut whole = histogram();
    for (value, count) in all.iter().flat_map(|done| &done.latency) {
        whole.saturating_record_n(*value, *count);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_survive_the_way_from_a_worker() {
        let mut one = histogram();
        for ns in [1_000, 1_000, 50_000, 7_000_000] {
            one.saturating_record(ns);
        }
        let done = Done {
            latency: sparse(&one),
            ..Done::default()
        };
        let text = serde_json::to_string(&done).unwrap();
        let read: Done = serde_json::from_str(&text).unwrap();
        let whole = gather(&[read.clone(), read]);
        assert_eq!(whole.len(), 8);
        assert_eq!(whole.value_at_quantile(0.5), one.value_at_quantile(0.5));
        assert_eq!(whole.max(), one.max());
    }

    #[test]
    fn what_is_no_order_is_refused_and_a_bad_broker_is_told() {
        let mut out = Vec::new();
        assert!(worker(&mut &b"{}\n"[..], &mut out).is_err());
        let order = Order {
            broker: "http://x".into(),
            tls: TlsFiles::default(),
            logins: Vec::new(),
            prefixes: vec!["t".into()],
            first_serial: 0,
            stride: 0,
            v5: false,
            qos: 0,
            devices: 1,
            publishers: 1,
            payload_bytes: 64,
            keep_alive: 0,
        };
        let text = serde_json::to_string(&order).unwrap() + "\n";
        worker(&mut text.as_bytes(), &mut out).unwrap();
        let told: Told = serde_json::from_slice(&out).unwrap();
        assert!(matches!(told, Told::Failed(why) if why.contains("mqtt://")));
    }
}
