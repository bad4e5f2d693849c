//! The clock as an argument.

/// A moment on the node's monotonic clock, in milliseconds since an arbitrary start.
///
/// Machines never read a clock; whoever drives them passes the moment in.
#[derive(Copy, Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Now(u64);

impl Now {
    /// The moment `ms` milliseconds after the clock's start.
    pub const fn from_millis(ms: u64) -> Now {
        Now(ms)
    }

    /// Milliseconds since the clock's start.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the clock's start, wrapping after 136 years.
    pub const fn as_secs(self) -> u32 {
        (self.0 / 1000) as u32
    }

    /// The moment `seconds` later.
    pub const fn plus_secs(self, seconds: u32) -> Now {
        Now(self.0.saturating_add(seconds as u64 * 1000))
    }

    /// The moment `ms` milliseconds later.
    pub const fn plus_millis(self, ms: u64) -> Now {
        Now(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 if it lies ahead.
    pub const fn millis_since(self, earlier: Now) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
