//! Why there is no result.

use std::io;
use std::path::PathBuf;

use codec::mqtt::DecodeError;

/// Why there is no result. (A broker that loses messages is a result: [`crate::Verdict`].)
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan contradicts itself.
    #[error("{0}")]
    Plan(String),
    /// A file cannot be used.
    #[error("{path}: {why}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A connection could not be made.
    #[error("connection {number} could not be made: {why}")]
    Connect {
        /// Which connection, in the order of connecting.
        number: usize,
        /// What the system or the broker said.
        why: String,
    },
    /// The broker closed a connection under load.
    #[error("the broker closed connection {0}")]
    Closed(usize),
    /// A connection ended under load, and something is known about why.
    #[error("connection {number} was lost: {why}")]
    Lost {
        /// Which connection, in the order of connecting.
        number: usize,
        /// What the system or a layer said.
        why: String,
    },
    /// The control side did not do what it was asked for.
    #[error("control: {0}")]
    Control(String),
    /// A part of the load that runs in a process of its own failed.
    #[error("worker {number}: {why}")]
    Worker {
        /// Which, counted from 0.
        number: usize,
        /// What it said.
        why: String,
    },
    /// The broker sent something that is no packet.
    #[error("the broker sent something that is no packet: {0}")]
    Decode(#[from] DecodeError),
    /// The broker sent a packet that has no place there.
    #[error("the broker sent an unexpected {0}")]
    Unexpected(&'static str),
    /// The process to be measured cannot be read.
    #[error("/proc has nothing readable about process {0}")]
    Process(u32),
    /// The system refused something.
    #[error("the system refused: {0}")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Error {
        Error::Io(error.into())
    }
}
