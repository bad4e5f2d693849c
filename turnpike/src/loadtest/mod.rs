//! `turnpike loadtest`: from arguments to a plan, from its report to text, JSON and HTML.

mod arguments;
mod place;
mod show;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::loadtest::{
    ChurnPlan, ConnectionsPlan, Error, Flow, Moment, Need, NeededRight, Plan, QoS, Report,
    RevocationPlan, Scenario, StormPlan, Target, run_watched,
};
use anyhow::{Context, bail};
use serde_json::Value;

pub(crate) use arguments::Loadtest;
use arguments::{Broker, Load, What};
use place::Place;
use show::Watch;

/// Does what the arguments say.
///
/// # Errors
/// The load could not be put on the broker, or something was wrong with what arrived.
pub(crate) fn run(arguments: Loadtest) -> anyhow::Result<()> {
    match arguments.what {
        What::Pairs { load, pairs } => measure(&load, Flow::pairs(pairs), run_watched),
        What::FanIn { load, publishers } => measure(&load, Flow::fan_in(publishers), run_watched),
        What::FanOut {
            load,
            subscribers,
            processes,
        } => {
            let program = this_program()?;
            measure(&load, Flow::fan_out(subscribers), |plan, watch| {
                ::loadtest::run_in_processes(plan, processes, &program, watch)
            })
        }
        What::Shared {
            load,
            publishers,
            members,
        } => measure(&load, Flow::shared(publishers, members), run_watched),
        What::Mixed { broker, strict } => scenario(&broker, Scenario::mixed()?, strict),
        What::Scenario {
            broker,
            strict,
            file,
        } => scenario(&broker, Scenario::read(&file)?, strict),
        What::Connections(arguments) => connections(&arguments),
        What::Churn(arguments) => churn(&arguments),
        What::ReconnectStorm(arguments) => storm(&arguments),
        What::Revocation(arguments) => revocation(&arguments),
        What::Compare { before, after } => compare(&before, &after),
        What::Relay { listen } => Ok(::loadtest::relay(listen)?),
        What::Worker => {
            ::loadtest::end_with_parent()?;
            Ok(::loadtest::worker(
                std::io::stdin(),
                &mut std::io::stdout().lock(),
            )?)
        }
    }
}

/// `run` is what puts the load on the broker.
fn measure(
    load: &Load,
    usual: Flow,
    run: impl FnOnce(&Plan, &mut dyn FnMut(&Moment)) -> Result<Report, Error>,
) -> anyhow::Result<()> {
    let flow = load.flow(usual)?;
    let broker = &load.broker;
    let endpoint = broker.endpoint()?;
    let mut plan = Plan {
        warm_up: seconds(load.warm_up)?,
        duration: seconds(load.duration)?,
        messages: load.messages,
        pid: broker.pid,
        strict: load.strict(),
        ..Plan::new(flow, Target::anonymous(endpoint, &broker.topic_prefix))
    };
    let mut place = Place::take(broker, || Ok(plan.need()))?;
    plan.target = place.target()?;
    let report = run(&plan, &mut Watch::new(broker.quiet).moments());
    place.leave();
    let report = report?;
    broker.show(&report, &report)?;
    clean(report.verdict.is_clean())
}

fn scenario(broker: &Broker, scenario: Scenario, strict: bool) -> anyhow::Result<()> {
    let anonymous = Target::anonymous(broker.endpoint()?, &broker.topic_prefix);
    let mut place = Place::take(broker, || Ok(scenario.need(&anonymous)))?;
    let plan = Plan {
        pid: broker.pid,
        strict,
        ..scenario.plan(place.target()?)
    };
    let report = scenario.run(&plan, &mut Watch::new(broker.quiet).moments());
    place.leave();
    let report = report?;
    broker.show(&report, &report)?;
    clean(report.flows.verdict.is_clean())
}

fn devices(arguments: &arguments::Devices, broker: &Broker) -> anyhow::Result<ConnectionsPlan> {
    Ok(ConnectionsPlan {
        target: Target::anonymous(broker.endpoint()?, &broker.topic_prefix),
        version: broker.version(),
        count: arguments.connections,
        processes: arguments.processes,
        together: arguments.together,
        rate: arguments.connect_rate(),
        keep_alive: arguments.keep_alive,
        hold: Duration::ZERO,
        traffic: None,
        payload_bytes: 64,
        pid: broker.pid,
        program: this_program()?,
    })
}

/// The program that starts itself again for each worker.
fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("this program cannot find itself")
}

fn connections(arguments: &arguments::Connections) -> anyhow::Result<()> {
    let broker = &arguments.broker;
    let mut plan = devices(&arguments.devices, broker)?;
    plan.hold = seconds(arguments.hold)?;
    plan.payload_bytes = arguments.payload;
    if let Some(rate) = arguments.rate {
        plan.traffic = Some((rate, seconds(arguments.duration)?));
    }
    let mut place = Place::take(broker, || Ok(plan.need()?))?;
    plan.target = place.target()?;
    plan.target.first_serial = ::loadtest::serial_beside(arguments.devices.beside);
    let report = ::loadtest::connections(&plan, &mut Watch::new(broker.quiet).moments());
    place.leave();
    let report = report?;
    broker.show(&report, &report)?;
    let traffic = report.traffic.as_ref();
    let lost = report.held.kept.lost + traffic.map_or(0, |traffic| traffic.kept.lost);
    if lost > 0 {
        bail!("{lost} connections ended by themselves");
    }
    clean(traffic.is_none_or(|traffic| traffic.verdict.is_clean()))
}

