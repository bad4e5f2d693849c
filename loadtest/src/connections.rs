//! Very many connections: how fast they are made, what they cost, whether they live, and whether
//! messages still reach them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use codec::mqtt::{ProtocolVersion, QoS};
use serde::Serialize;

use crate::churn::Made;
use crate::dial::Dialled;
use crate::error::Error;
use crate::limits;
use crate::load::Kept;
use crate::measure::Machine;
use crate::plan::{Need, NeededRight};
use crate::report::{Latency, version_name};
use crate::squad::Squad;
use crate::target::Target;
use crate::timeline::{Moment, Sample, Timeline};
use crate::verify::Verdict;
use crate::wire::PER_ADDRESS;
use crate::worker::{Command, Done, Order, gather};

/// Connections with one subscription each.
#[derive(Clone, Debug)]
pub struct ConnectionsPlan {
    /// Which broker, as whom, below which topics.
    pub target: Target,
    /// Protocol version of all connections.
    pub version: ProtocolVersion,
    /// How many.
    pub count: usize,
    /// Processes that hold them; `None` for as many as descriptors demand.
    pub processes: Option<usize>,
    /// Connections in the making at the same time, in all processes together.
    pub together: usize,
    /// Connections begun in a second; `None` as fast as it goes.
    pub rate: Option<f64>,
    /// Keep Alive in seconds; 0 for none. Connections send a PINGREQ twice in that time.
    pub keep_alive: u16,
    /// How long they stay before memory is looked at.
    pub hold: Duration,
    /// Then messages in a second to connections taken at random, for how long.
    pub traffic: Option<(f64, Duration)>,
    /// Size of their payload.
    pub payload_bytes: usize,
    /// A process whose CPU time and memory are measured: the broker.
    pub pid: Option<u32>,
    /// The program that `loadtest worker` is an argument of.
    pub program: PathBuf,
}

/// What connections cost.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionsReport {
    /// What was done.
    pub shape: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Address of the broker with its scheme.
    pub broker_url: String,
    /// Protocol version: 3.1, 3.1.1 or 5.
    pub mqtt: &'static str,
    /// Processes that held them.
    pub processes: usize,
    /// How connecting went.
    #[serde(flatten)]
    pub made: Made,
    /// Resident memory of the broker before the first of them.
    pub rss_bytes_before: Option<u64>,
    /// Resident memory of the broker with all of them.
    pub rss_bytes: Option<u64>,
    /// Growth of the broker's resident memory for each.
    pub rss_bytes_per_connection: Option<f64>,
    /// Keep Alive in seconds.
    pub keep_alive: u16,
    /// What became of them while they were held.
    pub held: Held,
    /// Messages to them.
    pub traffic: Option<Traffic>,
    /// Limits of the system that stand in the way.
    pub missing: Vec<String>,
    /// How it went.
    pub timeline: Vec<Moment>,
}

/// Connections that were only held.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// How long.
    pub seconds: f64,
    /// Signs of life, and who was lost.
    #[serde(flatten)]
    pub kept: Kept,
    /// CPU time of the broker by time: 1 is one core.
    pub broker_cores: Option<f64>,
}

/// Messages to connections at random.
#[derive(Clone, Debug, Serialize)]
pub struct Traffic {
    /// Messages in a second that were intended.
    pub rate: f64,
    /// How long.
    pub seconds: f64,
    /// Messages sent.
    pub published: u64,
    /// Messages received.
    pub delivered: u64,
    /// From the intended moment of sending to receiving.
    pub latency: Option<Latency>,
    /// CPU time of the broker by time: 1 is one core.
    pub broker_cores: Option<f64>,
    /// Signs of life, and who was lost.
    #[serde(flatten)]
    pub kept: Kept,
    /// What was wrong.
    pub verdict: Verdict,
}

/// Channels one client of Turnpike may be connected to.
const CHANNELS_PER_CLIENT: usize = 10_000;

