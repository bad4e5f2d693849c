//! Connect, subscribe, disconnect, again and again.

use std::fmt;
use std::time::{Duration, Instant};

use codec::mqtt::{ProtocolVersion, QoS};
use rustix::event::epoll;
use serde::Serialize;

use crate::dial::{Dial, Dialled, Numbers};
use crate::error::Error;
use crate::measure::Machine;
use crate::report::{Latency, version_name};
use crate::target::Target;
use crate::timeline::{Moment, Sample, Timeline};

/// Connections that come and go.
#[derive(Clone, Debug)]
pub struct ChurnPlan {
    /// Which broker, as whom, below which topics.
    pub target: Target,
    /// Protocol version.
    pub version: ProtocolVersion,
    /// QoS of the subscriptions.
    pub qos: QoS,
    /// Clients that take turns.
    pub clients: usize,
    /// Connections in the making at the same time.
    pub together: usize,
    /// Connections begun in a second, by the clock; `None` as fast as it goes.
    pub rate: Option<f64>,
    /// Filters of each connection; with 0 it only connects.
    pub filters: usize,
    /// How long.
    pub duration: Duration,
    /// A process whose CPU time and memory are measured: the broker.
    pub pid: Option<u32>,
}

/// What making connections cost.
#[derive(Clone, Debug, Serialize)]
pub struct ChurnReport {
    /// What was done.
    pub shape: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Address of the broker with its scheme.
    pub broker_url: String,
    /// Protocol version: 3.1, 3.1.1 or 5.
    pub mqtt: &'static str,
    /// Clients that took turns.
    pub clients: usize,
    /// Connections in the making at the same time.
    pub together: usize,
    /// Connections in a second that were intended.
    pub rate: Option<f64>,
    /// Filters of each connection.
    pub filters: usize,
    /// How connecting went.
    #[serde(flatten)]
    pub made: Made,
    /// How it went.
    pub timeline: Vec<Moment>,
}

/// Connections made in some time, and their cost.
#[derive(Clone, Debug, Serialize)]
pub struct Made {
    /// Connections made.
    pub connections: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Why the first of them failed.
    pub why: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Connections made in a second.
    pub connections_per_s: f64,
    /// CPU time of the broker for each.
    pub cpu_us_per_connection: Option<f64>,
    /// The part of it in user space.
    pub user_us_per_connection: Option<f64>,
    /// CPU time of this load generator for each.
    pub own_cpu_us_per_connection: f64,
    /// From the intended begin to the last answer.
    pub latency: Option<Latency>,
}

impl Made {
    pub(crate) fn new(dialled: &Dialled, before: &Sample, after: &Sample) -> Made {
        let count = dialled.made.max(1) as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count;
        let seconds = (after.at - before.at).as_secs_f64();
        let used = before.broker.zip(after.broker);
        Made {
            connections: dialled.made,
            failed: dialled.failed,
            why: dialled.why.clone(),
            seconds,
            connections_per_s: dialled.made as f64 / seconds,
            cpu_us_per_connection: used
                .map(|(before, after)| each(after.cpu().saturating_sub(before.cpu()))),
            user_us_per_connection: used
                .map(|(before, after)| each(after.user.saturating_sub(before.user))),
            own_cpu_us_per_connection: each(after.own_cpu.saturating_sub(before.own_cpu)),
            latency: Latency::of(&dialled.latency),
        }
    }
}

/// Makes and ends connections for a while; `watch` is told of each moment.
///
/// # Errors
/// The plan cannot be done, or the broker refuses a connection.
pub fn churn(plan: &ChurnPlan, watch: &mut dyn FnMut(&Moment)) -> Result<ChurnReport, Error> {
    if plan.clients == 0 || plan.together == 0 || plan.duration.is_zero() {
        let why = "clients, connections at the same time and the duration have to be 1 at least";
        return Err(Error::Plan(why.into()));
    }
    if plan.rate.is_some_and(|rate| !(0.001..=1e9).contains(&rate)) {
        let why = "a rate is 0.001 to 1000000000 connections in a second";
        return Err(Error::Plan(why.into()));
    }
    crate::limits::allow_descriptors(plan.together)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let dial = Dial {
        // Two connections of one client would take each other's place.
        together: plan.together.min(plan.clients),
        per_s: plan.rate,
        ..Dial::new(&plan.target, plan.version, plan.qos)
    };
    let before = Sample::take(plan.pid, 0, 0)?;
    let mut timeline = Timeline::new(before, plan.duration);
    let numbers = Numbers::Round {
        first: 0,
        count: plan.clients,
        until: Instant::now() + plan.duration,
    };
    let filters = |connection: usize| {
        let topic = plan.target.topic(connection);
        (0..plan.filters)
            .map(|at| {
                if at == 0 {
                    topic.clone()
                } else {
                    format!("{topic}/{at}")
                }
            })
            .collect()
    };
    let dialled = dial.connect(&epoll, numbers, &filters, &mut |made| {
        if timeline.is_due(Instant::now()) {
            watch(&timeline.add(Sample::take(plan.pid, made, made)?));
        }
        Ok(())
    })?;
    let after = Sample::take(plan.pid, dialled.made, dialled.made)?;
    Ok(ChurnReport {
        shape: "churn",
        machine: Machine::here(),
        broker_url: plan.target.endpoint.url(),
        mqtt: version_name(plan.version),
        clients: plan.clients,
        together: plan.together,
        rate: plan.rate,
        filters: plan.filters,
        made: Made::new(&dialled, &before, &after),
        timeline: timeline.moments,
    })
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  connections    {} in {:.2} s: {:.0} per second, {} attempts failed",
            self.connections, self.seconds, self.connections_per_s, self.failed
        )?;
        if let Some(why) = &self.why {
            write!(f, " (the first: {why})")?;
        }
        if let Some((all, user)) = self.cpu_us_per_connection.zip(self.user_us_per_connection) {
            write!(
                f,
                "\n  broker         {all:.1} us CPU for each ({user:.1} in user space)"
            )?;
        }
        let own = self.own_cpu_us_per_connection;
        write!(f, "\n  load generator {own:.1} us CPU for each")?;
        match &self.latency {
            Some(latency) => write!(f, "\n  latency        {latency}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ChurnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "churn of {} clients, {} at the same time, MQTT {}, {} filters\n{}",
            self.clients, self.together, self.mqtt, self.filters, self.made
        )
    }
}
