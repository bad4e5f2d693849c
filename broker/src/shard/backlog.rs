//! What waits for a wire that is full.

use std::collections::VecDeque;
use std::sync::Arc;

use authcache::ChannelIndex;
use codec::mqtt::{PacketId, QoS};
use session::OutBuffer;

/// Frames that could not be sent, in order, each span with its channel.
///
/// `bytes == rest.len() + the length of all spans`. QoS 0 messages beyond the connection's bound
/// are dropped before they come here; what a connection owes its own client is bounded because
/// it is not read while much of that waits.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// What is left of a frame whose first bytes were sent: it cannot be called back.
    rest: Vec<u8>,
    sent_of_rest: usize,
    spans: VecDeque<Waiting>,
    bytes: usize,
    /// Bytes of the spans that belong to no channel: answers to the client's own packets.
    answers: usize,
    /// When the wire took bytes last, in milliseconds.
    pub(crate) progress_ms: u64,
}

#[derive(Debug)]
struct Waiting {
    channel: Option<ChannelIndex>,
    frames: Frames,
}

/// Frames owned by one connection, or shared by all that wait for them.
#[derive(Debug)]
pub(crate) enum Frames {
    Own(Box<[u8]>),
    Shared(Arc<[u8]>),
}

impl Frames {
    fn bytes(&self) -> &[u8] {
        match self {
            Frames::Own(bytes) => bytes,
            Frames::Shared(bytes) => bytes,
        }
    }
}

impl Backlog {
    /// The unsent part of an out-buffer of which `sent` bytes were taken by the wire.
    pub(crate) fn behind(out: &OutBuffer, sent: usize, now_ms: u64) -> Backlog {
        let mut backlog = Backlog {
            progress_ms: now_ms,
            ..Backlog::default()
        };
        let mut begin = 0;
        for (frames, channel) in out.spans() {
            let end = begin + frames.len();
            if end > sent {
                if begin >= sent {
                    backlog.push(channel, Frames::Own(frames.into()));
                } else {
                    let whole = next_boundary(frames, sent - begin);
                    backlog.rest.extend_from_slice(&frames[sent - begin..whole]);
                    backlog.bytes += backlog.rest.len();
                    if whole < frames.len() {
                        backlog.push(channel, Frames::Own(frames[whole..].into()));
                    }
                }
            }
            begin = end;
        }
        backlog
    }

    /// Adds frames behind all others.
    pub(crate) fn push(&mut self, channel: Option<ChannelIndex>, frames: Frames) {
        self.bytes += frames.bytes().len();
        if channel.is_none() {
            self.answers += frames.bytes().len();
        }
        self.spans.push_back(Waiting { channel, frames });
    }

    /// Adds all of an out-buffer.
    pub(crate) fn push_all(&mut self, out: &OutBuffer) {
        for (frames, channel) in out.spans() {
            self.push(channel, Frames::Own(frames.into()));
        }
    }

    /// Takes out the messages that wait longest until `bytes` more are within `bytes_max`.
    pub(crate) fn make_room(
        &mut self,
        bytes: usize,
        bytes_max: usize,
        mut dropped: impl FnMut(&[u8]),
    ) {
        while self.bytes + bytes > bytes_max {
            let oldest = self.spans.iter().position(|span| span.channel.is_some());
            let Some(span) = oldest.and_then(|at| self.spans.remove(at)) else {
                return;
            };
            self.bytes -= span.frames.bytes().len();
            dropped(span.frames.bytes());
        }
    }

