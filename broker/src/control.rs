//! The task that drives the link to control over a pipe.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use session::Now;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};

use crate::link::Link;

/// Drives `link` until the pipe ends or `stop` is told.
///
/// # Errors
///
/// When the pipe fails or carries something else than the feed.
pub(crate) async fn drive<W: 'static>(
    mut link: Link<W>,
    pipe: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    from_shards: Arc<Notify>,
    serving: watch::Sender<bool>,
    start: Instant,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let moment = || Now::from_millis(start.elapsed().as_millis() as u64);
    let moment_us = || start.elapsed().as_micros() as u64;
    link.connected(moment());
    let mut input = vec![0; 64 << 10];
    let mut output = Vec::new();
    let ended = loop {
        output.clear();
        link.output(&mut output);
        if !output.is_empty()
            && let Err(error) = writer.write_all(&output).await
        {
            break Err(error);
        }
        serving.send_if_modified(|known| {
            let changed = *known != link.is_serving();
            *known = link.is_serving();
            changed
        });
        let wait = link.next_timeout().map_or(Duration::from_secs(1), |at| {
            Duration::from_millis(at.millis_since(moment()))
        });
        tokio::select! {
            // All three can be dropped at any moment: a read that was not polled to its end took
            // nothing, and a notification that nobody took stays.
            read = reader.read(&mut input) => match read {
                Ok(0) => break Ok(()),
                Ok(taken) => {
                    let fed = link.input(&input[..taken], moment(), moment_us());
                    if let Err(error) = fed {
                        break Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                }
                Err(error) => break Err(error),
            },
            () = from_shards.notified() => link.take_requests(moment(), moment_us()),
            () = tokio::time::sleep(wait) => link.tick(moment()),
        }
    };
    link.disconnected(moment());
    serving.send_replace(false);
    ended
}
