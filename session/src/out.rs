//! The bytes of a turn for one connection, and the channels they came from.

use authcache::ChannelIndex;
use codec::mqtt::QoS;

/// Frames for one peer, back to back, with the channel of each span of them.
///
/// A connection that cannot take all of them keeps the rest; a right that goes away meanwhile
/// takes the spans of its channel out of it.
#[derive(Debug, Default)]
pub struct OutBuffer {
    /// Whole frames. What a machine says of itself is written here directly.
    pub bytes: Vec<u8>,
    /// Ascending starts; a span reaches to the next one's start.
    spans: Vec<Span>,
    /// By QoS, the PUBLISH packets written since they were asked for.
    published: [Published; 3],
}

/// PUBLISH packets of one QoS and their bytes.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct Published {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Where the frames of one channel begin.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Span {
    /// Offset into the bytes.
    pub start: u32,
    /// The channel, `None` for what belongs to the connection itself.
    pub channel: Option<ChannelIndex>,
}

impl OutBuffer {
    /// Says that what is written next belongs to `channel`.
    #[inline]
    pub fn mark(&mut self, channel: Option<ChannelIndex>) {
        if self.spans.last().map(|span| span.channel) != Some(channel) {
            self.spans.push(Span {
                start: self.bytes.len() as u32,
                channel,
            });
        }
    }

    /// Says that what was written from `start` on belongs to the connection itself.
    #[inline]
    pub fn claim(&mut self, start: usize) {
        let foreign = self.spans.last().is_some_and(|span| span.channel.is_some());
        if foreign && self.bytes.len() > start {
            self.spans.push(Span {
                start: start as u32,
                channel: None,
            });
        }
    }

    /// Counts a PUBLISH of `bytes` bytes that was written.
    pub(crate) fn count(&mut self, qos: QoS, bytes: usize) {
        let published = &mut self.published[usize::from(qos.as_u8())];
        published.count += 1;
        published.bytes += bytes as u64;
    }

    /// By QoS, the PUBLISH packets written since the last call, retransmissions among them.
    pub fn take_published(&mut self) -> [Published; 3] {
        std::mem::take(&mut self.published)
    }

    /// Empties it and keeps its room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
        self.published = Default::default();
    }

    /// Whether nothing in it came from a channel: it is all the connection's own.
    pub fn is_own(&self) -> bool {
        self.spans.iter().all(|span| span.channel.is_none())
    }

    /// The spans as (bytes, channel), in order.
    pub fn spans(&self) -> impl Iterator<Item = (&[u8], Option<ChannelIndex>)> {
        let first = self
            .spans
            .first()
            .map_or(self.bytes.len(), |span| span.start as usize);
        let unmarked = (first > 0).then(|| (&self.bytes[..first], None));
        let marked = self.spans.iter().enumerate().map(|(at, span)| {
            let end = self
                .spans
                .get(at + 1)
                .map_or(self.bytes.len(), |next| next.start as usize);
            (&self.bytes[span.start as usize..end], span.channel)
        });
        unmarked
            .into_iter()
            .chain(marked)
            .filter(|(bytes, _)| !bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_the_bytes_in_order() {
        let mut out = OutBuffer::default();
        assert!(out.is_own());
        let channel = Some(ChannelIndex::new(7));
        out.bytes.extend_from_slice(b"ab");
        out.mark(channel);
        out.bytes.extend_from_slice(b"c");
        out.mark(channel);
        out.bytes.extend_from_slice(b"d");
        out.mark(None);
        out.bytes.extend_from_slice(b"e");
        let spans: Vec<_> = out.spans().collect();
        assert_eq!(
            spans,
            [(&b"ab"[..], None), (&b"cd"[..], channel), (&b"e"[..], None)]
        );
    }
}
