//! Where control's feed comes from.

use std::fmt;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// Both directions of a pipe to control.
pub trait FeedPipe: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<P: AsyncRead + AsyncWrite + Send + Unpin + 'static> FeedPipe for P {}

/// A pipe to control that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn FeedPipe>>> + Send>>;

/// Where control is.
pub enum Feed {
    /// In this process: the pipe lives as long as control does, and with it the lease.
    Here(Box<dyn FeedPipe>),
    /// In another process: a pipe is made again whenever it is lost, and the lease is timed.
    Elsewhere(Box<dyn FnMut() -> Connecting + Send>),
}

impl Feed {
    /// A pipe to the control side of this process.
    pub fn here(pipe: impl FeedPipe) -> Feed {
        Feed::Here(Box::new(pipe))
    }

    /// Pipes to a control side elsewhere, each made by `connect`.
    pub fn elsewhere(connect: impl FnMut() -> Connecting + Send + 'static) -> Feed {
        Feed::Elsewhere(Box::new(connect))
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feed::Here(_) => "Here",
            Feed::Elsewhere(_) => "Elsewhere",
        })
    }
}