/// How connections are shared out: for each process its connections and its publishers.
fn parts(plan: &ConnectionsPlan) -> Result<Vec<(usize, usize)>, Error> {
    let publishers = |devices: usize| match plan.traffic {
        Some(_) => devices.div_ceil(CHANNELS_PER_CLIENT).next_power_of_two(),
        None => 0,
    };
    // Two publishers reach them.
    let most = limits::per_process()?;
    let processes = plan.processes.unwrap_or(plan.count.div_ceil(most)).max(1);
    // Even parts: the publishers of a process share its connections out among themselves.
    let each = plan.count.div_ceil(processes).next_multiple_of(2);
    let mut left = plan.count;
    let mut parts = Vec::new();
    while left > 0 {
        let devices = each.min(left);
        let count = publishers(devices);
        // A part that cannot be shared out evenly has one publisher for each connection too few.
        let count = if count > 0 && !devices.is_multiple_of(count) {
            1
        } else {
            count
        };
        parts.push((devices, count));
        left -= devices;
    }
    Ok(parts)
}

impl ConnectionsPlan {
    /// What it needs of the control side.
    ///
    /// # Errors
    /// The system does not tell its limits.
    pub fn need(&self) -> Result<Need, Error> {
        let mut need = Need {
            channels: self.count,
            ..Need::default()
        };
        let mut channel = 0;
        for (devices, publishers) in parts(self)? {
            for device in 0..devices {
                need.rights.push(NeededRight {
                    client: need.clients + device,
                    channel: channel + device,
                    publishes: false,
                });
                if publishers > 0 {
                    need.rights.push(NeededRight {
                        client: need.clients + devices + device * publishers / devices,
                        channel: channel + device,
                        publishes: true,
                    });
                }
            }
            need.clients += devices + publishers;
            channel += devices;
        }
        Ok(need)
    }

    /// # Errors
    /// What it asks for cannot be done.
    fn check(&self) -> Result<(), Error> {
        if self.count == 0 || self.together == 0 || self.processes == Some(0) {
            let why = "connections, those in the making and processes have to be 1 at least";
            return Err(Error::Plan(why.into()));
        }
        let rates = [self.rate, self.traffic.map(|(rate, _)| rate)];
        if rates
            .into_iter()
            .flatten()
            .any(|rate| !(0.001..=1e9).contains(&rate))
        {
            return Err(Error::Plan(
                "a rate is 0.001 to 1000000000 in a second".into(),
            ));
        }
        Ok(())
    }

    fn orders(&self, parts: &[(usize, usize)]) -> Vec<Order> {
        let mut orders = Vec::with_capacity(parts.len());
        let (mut client, mut channel, mut serial) = (0, 0, self.target.first_serial);
        let all: usize = parts.iter().map(|part| part.0 + part.1 + 1).sum();
        let stride = all.next_multiple_of(PER_ADDRESS);
        let own = self.target.prefixes.len() > 1 && self.target.logins.len() > 1;
        for (number, (devices, publishers)) in parts.iter().enumerate() {
            let connections = devices + publishers;
            let logins = self.target.logins_of(client..client + connections);
            let prefixes = if own {
                self.target.prefixes[channel..channel + devices].to_vec()
            } else {
                vec![format!("{}/{number}", self.target.prefixes[0])]
            };
            orders.push(Order {
                broker: self.target.endpoint.source.0.clone(),
                tls: self.target.endpoint.source.1.clone(),
                logins,
                prefixes,
                first_serial: serial,
                stride,
                v5: self.version.is_v5(),
                qos: QoS::AtMostOnce.as_u8(),
                devices: *devices,
                publishers: *publishers,
                payload_bytes: self.payload_bytes,
                keep_alive: self.keep_alive,
                hears: None,
            });
            (client, channel) = (client + connections, channel + devices);
            // Publishers come after the devices, of the same addresses.
            serial += connections + 1;
        }
        orders
    }

    fn missing(&self, processes: usize) -> Vec<String> {
        limits::missing(
            self.count,
            processes,
            self.target.endpoint.address.ip().is_loopback(),
        )
    }

    /// Starts its workers.
    ///
    /// # Errors
    /// What it asks for cannot be done.
    pub(crate) fn squad(&self) -> Result<Squad, Error> {
        self.check()?;
        Squad::start(&self.program, self.orders(&parts(self)?))
    }

