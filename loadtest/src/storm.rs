//! A connect storm: everybody comes back at once, while others go on sending.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::churn::Made;
use crate::connections::{ConnectionsPlan, dialled};
use crate::error::Error;
use crate::load::{Cues, run_beside};
use crate::measure::Machine;
use crate::plan::Plan;
use crate::report::{Latency, version_name};
use crate::timeline::{Moment, Sample, Timeline};
use crate::verify::Verdict;
use crate::worker::{Command, Done};

/// Connections that end and come back, beside messages of others.
#[derive(Clone, Debug)]
pub struct StormPlan {
    /// Who comes back: its holding and messages are not used.
    pub devices: ConnectionsPlan,
    /// What others send meanwhile, by the clock.
    pub beside: Option<Plan>,
    /// How long messages are measured before the storm, and after it.
    pub calm: Duration,
    /// How many storms.
    pub storms: usize,
}

/// How a storm went.
#[derive(Clone, Debug, Serialize)]
pub struct StormReport {
    /// What was done.
    pub shape: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Address of the broker with its scheme.
    pub broker_url: String,
    /// Protocol version: 3.1, 3.1.1 or 5.
    pub mqtt: &'static str,
    /// Processes that held the connections.
    pub processes: usize,
    /// The first time everybody came: nobody is known.
    pub first: Made,
    /// When everybody came back, the slowest of the storms.
    #[serde(flatten)]
    pub made: Made,
    /// Connections in a second of each storm.
    pub storms_per_s: Vec<f64>,
    /// What others noticed.
    pub beside: Option<Beside>,
    /// How it went.
    pub timeline: Vec<Moment>,
}

/// Messages beside a storm.
#[derive(Clone, Debug, Serialize)]
pub struct Beside {
    /// Messages in a second that were intended.
    pub rate: f64,
    /// Messages received.
    pub delivered: u64,
    /// Their latency before the storm.
    pub before: Option<Latency>,
    /// While the storm lasted.
    pub during: Option<Latency>,
    /// After it.
    pub after: Option<Latency>,
    /// What was wrong.
    pub verdict: Verdict,
}

const BEFORE: usize = 0;
const DURING: usize = 1;
const AFTER: usize = 2;

/// Lets everybody come, go and come back.
///
/// # Errors
/// The plan cannot be done, or the broker ends it. Attempts that it refuses are counted and made
/// again.
pub fn reconnect_storm(
    plan: &StormPlan,
    watch: &mut dyn FnMut(&Moment),
) -> Result<StormReport, Error> {
    if plan.storms == 0 {
        return Err(Error::Plan("there has to be 1 storm at least".into()));
    }
    let cues = Cues::default();
    std::thread::scope(|scope| {
        let beside = plan.beside.as_ref().map(|beside| {
            let cues = &cues;
            scope.spawn(move || run_beside(beside, 3, cues))
        });
        let storm = storm(plan, &cues, watch);
        cues.stop.store(true, Ordering::Release);
        let mut report = storm?;
        if let Some(beside) = beside {
            let joined = beside
                .join()
                .map_err(|_| Error::Plan("the load beside failed".into()))?;
            let (carried, mut phases) = joined?;
            let flows = plan.beside.iter().flat_map(|beside| &beside.flows);
            report.beside = Some(Beside {
                rate: flows.filter_map(|flow| flow.rate).sum(),
                delivered: carried.delivered,
                before: phases[BEFORE].take(),
                during: phases[DURING].take(),
                after: phases[AFTER].take(),
                verdict: carried.verdict,
            });
        }
        Ok(report)
    })
}

fn storm(
    plan: &StormPlan,
    cues: &Cues,
    watch: &mut dyn FnMut(&Moment),
) -> Result<StormReport, Error> {
    let devices = &plan.devices;
    let mut squad = devices.squad()?;
    let start = Sample::take(devices.pid, 0, 0)?;
    let mut timeline = Timeline::new(start, Duration::from_secs(60));
    let mut note = |made: u64| {
        if timeline.is_due(Instant::now()) {
            watch(&timeline.add(Sample::take(devices.pid, made, made)?));
        }
        Ok(())
    };
    let connect = devices.connect(squad.len());
    let done = squad.carry_out(&connect, Duration::ZERO, &mut note)?;
    let first = made(&done, &start, &Sample::take(devices.pid, 0, 0)?);
    if plan.beside.is_some() {
        while !cues.begun.load(Ordering::Acquire) {
            std::thread::park_timeout(LOOK);
        }
    }
    wait(plan.calm, &mut note)?;
    cues.phase.store(DURING, Ordering::Relaxed);
    let mut storms = Vec::with_capacity(plan.storms);
    for _ in 0..plan.storms {
        squad.carry_out(|_| Command::Drop, Duration::ZERO, &mut note)?;
        let before = Sample::take(devices.pid, 0, 0)?;
        let done = squad.carry_out(&connect, Duration::ZERO, &mut note)?;
        storms.push(made(&done, &before, &Sample::take(devices.pid, 0, 0)?));
    }
    cues.phase.store(AFTER, Ordering::Relaxed);
    wait(plan.calm, &mut note)?;
    let storms_per_s = storms.iter().map(|storm| storm.connections_per_s).collect();
    let slowest = storms.into_iter().reduce(|one, other| {
        if other.connections_per_s < one.connections_per_s {
            other
        } else {
            one
        }
    });
    let slowest = slowest.ok_or_else(|| Error::Plan("there was no storm".into()))?;
    Ok(StormReport {
        shape: "reconnect-storm",
        machine: Machine::here(),
        broker_url: devices.target.endpoint.url(),
        mqtt: version_name(devices.version),
        processes: squad.len(),
        first,
        made: slowest,
        storms_per_s,
        beside: None,
        timeline: timeline.moments,
    })
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

fn wait(duration: Duration, note: &mut dyn FnMut(u64) -> Result<(), Error>) -> Result<(), Error> {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        std::thread::sleep(LOOK);
        note(0)?;
    }
    Ok(())
}

fn made(done: &[Done], before: &Sample, after: &Sample) -> Made {
    let dialled = dialled(done);
    let mut made = Made::new(&dialled, before, after);
    let own: u64 = done.iter().map(|done| done.own_cpu_us).sum();
    made.own_cpu_us_per_connection = own as f64 / dialled.made.max(1) as f64;
    // Without what it takes to tell the workers.
    made.seconds = dialled.took.as_secs_f64();
    made.connections_per_s = dialled.made as f64 / made.seconds.max(1e-9);
    made
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "reconnect-storm, MQTT {}, {} processes, {} storms\n when they first came\n{}\n \
             when they came back (the slowest storm)\n{}",
            self.mqtt,
            self.processes,
            self.storms_per_s.len(),
            self.first,
            self.made
        )?;
        let Some(beside) = &self.beside else {
            return Ok(());
        };
        write!(f, "\n messages beside it, {} per second", beside.rate)?;
        let phases = [
            ("before", &beside.before),
            ("during", &beside.during),
            ("after", &beside.after),
        ];
        for (name, latency) in phases {
            if let Some(latency) = latency {
                write!(f, "\n  {name:<14} {latency}")?;
            }
        }
        write!(f, "\n  verdict        {}", beside.verdict)
    }
}