/// A client for each of `count` connections that subscribe to a channel of their own.
fn own_channels(count: usize) -> Need {
    let right = |number| NeededRight {
        client: number,
        channel: number,
        publishes: false,
    };
    Need {
        clients: count,
        channels: count,
        rights: (0..count).map(right).collect(),
    }
}

fn churn(arguments: &arguments::Churn) -> anyhow::Result<()> {
    let broker = &arguments.broker;
    let mut place = Place::take(broker, || Ok(own_channels(arguments.clients)))?;
    let plan = ChurnPlan {
        target: place.target()?,
        version: broker.version(),
        qos: QoS::from_bits(arguments.qos).context("a QoS is 0, 1 or 2")?,
        clients: arguments.clients,
        together: arguments.together,
        rate: arguments.rate,
        filters: arguments.filters,
        duration: seconds(arguments.duration)?,
        pid: broker.pid,
    };
    let report = ::loadtest::churn(&plan, &mut Watch::new(broker.quiet).moments());
    place.leave();
    let report = report?;
    broker.show(&report, &report)
}

fn storm(arguments: &arguments::Storm) -> anyhow::Result<()> {
    let broker = &arguments.broker;
    let mut devices = devices(&arguments.devices, broker)?;
    let mut beside = arguments.rate.map(|rate| {
        let flow = Flow {
            version: broker.version(),
            rate: Some(rate),
            window: None,
            ..Flow::pairs(arguments.pairs)
        };
        Plan::new(flow, devices.target.clone())
    });
    let of_devices = devices.need()?;
    let mut place = Place::take(broker, || {
        let mut need = devices.need()?;
        if let Some(beside) = &beside {
            let more = beside.need();
            need.rights
                .extend(more.rights.iter().map(|right| NeededRight {
                    client: need.clients + right.client,
                    channel: need.channels + right.channel,
                    ..*right
                }));
            need.clients += more.clients;
            need.channels += more.channels;
        }
        Ok(need)
    })?;
    devices.target = place.target()?;
    if let Some(beside) = &mut beside {
        let mut target = devices.target.clone();
        // The clients and channels behind those of the devices, if each has its own.
        if target.logins.len() > of_devices.clients && target.prefixes.len() > of_devices.channels {
            target.logins.drain(..of_devices.clients);
            target.prefixes.drain(..of_devices.channels);
        } else {
            for prefix in &mut target.prefixes {
                prefix.push_str("/beside");
            }
        }
        // Behind the addresses of all storms.
        target.first_serial += (of_devices.clients + 20_000) * (arguments.storms + 1);
        beside.target = target;
    }
    let plan = StormPlan {
        devices,
        beside,
        calm: seconds(arguments.calm)?,
        storms: arguments.storms,
    };
    let report = ::loadtest::reconnect_storm(&plan, &mut Watch::new(broker.quiet).moments());
    place.leave();
    let report = report?;
    broker.show(&report, &report)?;
    clean(report.beside.is_none_or(|beside| beside.verdict.is_clean()))
}

fn revocation(arguments: &arguments::Revocation) -> anyhow::Result<()> {
    let broker = &arguments.broker;
    let need = Need {
        clients: 2,
        channels: 1,
        rights: vec![
            NeededRight {
                client: 0,
                channel: 0,
                publishes: false,
            },
            NeededRight {
                client: 1,
                channel: 0,
                publishes: true,
            },
        ],
    };
    let mut place = Place::provision(broker, &need)?;
    let target = place.target()?;
    let version = broker.version();
    let report = place.controlled(|provisioned, control| {
        let plan = RevocationPlan {
            target,
            provisioned: provisioned.clone(),
            version,
            rounds: arguments.rounds,
            rate: arguments.rate,
        };
        ::loadtest::revocation(&plan, control)
    });
    place.leave();
    let report = report?;
    broker.show(&report, &report)?;
    if report.late > 0 {
        bail!(
            "{} messages were delivered although the right was gone",
            report.late
        );
    }
    Ok(())
}

fn compare(before: &Path, after: &Path) -> anyhow::Result<()> {
    let read = |file: &Path| -> anyhow::Result<Value> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "{} holds no result; expected a file that --json wrote",
                file.display()
            )
        })
    };
    let compared = ::loadtest::compare(&read(before)?, &read(after)?);
    let compared = compared.map_err(anyhow::Error::msg)?;
    println!("A is {}, B is {}", before.display(), after.display());
    println!("{}", ::loadtest::table(&compared));
    Ok(())
}

fn clean(is_clean: bool) -> anyhow::Result<()> {
    if !is_clean {
        bail!("not everything arrived as it was sent");
    }
    Ok(())
}

fn seconds(number: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(number).context("a number of seconds is wanted")
}

/// A file that is written at the end: whether that will be possible is asked at the start.
fn writable(file: &PathBuf) -> anyhow::Result<()> {
    let opened = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(file);
    opened.with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(())
}
