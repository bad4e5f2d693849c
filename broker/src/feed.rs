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

/// Where control is, and how a pipe to it is made; it is made again whenever it is lost.
pub struct Feed {
    pub(crate) connect: Box<dyn FnMut() -> Connecting + Send>,
    /// Whether control is in this process, so that it is there when the broker starts.
    pub(crate) here: bool,
}

impl Feed {
    /// Pipes to the control side of this process: the lease is the life of one.
    pub fn here(connect: impl FnMut() -> Connecting + Send + 'static) -> Feed {
        Feed {
            connect: Box::new(connect),
            here: true,
        }
    }

    /// Pipes to a control side elsewhere: the lease is timed.
    pub fn elsewhere(connect: impl FnMut() -> Connecting + Send + 'static) -> Feed {
        Feed {
            connect: Box::new(connect),
            here: false,
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.here { "Here" } else { "Elsewhere" })
    }
}
