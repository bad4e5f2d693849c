//! The task that drives the link to control over its pipe.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use session::Now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};

use crate::feed::{Feed, FeedPipe};
use crate::link::Link;
use crate::start::random;

/// Between two attempts to reach control: doubled each time, with as much again by chance.
const PATIENCE_MIN: Duration = Duration::from_millis(50);
const PATIENCE_MAX: Duration = Duration::from_secs(2);

/// The link, whoever wakes it, and who is told whether clients are served.
pub(crate) struct Control<W> {
    pub(crate) link: Link<W>,
    pub(crate) from_shards: Arc<Notify>,
    pub(crate) serving: watch::Sender<bool>,
    pub(crate) start: Instant,
}

/// Drives `control` over one pipe after the other, for ever.
pub(crate) async fn drive<W: 'static>(mut control: Control<W>, mut feed: Feed) {
    let mut patience = PATIENCE_MIN;
    loop {
        match control.beside((feed.connect)()).await {
            Ok(pipe) => {
                tracing::info!("control is reached");
                let ended = control.over(pipe).await;
                tracing::warn!(reason = ?ended.err(), "the pipe to control is lost");
                patience = PATIENCE_MIN;
            }
            Err(error) => tracing::warn!(%error, "control cannot be reached; trying again"),
        }
        let chance = patience.mul_f64((random() % 1024) as f64 / 1024.0);
        control.beside(tokio::time::sleep(patience + chance)).await;
        patience = (2 * patience).min(PATIENCE_MAX);
    }
}

impl<W: 'static> Control<W> {
    fn now(&self) -> Now {
        Now::from_millis(self.start.elapsed().as_millis() as u64)
    }

    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Until the link has to be looked at.
    fn wait(&self) -> Duration {
        self.link
            .next_timeout()
            .map_or(Duration::from_secs(1), |at| {
                Duration::from_millis(at.millis_since(self.now()))
            })
    }

    fn tell_readiness(&self) {
        let ready = self.link.is_ready(self.now());
        self.serving
            .send_if_modified(|known| std::mem::replace(known, ready) != ready);
    }

    /// Drives the link over a pipe until that ends.
    async fn over(&mut self, pipe: Box<dyn FeedPipe>) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(pipe);
        self.link.connected(self.now());
        let mut input = vec![0; 64 << 10];
        let mut output = Vec::new();
        let ended = loop {
            output.clear();
            self.link.output(&mut output);
            if !output.is_empty() {
                let written = async {
                    writer.write_all(&output).await?;
                    // A pipe with layers may hold back what it was given.
                    writer.flush().await
                };
                if let Err(error) = written.await {
                    break Err(error);
                }
            }
            self.tell_readiness();
            let wait = self.wait();
            tokio::select! {
                // All three can be dropped at any moment: a read that was not polled to its end took
                // nothing, and a notification that nobody took stays.
                read = reader.read(&mut input) => match read {
                    Ok(0) => break Ok(()),
                    Ok(taken) => {
                        let (now, now_us) = (self.now(), self.now_us());
                        if let Err(error) = self.link.input(&input[..taken], now, now_us) {
                            break Err(io::Error::new(io::ErrorKind::InvalidData, error));
                        }
                    }
                    Err(error) => break Err(error),
                },
                () = self.from_shards.notified() => self.take_requests(),
                () = tokio::time::sleep(wait) => self.link.tick(self.now()),
            }
        };
        let now = self.now();
        self.link.disconnected(now);
        self.tell_readiness();
        ended
    }

    /// Looks after the link without a pipe while something else is waited for.
    async fn beside<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            let wait = self.wait();
            tokio::select! {
                // A notification that nobody took stays.
                done = &mut future => return done,
                () = self.from_shards.notified() => self.take_requests(),
                () = tokio::time::sleep(wait) => self.link.tick(self.now()),
            }
            self.tell_readiness();
        }
    }

    fn take_requests(&mut self) {
        let (now, now_us) = (self.now(), self.now_us());
        self.link.take_requests(now, now_us);
    }
}
