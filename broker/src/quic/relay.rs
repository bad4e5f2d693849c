//! One connection between its streams and its pipe to a shard.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use codec::mqtt::split_frame;
use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::quic::streams::{StreamNumber, Unanswered, is_answer, is_for_data};

/// Bytes that are read at once.
const READ_BYTES: usize = 8 << 10;

/// A packet beyond this is collected while no other one of its size is: so a connection holds one
/// packet of the largest size, and this much for each further stream.
const LARGE_BYTES: usize = 16 << 10;

/// How long a peer may take to acknowledge the last bytes.
const LINGER: Duration = Duration::from_secs(3);

/// What the peer did wrong, for its log.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) &'static str);

/// What the streams of a connection share.
struct Streams {
    packet_bytes_max: u32,
    /// To the shard, a whole packet at a time.
    to_shard: tokio::sync::Mutex<OwnedWriteHalf>,
    large: tokio::sync::Mutex<()>,
    answers: Mutex<Answers>,
}

/// Where answers go.
#[derive(Default)]
struct Answers {
    unanswered: Unanswered,
    streams: HashMap<StreamNumber, DataStream>,
}

struct DataStream {
    /// `None` while an answer is written.
    send: Option<SendStream>,
    /// Whether the client is done with its half.
    ended: bool,
}

/// Relays until one side is done.
///
/// # Errors
/// [`Fault`], when the peer broke a rule of the streams.
pub(crate) async fn relay(
    connection: &Connection,
    (send, receive): (SendStream, RecvStream),
    pipe: UnixStream,
    packet_bytes_max: u32,
) -> Result<(), Fault> {
    let (from_shard, to_shard) = pipe.into_split();
    let streams = Arc::new(Streams {
        packet_bytes_max,
        to_shard: tokio::sync::Mutex::new(to_shard),
        large: tokio::sync::Mutex::default(),
        answers: Mutex::default(),
    });
    let (tell, connected) = watch::channel(false);
    let mut up = JoinSet::new();
    let control = Arc::clone(&streams);
    up.spawn(async move {
        control
            .upward(None, receive, Some(tell))
            .await
            .map(|()| true)
    });
    let mut down = std::pin::pin!(streams.downward(from_shard, send));
    loop {
        tokio::select! {
            result = &mut down => {
                return result;
            }
            stream = connection.accept_bi() => {
                // The end of the connection; the pipe ends with it.
                let Ok((send, receive)) = stream else {
                    return Ok(());
                };
                let number = send.id().index();
                let stream = DataStream { send: Some(send), ended: false };
                streams.answers.lock().streams.insert(number, stream);
                let streams = Arc::clone(&streams);
                let mut connected = connected.clone();
                up.spawn(async move {
                    // Streams are not ordered among each other: CONNECT comes first.
                    if connected.wait_for(|connected| *connected).await.is_ok() {
                        streams.upward(Some(number), receive, None).await?;
                    }
                    Ok(false)
                });
            }
            Some(ended) = up.join_next() => match ended {
                // The control stream's end is the connection's, as that of TCP is.
                Ok(Ok(true)) => {
                    let _ = streams.to_shard.lock().await.shutdown().await;
                }
                Ok(Ok(false)) => {}
                Ok(Err(fault)) => return Err(fault),
                Err(error) => {
                    tracing::error!(%error, "a QUIC stream's task failed");
                    return Err(Fault("internal error"));
                }
            },
        }
    }
}

