//! Several flows and connections that come and go, as a file says.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use codec::mqtt::{ProtocolVersion, QoS};
use serde::{Deserialize, Serialize};

use crate::churn::{ChurnPlan, ChurnReport, churn};
use crate::error::Error;
use crate::load::run_watched;
use crate::plan::{Flow, Need, NeededRight, Plan};
use crate::report::Report;
use crate::target::Target;
use crate::timeline::Moment;

/// What a file says: flows at the same time, and connections beside them.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// Load before the measurement begins.
    pub warm_up: Duration,
    /// How long is measured.
    pub duration: Duration,
    /// What flows.
    pub flows: Vec<Flow>,
    /// Connections that come and go beside it.
    pub churn: Option<Churn>,
}

/// Connections that come and go.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Clients that take turns.
    clients: usize,
    /// Connections begun in a second.
    rate: f64,
}

/// What came out of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioReport {
    /// What flowed.
    #[serde(flatten)]
    pub flows: Report,
    /// What came and went.
    pub churn: Option<ChurnReport>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    name: Option<String>,
    warm_up: Option<f64>,
    duration: Option<f64>,
    flow: Vec<RawFlow>,
    churn: Option<Churn>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFlow {
    name: Option<String>,
    shape: Shape,
    publishers: Option<usize>,
    subscribers: Option<usize>,
    topics: Option<usize>,
    mqtt: Option<String>,
    qos: Option<u8>,
    payload: Option<usize>,
    burst: Option<usize>,
    window: Option<usize>,
    rate: Option<f64>,
    filters: Option<usize>,
    properties: Option<usize>,
    random: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Shape {
    Pairs,
    FanIn,
    FanOut,
    Shared,
    Devices,
}

/// The load of `mixed`: telemetry, commands, a broadcast, shared workers and churn at once.
const MIXED: &str = include_str!("mixed.toml");

impl Scenario {
    /// A bit of everything: what `mixed` does.
    ///
    /// # Errors
    /// Never: it is checked by a test.
    pub fn mixed() -> Result<Scenario, Error> {
        Scenario::parse(MIXED)
    }

    /// Reads a file in TOML.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong: line and what is expected.
    pub fn read(file: &Path) -> Result<Scenario, Error> {
        let fault = |why: String| Error::File {
            path: file.to_owned(),
            why,
        };
        let text = std::fs::read_to_string(file).map_err(|error| fault(error.to_string()))?;
        Scenario::parse(&text).map_err(|error| fault(error.to_string()))
    }

    fn parse(text: &str) -> Result<Scenario, Error> {
        let raw: RawScenario = toml::from_str(text)
            .map_err(|error| Error::Plan(error.to_string().trim_end().to_owned()))?;
        let seconds = |name: &str, given: Option<f64>, usual: f64| {
            Duration::try_from_secs_f64(given.unwrap_or(usual))
                .map_err(|_| Error::Plan(format!("{name}: a number of seconds is expected")))
        };
        let flows = raw.flow.into_iter().map(RawFlow::check);
        let scenario = Scenario {
            name: raw.name.unwrap_or_else(|| "scenario".into()),
            warm_up: seconds("warm_up", raw.warm_up, 0.5)?,
            duration: seconds("duration", raw.duration, 5.0)?,
            flows: flows.collect::<Result<_, _>>()?,
            churn: raw.churn,
        };
        if scenario.churn.is_some_and(|churn| churn.clients == 0) {
            return Err(Error::Plan("churn: 1 client at least is expected".into()));
        }
        Ok(scenario)
    }

    /// The plan of its flows.
    pub fn plan(&self, target: Target) -> Plan {
        Plan {
            name: self.name.clone(),
            target,
            flows: self.flows.clone(),
            warm_up: self.warm_up,
            duration: self.duration,
            messages: None,
            pid: None,
            strict: false,
        }
    }

    /// What it needs of the control side: that of its flows, then clients that come and go, each
    /// with a channel.
    pub fn need(&self, target: &Target) -> Need {
        let mut need = self.plan(target.clone()).need();
        if let Some(churn) = self.churn {
            for number in 0..churn.clients {
                need.rights.push(NeededRight {
                    client: need.clients + number,
                    channel: need.channels + number,
                    publishes: false,
                });
            }
            need.clients += churn.clients;
            need.channels += churn.clients;
        }
        need
    }

    /// Carries it out with `plan`, which [`Scenario::plan`] made; `watch` is told of each moment.
    ///
    /// # Errors
    /// As [`crate::run`] and [`crate::churn`].
    pub fn run(
        &self,
        plan: &Plan,
        watch: &mut dyn FnMut(&Moment),
    ) -> Result<ScenarioReport, Error> {
        let beside = self.churn.map(|beside| {
            let flows = plan.need();
            let mut target = plan.target.clone();
            // Its own part of the clients and channels, if each has its own.
            if target.logins.len() >= flows.clients + beside.clients {
                target.logins.drain(..flows.clients);
            }
            if target.prefixes.len() >= flows.channels + beside.clients {
                target.prefixes.drain(..flows.channels);
            }
            target.first_serial += flows.clients;
            ChurnPlan {
                target,
                version: ProtocolVersion::V311,
                qos: QoS::AtMostOnce,
                clients: beside.clients,
                together: beside.clients,
                rate: Some(beside.rate),
                filters: 1,
                duration: plan.duration + plan.warm_up,
                pid: None,
            }
        });
        std::thread::scope(|scope| {
            let beside = beside.as_ref();
            let beside = beside.map(|beside| scope.spawn(|| churn(beside, &mut |_| {})));
            let flows = run_watched(plan, watch)?;
            let churn = beside.map(|beside| {
                let failed = |_| Error::Plan("the connections beside it failed".into());
                beside.join().map_err(failed)?
            });
            Ok(ScenarioReport {
                flows,
                churn: churn.transpose()?,
            })
        })
    }
}

impl RawFlow {
    fn check(self) -> Result<Flow, Error> {
        let given = |number: Option<usize>, usual: usize| number.unwrap_or(usual);
        let usual = match self.shape {
            Shape::Pairs => Flow::pairs(given(self.publishers, 100)),
            Shape::FanIn => Flow::fan_in(given(self.publishers, 100)),
            Shape::FanOut => Flow::fan_out(given(self.subscribers, 500)),
            Shape::Shared => Flow::shared(given(self.publishers, 10), given(self.subscribers, 50)),
            Shape::Devices => {
                Flow::to_devices(given(self.publishers, 1), given(self.subscribers, 100))
            }
        };
        let name = self.name.unwrap_or_else(|| usual.name.clone());
        let fault = |why: String| Error::Plan(format!("flow {name:?}: {why}"));
        let version = match self.mqtt.as_deref() {
            None | Some("3.1.1") => ProtocolVersion::V311,
            Some("5") => ProtocolVersion::V5,
            Some(other) => {
                return Err(fault(format!(
                    "mqtt is {other:?}; expected \"3.1.1\" or \"5\""
                )));
            }
        };
        let qos = QoS::from_bits(self.qos.unwrap_or(0));
        let qos = qos.ok_or_else(|| fault("qos: 0, 1 or 2 is expected".into()))?;
        let burst = given(self.burst, usual.burst);
        let flow = Flow {
            version,
            qos,
            burst,
            payload_bytes: given(self.payload, usual.payload_bytes),
            publishers: given(self.publishers, usual.publishers),
            subscribers: given(self.subscribers, usual.subscribers),
            topics: given(self.topics, usual.topics),
            // The clock alone paces a flow with a rate.
            window: match (self.window, self.rate) {
                (None, Some(_)) => None,
                (None, None) => usual.window.map(|window| window.max(burst)),
                (window, _) => window,
            },
            rate: self.rate,
            filters: given(self.filters, 0),
            properties: given(self.properties, 0),
            random: self.random.unwrap_or(usual.random),
            name: name.clone(),
            audience: usual.audience,
        };
        flow.check()?;
        Ok(flow)
    }
}

impl fmt::Display for ScenarioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.flows.fmt(f)?;
        match &self.churn {
            Some(churn) => write!(f, "\n{churn}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    #[test]
    fn mixed_is_a_scenario_with_churn() {
        let mixed = Scenario::mixed().unwrap();
        assert!(mixed.flows.len() > 3);
        let target = Target::anonymous(Endpoint::tcp(([127, 0, 0, 1], 1).into()), "t");
        let flows = mixed.plan(target.clone()).need();
        let need = mixed.need(&target);
        assert_eq!(need.clients, flows.clients + mixed.churn.unwrap().clients);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told_with_what_is_expected() {
        for (text, expected) in [
            ("duration = 1", "flow"),
            ("[[flow]]\nshape = \"ring\"", "pairs"),
            ("[[flow]]\nshape = \"pairs\"\nspeed = 1", "speed"),
            ("[[flow]]\nshape = \"pairs\"\nqos = 3", "0, 1 or 2"),
            ("[[flow]]\nshape = \"pairs\"\nmqtt = \"4\"", "3.1.1"),
            ("[[flow]]\nshape = \"pairs\"\npayload = 3", "16"),
            ("duration = -1\n[[flow]]\nshape = \"pairs\"", "seconds"),
        ] {
            let error = Scenario::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_flow_with_a_rate_has_no_window_unless_it_names_one() {
        let text = "[[flow]]\nshape = \"fan-in\"\npublishers = 7\nrate = 10.0";
        let flow = &Scenario::parse(text).unwrap().flows[0];
        assert_eq!((flow.window, flow.publishers, flow.topics), (None, 7, 1));
        let flow = &Scenario::parse(&format!("{text}\nwindow = 5"))
            .unwrap()
            .flows[0];
        assert_eq!(flow.window, Some(5));
    }
}