    /// The command that lets each of `workers` connect its part.
    pub(crate) fn connect(&self, workers: usize) -> impl Fn(usize) -> Command {
        let together = (self.together / workers).max(1);
        let per_s = self.rate.map(|rate| rate / workers as f64);
        move |_| Command::Connect { together, per_s }
    }
}

/// Makes connections with one subscription each, holds them, and sends them messages.
///
/// # Errors
/// They cannot be made; the error says which limits of the system are in the way.
pub fn connections(
    plan: &ConnectionsPlan,
    watch: &mut dyn FnMut(&Moment),
) -> Result<ConnectionsReport, Error> {
    let parts = parts(plan)?;
    let missing = plan.missing(parts.len());
    let mut squad = plan.squad()?;
    let before = Sample::take(plan.pid, 0, 0)?;
    // How long it takes is not known before.
    let mut timeline = Timeline::new(before, Duration::from_secs(60));
    let connect = plan.connect(squad.len());
    let done = squad.carry_out(connect, Duration::ZERO, &mut |made| {
        note(&mut timeline, plan.pid, made, watch)
    });
    let done = done.map_err(|error| limits::explained(error, &missing))?;
    let after = Sample::take(plan.pid, 0, 0)?;
    let dialled = dialled(&done);
    let mut made = Made::new(&dialled, &before, &after);
    let own: u64 = done.iter().map(|done| done.own_cpu_us).sum();
    made.own_cpu_us_per_connection += own as f64 / dialled.made.max(1) as f64;
    let seconds = plan.hold.as_secs_f64();
    let all = dialled.made;
    let hold = squad.carry_out(|_| Command::Hold { seconds }, plan.hold, &mut |_| {
        note(&mut timeline, plan.pid, all, watch)
    })?;
    let held_at = Sample::take(plan.pid, 0, 0)?;
    let held = Held {
        seconds,
        kept: kept(&hold),
        broker_cores: cores(&after, &held_at),
    };
    let count = dialled.made.max(1) as f64;
    let (rss_before, rss) = (before.broker, held_at.broker);
    let grown = rss_before.zip(rss);
    let mut traffic = None;
    if let Some((rate, duration)) = plan.traffic {
        let each = rate / squad.len() as f64;
        let seconds = duration.as_secs_f64();
        let command = |_| Command::Traffic {
            rate: each,
            seconds,
        };
        // Nobody sends while others still connect: that would be in their latency.
        squad.carry_out(command, Duration::ZERO, &mut |_| {
            note(&mut timeline, plan.pid, all, watch)
        })?;
        let began = Sample::take(plan.pid, 0, 0)?;
        let done = squad.carry_out(|_| Command::Begin, duration, &mut |_| {
            note(&mut timeline, plan.pid, all, watch)
        })?;
        let end = Sample::take(plan.pid, 0, 0)?;
        let mut verdict = Verdict::default();
        done.iter().for_each(|done| verdict += done.verdict);
        traffic = Some(Traffic {
            rate,
            seconds,
            published: done.iter().map(|done| done.published).sum(),
            delivered: done.iter().map(|done| done.delivered).sum(),
            latency: Latency::of(&gather(&done)),
            broker_cores: cores(&began, &end),
            kept: kept(&done),
            verdict,
        });
    }
    Ok(ConnectionsReport {
        shape: "connections",
        machine: Machine::here(),
        broker_url: plan.target.endpoint.url(),
        mqtt: version_name(plan.version),
        processes: parts.len(),
        made,
        rss_bytes_before: rss_before.map(|usage| usage.rss_bytes),
        rss_bytes: rss.map(|usage| usage.rss_bytes),
        rss_bytes_per_connection: grown
            .map(|(before, after)| (after.rss_bytes as f64 - before.rss_bytes as f64) / count),
        keep_alive: plan.keep_alive,
        held,
        traffic,
        missing,
        timeline: timeline.moments,
    })
}

fn note(
    timeline: &mut Timeline,
    pid: Option<u32>,
    made: u64,
    watch: &mut dyn FnMut(&Moment),
) -> Result<(), Error> {
    if timeline.is_due(std::time::Instant::now()) {
        watch(&timeline.add(Sample::take(pid, made, made)?));
    }
    Ok(())
}