    /// Takes out what waits for a channel; a frame that was begun stays.
    pub(crate) fn remove_channel(&mut self, channel: ChannelIndex, mut dropped: impl FnMut(&[u8])) {
        let bytes = &mut self.bytes;
        self.spans.retain(|waiting| {
            let goes = waiting.channel == Some(channel);
            if goes {
                *bytes -= waiting.frames.bytes().len();
                dropped(waiting.frames.bytes());
            }
            !goes
        });
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of answers to the client's own packets that wait.
    pub(crate) fn answers(&self) -> usize {
        self.answers
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Offers what waits to `send` until it takes no more; spans whose channel may not be read
    /// any more go to `dropped`. `None` when the peer is gone.
    pub(crate) fn drain(
        &mut self,
        now_ms: u64,
        may: impl Fn(ChannelIndex) -> bool,
        mut send: impl FnMut(&[u8]) -> Option<usize>,
        mut dropped: impl FnMut(&[u8]),
    ) -> Option<()> {
        loop {
            if self.sent_of_rest < self.rest.len() {
                let taken = send(&self.rest[self.sent_of_rest..])?;
                if taken > 0 {
                    self.progress_ms = now_ms;
                }
                self.sent_of_rest += taken;
                self.bytes -= taken;
                // Fewer than given means that the wire is full: it is not asked again.
                if self.sent_of_rest < self.rest.len() {
                    return Some(());
                }
            }
            self.rest.clear();
            self.sent_of_rest = 0;
            // Many small spans leave with one call.
            let mut gathered = Vec::new();
            while self.rest.len() < 64 << 10 {
                let Some(next) = self.spans.pop_front() else {
                    break;
                };
                if next.channel.is_none() {
                    self.answers -= next.frames.bytes().len();
                }
                if next.channel.is_none_or(&may) {
                    self.rest.extend_from_slice(next.frames.bytes());
                    gathered.push(next);
                } else {
                    self.bytes -= next.frames.bytes().len();
                    dropped(next.frames.bytes());
                }
            }
            if gathered.is_empty() {
                self.rest.shrink_to(64 << 10);
                return Some(());
            }
            let taken = send(&self.rest)?;
            if taken > 0 {
                self.progress_ms = now_ms;
            }
            self.bytes -= taken;
            let full = taken < self.rest.len();
            self.rest.clear();
            if full {
                self.put_back(gathered, taken);
                return Some(());
            }
        }
    }

    /// What was gathered and not sent goes back with its channels, to be judged when it leaves;
    /// a frame that was begun is finished first, whatever becomes of its channel.
    fn put_back(&mut self, gathered: Vec<Waiting>, taken: usize) {
        let mut begin = 0;
        let mut later = Vec::new();
        for waiting in gathered {
            let bytes = waiting.frames.bytes();
            let end = begin + bytes.len();
            if begin >= taken {
                later.push(waiting);
            } else if end > taken {
                let whole = next_boundary(bytes, taken - begin);
                self.rest.extend_from_slice(&bytes[taken - begin..whole]);
                if whole < bytes.len() {
                    let frames = Frames::Own(bytes[whole..].into());
                    later.push(Waiting {
                        channel: waiting.channel,
                        frames,
                    });
                }
            }
            begin = end;
        }
        for waiting in later.into_iter().rev() {
            if waiting.channel.is_none() {
                self.answers += waiting.frames.bytes().len();
            }
            self.spans.push_front(waiting);
        }
    }
}

/// The first frame boundary at or behind `offset`, of frames that begin at 0.
fn next_boundary(frames: &[u8], offset: usize) -> usize {
    let mut at = 0;
    while at < offset {
        match frame_len(&frames[at..]) {
            Some(len) => at += len,
            None => return frames.len(),
        }
    }
    at
}

/// Bytes of the frame at the start of `bytes`, which is whole.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let mut value = 0usize;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let len = 2 + at + value;
            return (len <= bytes.len()).then_some(len);
        }
    }
    None
}

/// How many PUBLISH packets are among `frames`.
pub(crate) fn publishes(mut frames: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(len) = frame_len(frames) {
        count += u64::from(frames[0] >> 4 == 3);
        frames = &frames[len..];
    }
    count
}

