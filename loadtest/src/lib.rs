//! Load on an MQTT broker from outside, over sockets, with a check of everything that arrives.
//!
//! It works with any broker: it knows the protocol from `codec` and nothing of Turnpike, so that
//! the two cannot share a fault; Turnpike's control API is used where a load is to have a domain,
//! channels and clients of its own ([`provision`]). A load is a closed loop (a publisher sends its
//! next burst when its window has room, which saturates the broker and never overruns it) or an
//! open one (messages are sent by the clock, and latency counts from the moment they were meant to
//! be sent). One thread, one epoll, and worker processes where one may not have enough descriptors; the
//! load's own CPU time stands in each report.
//!
//! It is deliberately not: a client library, or a judge of what a broker may refuse.
//!
//! The types to know:
//! - [`Flow`], messages from some connections to others; [`Plan`], flows at the same time;
//! - [`run`], which does it;
//! - [`Report`], what came out: rates, CPU seconds, latency, and [`Verdict`], what was wrong.
//!
//! ```no_run
//! use loadtest::{Endpoint, Flow, Plan, Target};
//!
//! let endpoint = Endpoint::tcp("127.0.0.1:1883".parse()?);
//! let plan = Plan::new(Flow::pairs(100), Target::anonymous(endpoint, "load"));
//! let report = loadtest::run(&plan)?;
//! assert!(report.verdict.is_clean());
//! println!("{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
// A failed unwrap is a failed test.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bell;
mod churn;
mod compare;
mod connections;
mod control;
mod crowd;
mod dial;
mod endpoint;
mod error;
mod fleet;
mod flow;
mod frames;
mod html;
mod layers;
mod limits;
mod load;
mod measure;
mod oracle;
mod pace;
mod plan;
mod provision;
mod relay;
mod report;
mod revocation;
mod scenario;
mod squad;
mod storm;
mod target;
mod timeline;
mod verify;
mod wire;
mod worker;

pub use churn::{ChurnPlan, ChurnReport, Made, churn};
pub use codec::mqtt::{ProtocolVersion as Version, QoS};
pub use compare::{Compared, compare, table};
pub use connections::{ConnectionsPlan, ConnectionsReport, Held, Traffic, connections};
pub use control::Control;
pub use crowd::run_in_processes;
pub use endpoint::{Endpoint, TlsFiles, Transport};
pub use error::Error;
pub use fleet::Fleet;
pub use html::page;
pub use load::{Kept, run, run_watched};
pub use measure::Machine;
pub use plan::{Audience, Flow, Need, NeededRight, Plan};
pub use provision::{Provisioned, provision};
pub use relay::relay;
pub use report::{Broker, FlowReport, Latency, Report};
pub use revocation::{RevocationPlan, RevocationReport, revocation};
pub use scenario::{Churn, Scenario, ScenarioReport};
pub use storm::{Beside, StormPlan, StormReport, reconnect_storm};
pub use target::{Admin, Listeners, Login, Ready, Target};
pub use timeline::Moment;
pub use verify::Verdict;
pub use wire::serial_beside;
pub use worker::{end_with_parent, worker};
