//! A part of a load in a process of its own: what many connections need where a process may have
//! few descriptors. It reads an order and commands, one line of JSON each, and answers likewise.

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use codec::mqtt::{ProtocolVersion, QoS};
use hdrhistogram::Histogram;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::bell::Bell;
use crate::crowd::{Carried, Others, Sender};
use crate::dial::{Dial, Numbers};
use crate::endpoint::{Endpoint, TlsFiles};
use crate::error::Error;
use crate::flow::Share;
use crate::load::{Kept, Load, run_number};
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
    /// Its devices hear what another process sends.
    pub(crate) hears: Option<Hearing>,
}

/// What is heard: all devices hear all topics.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Hearing {
    pub(crate) run: u32,
    pub(crate) topics: usize,
    pub(crate) burst: usize,
    pub(crate) filters: usize,
    pub(crate) strict: bool,
}

/// What it shall do next.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Command {
    Connect {
        together: usize,
        per_s: Option<f64>,
    },
    Drop,
    Hold {
        seconds: f64,
    },
    /// Connects who sends, is done with that, and waits for [`Command::Begin`].
    Traffic {
        rate: f64,
        seconds: f64,
    },
    /// All are connected: messages are sent now.
    Begin,
    /// Hears until the end; what follows is said meanwhile.
    Hear,
    /// Latencies are recorded meanwhile, in ns by the clock of the machine.
    Record {
        window: Range<u64>,
    },
    /// What was sent before these numbers, one for each stream, is lost if it has not come.
    GiveUp {
        before: Vec<u64>,
    },
    /// So much was sent on each stream, and that is all.
    End {
        sent: Vec<u64>,
    },
}

/// What it says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Told {
    /// So many are connected.
    Progress(u64),
    /// So much was heard.
    Carried(Carried),
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
pub fn worker(input: impl Read + Send + 'static, output: &mut dyn Write) -> Result<(), Error> {
    let (mut input, mut line) = (BufReader::new(input), String::new());
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
    let commands = Commands::read(input)?;
    while let Some(command) = commands.next()? {
        let began = own_cpu();
        let done = worker.carry_out(command, &commands, output);
        let told = match done {
            Ok(mut done) => {
                done.own_cpu_us = own_cpu().saturating_sub(began).as_micros() as u64;
                Told::Done(Box::new(done))
            }
            Err(error) => Told::Failed(error.to_string()),
        };
        say(output, &told)?;
    }
    Ok(())
}

/// What a worker is told, read by a thread of its own: it also listens while it hears.
pub(crate) struct Commands {
    lines: Receiver<Result<Command, String>>,
    /// Rings when something was told.
    bell: Bell,
}

/// Commands that wait to be carried out.
const COMMANDS_MAX: usize = 1024;

impl Commands {
    fn read(input: impl BufRead + Send + 'static) -> Result<Commands, Error> {
        let (tell, lines) = sync_channel(COMMANDS_MAX);
        let bell = Bell::new()?;
        let ring = bell.clone();
        std::thread::Builder::new()
            .name("commands".into())
            .spawn(move || {
                for line in input.lines() {
                    let command = line
                        .map_err(|error| error.to_string())
                        .and_then(|line| serde_json::from_str(&line).map_err(|e| e.to_string()));
                    if tell.send(command).is_err() {
                        return;
                    }
                    ring.ring();
                }
                drop(tell);
                ring.ring();
            })?;
        Ok(Commands { lines, bell })
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Waits for the next one; `None` if there will be none.
    fn next(&self) -> Result<Option<Command>, Error> {
        self.lines.recv().ok().transpose().map_err(Error::Plan)
    }

    /// The next one that is there.
    ///
    /// # Errors
    /// It is none, or there will be none.
    pub(crate) fn heard(&self) -> Result<Option<Command>, Error> {
        match self.lines.try_recv() {
            Ok(command) => command.map(Some).map_err(Error::Plan),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                Err(Error::Plan("whoever gives commands is gone".into()))
            }
        }
    }
}

pub(crate) fn say(output: &mut dyn Write, told: &Told) -> Result<(), Error> {
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
        let publishers = order.publishers.max(1);
        let usual = match &order.hears {
            Some(heard) => Flow {
                publishers,
                topics: heard.topics,
                burst: heard.burst,
                window: None,
                filters: heard.filters,
                ..Flow::fan_out(order.devices)
            },
            None => Flow::to_devices(publishers, order.devices),
        };
        // Those who only hear have a rate as well, which nobody begins to keep.
        let flow = Flow {
            version: version(order.v5),
            qos: QoS::from_bits(order.qos).unwrap_or(QoS::AtMostOnce),
            payload_bytes: order.payload_bytes,
            rate: Some(1.0),
            ..usual
        };
        flow.check()?;
        crate::limits::allow_descriptors(flow.connections())?;
        let strict = order.hears.as_ref().is_some_and(|heard| heard.strict);
        Ok(Worker {
            plan: Plan {
                strict,
                ..Plan::new(flow, target)
            },
            order,
            epoll: None,
            wires: Vec::new(),
        })
    }

    fn carry_out(
        &mut self,
        command: Command,
        commands: &Commands,
        output: &mut dyn Write,
    ) -> Result<Done, Error> {
        match command {
            Command::Connect { together, per_s } => self.connect(together, per_s, &mut |made| {
                say(output, &Told::Progress(made))
            }),
            Command::Drop => {
                self.wires = Vec::new();
                Ok(Done::default())
            }
            Command::Hold { seconds } => self.hold(None, seconds, || Ok(())),
            Command::Traffic { rate, seconds } => self.hold(Some(rate), seconds, || {
                say(output, &Told::Done(Box::default()))?;
                match commands.next()? {
                    Some(Command::Begin) => Ok(()),
                    _ => Err(Error::Plan("whoever gives commands is gone".into())),
                }
            }),
            Command::Hear => self.hear(commands, output),
            Command::Begin
            | Command::Record { .. }
            | Command::GiveUp { .. }
            | Command::End { .. } => Err(Error::Plan(
                "it was told how to go on with what it does not do".into(),
            )),
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
            // Where all are wanted, the first that is refused tells why.
            tolerant: self.order.hears.is_none(),
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

    /// Keeps the connections, with messages to them at `rate`, from when `begin` returns.
    fn hold(
        &mut self,
        rate: Option<f64>,
        seconds: f64,
        begin: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Done, Error> {
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
        let mut load = Load::over(&plan, 1, Share::Whole { run: run_number() }, epoll, wires)?;
        begin()?;
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

    /// Hears what another process sends.
    fn hear(&mut self, commands: &Commands, output: &mut dyn Write) -> Result<Done, Error> {
        let (Some(heard), Some(epoll)) = (&self.order.hears, self.epoll.take()) else {
            return Err(Error::Plan("nothing is connected".into()));
        };
        let (share, wires) = (
            Share::Heard { run: heard.run },
            std::mem::take(&mut self.wires),
        );
        let mut load = Load::over(&self.plan, 1, share, epoll, wires)?;
        load.join(Others::Sender(Sender::new(commands, output)))?;
        load.hear()?;
        let (_, delivered, verdict) = load.carried();
        Ok(Done {
            latency: sparse(load.latency()),
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
        assert!(worker(&b"{}\n"[..], &mut out).is_err());
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
            hears: None,
        };
        let text = serde_json::to_string(&order).unwrap() + "\n";
        worker(std::io::Cursor::new(text), &mut out).unwrap();
        let told: Told = serde_json::from_slice(&out).unwrap();
        assert!(matches!(told, Told::Failed(why) if why.contains("mqtt://")));
    }
}