/// The Packet Identifiers of the QoS 1 and 2 PUBLISH packets among `frames`.
pub(crate) fn packet_ids(mut frames: &[u8]) -> Vec<PacketId> {
    let mut ids = Vec::new();
    while let Some(len) = frame_len(frames) {
        let frame = &frames[..len];
        let qos = QoS::from_bits((frame[0] >> 1) & 3);
        if frame[0] >> 4 == 3 && qos.is_some_and(|qos| qos != QoS::AtMostOnce) {
            let head = 1
                + frame
                    .iter()
                    .skip(1)
                    .take_while(|byte| **byte & 0x80 != 0)
                    .count()
                + 1;
            let id = frame
                .get(head..head + 2)
                .map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
                .and_then(|topic| frame.get(head + 2 + topic..head + 4 + topic))
                .and_then(|bytes| PacketId::new(u16::from_be_bytes([bytes[0], bytes[1]])));
            ids.extend(id);
        }
        frames = &frames[len..];
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QoS 1 PUBLISH on a one-byte topic.
    fn publish(id: u8) -> [u8; 7] {
        [0x32, 5, 0, 1, b't', 0, id]
    }

    fn out(frames: &[(u32, u8)]) -> OutBuffer {
        let mut out = OutBuffer::default();
        for &(channel, id) in frames {
            out.mark(Some(ChannelIndex::new(channel)));
            out.bytes.extend_from_slice(&publish(id));
        }
        out
    }

    fn drain_all(backlog: &mut Backlog, revoked: u32, step: usize) -> (Vec<u8>, Vec<PacketId>) {
        let mut sent = Vec::new();
        let mut dropped = Vec::new();
        while !backlog.is_empty() {
            let mut budget = step;
            let may = |channel: ChannelIndex| channel.get() != revoked;
            let send = |bytes: &[u8]| {
                let taken = bytes.len().min(budget);
                budget -= taken;
                sent.extend_from_slice(&bytes[..taken]);
                Some(taken)
            };
            let drop = |frames: &[u8]| dropped.extend(packet_ids(frames));
            backlog
                .drain(0, may, send, drop)
                .expect("the peer is there");
        }
        (sent, dropped)
    }

    #[test]
    fn begun_frame_is_finished_and_the_rest_of_a_revoked_channel_is_dropped() {
        for sent in 0..=21 {
            for step in 1..=22 {
                let out = out(&[(1, 1), (1, 2), (2, 3)]);
                let mut backlog = Backlog::behind(&out, sent, 0);
                assert_eq!(backlog.bytes(), 21 - sent);
                let (rest, dropped) = drain_all(&mut backlog, 1, step);
                let mut whole = out.bytes[..sent].to_vec();
                whole.extend_from_slice(&rest);
                let begun = sent.div_ceil(7);
                let mut expected = out.bytes[..7 * begun].to_vec();
                if begun < 3 {
                    expected.extend_from_slice(&publish(3));
                }
                assert_eq!(whole, expected, "{sent} bytes were sent before");
                assert_eq!(dropped.len(), 2usize.saturating_sub(begun));
            }
        }
    }

    #[test]
    fn answers_are_counted_apart_from_messages() {
        let mut out = out(&[(1, 1), (1, 2)]);
        out.mark(None);
        out.bytes.extend_from_slice(&[0x40, 2, 0, 1]);
        let mut backlog = Backlog::behind(&out, 3, 0);
        for step in [5, 3, 9] {
            assert_eq!(backlog.answers(), 4, "the messages before them wait too");
            let mut budget = step;
            let send = |bytes: &[u8]| {
                let taken = bytes.len().min(budget);
                budget -= taken;
                Some(taken)
            };
            backlog
                .drain(0, |_| true, send, |_| ())
                .expect("the peer is there");
        }
        assert_eq!((backlog.answers(), backlog.bytes()), (0, 0));
    }

    #[test]
    fn shared_frames_leave_in_order_behind_what_waited_before() {
        let mut backlog = Backlog::behind(&out(&[(1, 1)]), 3, 0);
        backlog.push(
            Some(ChannelIndex::new(1)),
            Frames::Shared(Arc::from(&publish(2)[..])),
        );
        let (sent, _) = drain_all(&mut backlog, 9, 4);
        assert_eq!(sent, [&publish(1)[3..], &publish(2)].concat());
    }
}
