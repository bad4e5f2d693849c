//! Load on an MQTT broker from outside, over sockets, with a check of everything that arrives.
//!
//! It works with any broker: it knows the protocol from `codec` and nothing of Turnpike, so that
//! the two cannot share a fault. Load is a *closed loop*: a publisher sends its next burst when the
//! last one has arrived, which saturates the broker and never overruns it. One thread, one epoll;
//! the load's own CPU time stands in each report.
//!
//! It is deliberately not: an open-loop generator (rates, latency under load), or a client library.
//!
//! The three types to know:
//! - [`Plan`], what is to be done;
//! - [`run`], which does it;
//! - [`Report`], what came out: rates, CPU seconds, latency, and [`Verdict`], what was wrong.
//!
//! ```no_run
//! use loadtest::{Plan, Shape, Target};
//!
//! let plan = Plan::new(Shape::Pairs, Target::anonymous("127.0.0.1:1883".parse()?, "load"));
//! let report = loadtest::run(&plan)?;
//! assert!(report.verdict.is_clean());
//! println!("{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
// A failed unwrap is a failed test.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod connections;
mod error;
mod frames;
mod load;
mod measure;
mod plan;
mod relay;
mod report;
mod target;
mod verify;
mod wire;

pub use codec::mqtt::{ProtocolVersion as Version, QoS};
pub use connections::{ConnectionsPlan, ConnectionsReport, connections};
pub use error::Error;
pub use load::run;
pub use plan::{Plan, Shape};
pub use relay::relay;
pub use report::{Latency, Report};
pub use target::{Login, Target};
pub use verify::Verdict;
