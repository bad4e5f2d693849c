//! The line of a slot that every message touches.

use authcache::{PrincipalIndex, RightCache};

use crate::message::Address;
use crate::now::Now;

/// The part of a connection that the fast path reads: one cache line, inline in its slot.
#[derive(Debug)]
pub struct Hot {
    /// Who is connected.
    pub principal: PrincipalIndex,
    /// Largest packet the client takes, in bytes (MQTT 5, 3.1.2.11.4); `u32::MAX` without a limit.
    pub maximum_packet_size: u32,
    /// When the last whole packet came, in seconds of [`Now`].
    pub last_seen_s: u32,
    /// Seconds of silence after which the connection ends (1.5 Keep Alives), 0 for never.
    pub silence_max_s: u16,
    pub(crate) mode: Mode,
    /// Which listener's rules hold.
    pub listener: u8,
    pub(crate) rights: RightCache,
    pub(crate) memo: Option<Box<TopicMemo>>,
}

/// What the fast path needs to know of the state in the cold box.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Mode(u8);

impl Mode {
    /// CONNACK 0x00 has been sent.
    pub(crate) const LIVE: Mode = Mode(1);
    /// The connection speaks MQTT 5.
    pub(crate) const VERSION5: Mode = Mode(2);
    /// PUBLISH to this client may use topic aliases, so frames cannot be passed on as they are.
    pub(crate) const ALIASED: Mode = Mode(4);
    /// Input is not taken: an answer about the connection is awaited, or it is over.
    pub(crate) const HELD: Mode = Mode(8);

    pub(crate) fn has(self, other: Mode) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn with(self, other: Mode) -> Mode {
        Mode(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Mode) -> Mode {
        Mode(self.0 & !other.0)
    }
}

/// The topic a publisher used last and where it led.
///
/// Only canonical topics and those of the open namespace are remembered: their frames may leave
/// as they came.
#[derive(Debug)]
pub(crate) struct TopicMemo {
    pub(crate) topic: String,
    pub(crate) address: Address,
    /// The directory's generation at which the address was found.
    pub(crate) generation: u32,
}

impl Hot {
    /// The state of a connection that has said nothing yet.
    pub fn new(listener: u8, now: Now) -> Hot {
        Hot {
            principal: PrincipalIndex::new(u32::MAX),
            maximum_packet_size: u32::MAX,
            last_seen_s: now.as_secs(),
            silence_max_s: 0,
            mode: Mode::default(),
            listener,
            rights: RightCache::default(),
            memo: None,
        }
    }

    /// Whether CONNACK 0x00 has been sent and the connection is not over.
    #[inline]
    pub fn is_live(&self) -> bool {
        self.mode.has(Mode::LIVE)
    }

    /// Whether the connection speaks MQTT 5.
    #[inline]
    pub fn is_version5(&self) -> bool {
        self.mode.has(Mode::VERSION5)
    }

    /// Whether frames of up to `longest` bytes may be passed on as they are.
    #[inline]
    pub fn takes_frames(&self, longest: u32) -> bool {
        longest <= self.maximum_packet_size && !self.mode.has(Mode::ALIASED)
    }

    /// Whether runs may be taken without a look at the cold box.
    #[inline]
    pub(crate) fn takes_runs(&self) -> bool {
        self.mode.has(Mode::LIVE) && !self.mode.has(Mode::HELD)
    }

    /// Takes no input any more, or takes it again.
    pub(crate) fn hold(&mut self, held: bool) {
        self.mode = if held {
            self.mode.with(Mode::HELD)
        } else {
            self.mode.without(Mode::HELD)
        };
    }

    /// CONNACK 0x00 is being sent.
    pub(crate) fn begin(&mut self, version5: bool, aliased: bool) {
        self.mode = Mode::LIVE;
        if version5 {
            self.mode = self.mode.with(Mode::VERSION5);
        }
        if aliased {
            self.mode = self.mode.with(Mode::ALIASED);
        }
    }

    /// The connection is over: nothing of it may be taken for the next one's.
    pub(crate) fn end(&mut self) {
        self.mode = Mode::default();
        self.memo = None;
        self.silence_max_s = 0;
        self.maximum_packet_size = u32::MAX;
    }

    /// Cached rights are stale because the principal's changed.
    pub fn rights_changed(&mut self) {
        self.rights.clear();
    }

    /// The second at which silence ends the connection, `None` if it may be silent for ever.
    ///
    /// Both ends are whole seconds, cut off: one more makes sure that it is never too early.
    /// [MQTT-3.1.2-24] [MQTT3-3.1.2-24]
    pub fn silence_ends_s(&self) -> Option<u32> {
        (self.silence_max_s > 0).then(|| {
            self.last_seen_s
                .saturating_add(u32::from(self.silence_max_s) + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_line_fits_its_cache_line() {
        assert!(std::mem::size_of::<Hot>() <= 64);
    }

    #[test]
    fn silence_is_never_cut_short() {
        // [MQTT-3.1.2-24] [MQTT3-3.1.2-24]
        let mut hot = Hot::new(0, Now::from_millis(10_999));
        assert_eq!(hot.silence_ends_s(), None);
        hot.silence_max_s = crate::mqtt::keep_alive::silence_max_s(2);
        assert_eq!(hot.silence_ends_s(), Some(14), "not before 13.999 s");
    }
}