impl Streams {
    /// Packets of one stream to the shard; `connected` is told of the first.
    async fn upward(
        &self,
        stream: Option<StreamNumber>,
        mut receive: RecvStream,
        mut connected: Option<watch::Sender<bool>>,
    ) -> Result<(), Fault> {
        let mut input = Vec::new();
        let mut large = None;
        loop {
            let chunk = match receive.read_chunk(READ_BYTES, true).await {
                Ok(Some(chunk)) => chunk,
                // A packet that was begun is dropped with its stream.
                Ok(None) | Err(_) => break,
            };
            input.extend_from_slice(&chunk.bytes);
            drop(chunk);
            let mut at = 0;
            let whole = loop {
                match split_frame(&input[at..], self.packet_bytes_max) {
                    Ok(Some(frame)) => {
                        if stream.is_some() && !is_for_data(frame.first) {
                            return Err(Fault("packet type is only allowed on the control stream"));
                        }
                        let mut answers = self.answers.lock();
                        answers.unanswered.asked(stream, frame.first, frame.body);
                        at += frame.bytes.len();
                    }
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            // What cannot be a packet is the machine's to refuse.
            let up_to = if whole { at } else { input.len() };
            if up_to > 0 {
                let mut to_shard = self.to_shard.lock().await;
                if to_shard.write_all(&input[..up_to]).await.is_err() {
                    // The shard has closed; what it said is on its way.
                    return Ok(());
                }
            }
            if !whole {
                return Ok(());
            }
            if at > 0 {
                input.drain(..at);
                if let Some(connected) = connected.take() {
                    connected.send_replace(true);
                }
                if input.len() <= LARGE_BYTES {
                    large = None;
                    input.shrink_to(input.len());
                }
            }
            if input.len() > LARGE_BYTES && large.is_none() {
                large = Some(self.large.lock().await);
            }
        }
        if let Some(number) = stream {
            let mut answers = self.answers.lock();
            if let Some(stream) = answers.streams.get_mut(&number) {
                stream.ended = true;
            }
            answers.let_go(number);
        }
        Ok(())
    }

    /// Packets of the shard to the streams: answers to where their requests came from, all others to
    /// the control stream. Whoever does not take its bytes stops all of them, and the shard treats
    /// the connection as one that does not read.
    async fn downward(&self, shard: OwnedReadHalf, mut control: SendStream) -> Result<(), Fault> {
        let mut input = Vec::new();
        // Bytes of a packet on its way to the control stream.
        let mut passing = 0;
        loop {
            let mut at = 0;
            while at < input.len() {
                let rest: &[u8] = &input[at..];
                if passing > 0 {
                    let some = rest.len().min(passing);
                    if control.write_all(&rest[..some]).await.is_err() {
                        return Ok(());
                    }
                    passing -= some;
                    at += some;
                    continue;
                }
                if !is_answer(rest[0]) {
                    let Some(len) = packet_len(rest) else {
                        break;
                    };
                    passing = len;
                    continue;
                }
                let Ok(Some(frame)) = split_frame(rest, u32::MAX) else {
                    break;
                };
                let to = self
                    .answers
                    .lock()
                    .unanswered
                    .answered(frame.first, frame.body);
                let told = match to {
                    Some(stream) => self.answer(stream, frame.bytes).await,
                    None => false,
                };
                if !told && control.write_all(frame.bytes).await.is_err() {
                    return Ok(());
                }
                at += frame.bytes.len();
            }
            input.drain(..at);
            if input.is_empty() {
                // Nothing is kept while nothing comes.
                input = Vec::new();
            }
            if shard.readable().await.is_err() {
                break;
            }
            input.reserve(READ_BYTES);
            match shard.try_read_buf(&mut input) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        if control.finish().is_ok() {
            let _ = tokio::time::timeout(LINGER, control.stopped()).await;
        }
        Ok(())
    }

    /// Sends an answer on a data stream; whether it could be.
    async fn answer(&self, number: StreamNumber, packet: &[u8]) -> bool {
        let send = {
            let mut answers = self.answers.lock();
            let stream = answers.streams.get_mut(&number);
            stream.and_then(|stream| stream.send.take())
        };
        let Some(mut send) = send else {
            return false;
        };
        let told = send.write_all(packet).await.is_ok();
        let mut answers = self.answers.lock();
        if let Some(stream) = answers.streams.get_mut(&number) {
            stream.send = Some(send);
        }
        answers.let_go(number);
        told
    }
}

impl Answers {
    /// Ends our half of a stream whose client is done and has its answers.
    fn let_go(&mut self, number: StreamNumber) {
        let done = self
            .streams
            .get(&number)
            .is_some_and(|stream| stream.ended && stream.send.is_some());
        if done
            && !self.unanswered.awaits(number)
            && let Some(DataStream {
                send: Some(mut send),
                ..
            }) = self.streams.remove(&number)
            && send.finish().is_err()
        {
            let _ = send.reset(VarInt::from_u32(0));
        }
    }
}

/// Bytes of the packet that begins here, once its fixed header is there.
fn packet_len(input: &[u8]) -> Option<usize> {
    let mut remaining = 0;
    for (at, byte) in input.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(2 + at + remaining);
        }
    }
    None
}