fn cores(before: &Sample, after: &Sample) -> Option<f64> {
    let seconds = (after.at - before.at).as_secs_f64().max(1e-9);
    let used = before.broker.zip(after.broker);
    used.map(|(before, after)| after.cpu().saturating_sub(before.cpu()).as_secs_f64() / seconds)
}

fn kept(all: &[Done]) -> Kept {
    let mut whole = Kept::default();
    for done in all {
        whole.pings += done.kept.pings;
        whole.pongs += done.kept.pongs;
        whole.lost += done.kept.lost;
    }
    whole
}

/// What all workers made.
pub(crate) fn dialled(all: &[Done]) -> Dialled {
    let slowest = all.iter().map(|done| done.seconds).fold(0.0, f64::max);
    Dialled {
        kept: Vec::new(),
        latency: gather(all),
        made: all.iter().map(|done| done.made).sum(),
        failed: all.iter().map(|done| done.failed).sum(),
        why: all.iter().find_map(|done| done.why.clone()),
        took: Duration::from_secs_f64(slowest),
    }
}

impl fmt::Display for ConnectionsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connections with a subscription each, MQTT {}, {} processes\n{}",
            self.mqtt, self.processes, self.made
        )?;
        if let Some((each, whole)) = self.rss_bytes_per_connection.zip(self.rss_bytes) {
            let mib = whole as f64 / f64::from(1 << 20);
            write!(
                f,
                "\n  memory         {each:.0} bytes for each, {mib:.1} MiB in all"
            )?;
        }
        let held = &self.held;
        write!(
            f,
            "\n  held           {:.1} s: {} lost, {} of {} PINGREQs answered",
            held.seconds, held.kept.lost, held.kept.pongs, held.kept.pings
        )?;
        if let Some(cores) = held.broker_cores {
            write!(f, ", {cores:.2} cores")?;
        }
        if let Some(traffic) = &self.traffic {
            write!(
                f,
                "\n  messages       {} of {} arrived at {} per second",
                traffic.delivered, traffic.published, traffic.rate
            )?;
            if let Some(cores) = traffic.broker_cores {
                write!(f, ", {cores:.2} cores")?;
            }
            if let Some(latency) = &traffic.latency {
                write!(f, "\n  latency        {latency}")?;
            }
            write!(f, "\n  verdict        {}", traffic.verdict)?;
        }
        for missing in &self.missing {
            write!(f, "\n  in the way     {missing}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    fn plan(count: usize, processes: Option<usize>, traffic: bool) -> ConnectionsPlan {
        ConnectionsPlan {
            target: Target::anonymous(Endpoint::tcp(([127, 0, 0, 1], 1).into()), "t"),
            version: ProtocolVersion::V311,
            count,
            processes,
            together: 64,
            rate: None,
            keep_alive: 0,
            hold: Duration::ZERO,
            traffic: traffic.then_some((10.0, Duration::from_secs(1))),
            payload_bytes: 64,
            pid: None,
            program: PathBuf::new(),
        }
    }

    #[test]
    fn connections_are_shared_out_whole_and_publishers_reach_each() {
        for (count, processes) in [(1, None), (7, Some(2)), (100, Some(3)), (40_000, None)] {
            for traffic in [false, true] {
                let plan = plan(count, processes, traffic);
                let parts = parts(&plan).unwrap();
                assert_eq!(parts.iter().map(|part| part.0).sum::<usize>(), count);
                let need = plan.need().unwrap();
                let sending = need.rights.iter().filter(|right| right.publishes).count();
                assert_eq!(sending, if traffic { count } else { 0 });
                assert_eq!(need.rights.len() - sending, count);
                for (devices, publishers) in parts {
                    assert_eq!(publishers == 0, !traffic);
                    assert!(publishers == 0 || devices % publishers == 0);
                    assert!(devices <= limits::PER_PROCESS);
                }
            }
        }
    }

    #[test]
    fn a_plan_without_connections_is_refused() {
        assert!(plan(0, None, false).check().is_err());
        assert!(plan(1, Some(0), false).check().is_err());
        let mut never = plan(1, None, false);
        never.rate = Some(0.0);
        assert!(never.check().unwrap_err().to_string().contains("rate"));
    }
}
