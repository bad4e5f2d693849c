//! The proof that the gate let a value pass.

use std::fmt;
use std::ops::Deref;

use crate::index::ChannelIndex;

/// A value that names the channel it concerns, so that what is judged is what is routed.
pub trait OnChannel {
    /// The channel on which the right is needed.
    fn channel(&self) -> ChannelIndex;
}

/// A value that the gate has permitted. Only [`Gate`](crate::Gate) makes one.
///
/// It can be read but not altered, and what is taken out of it is no proof any more. A value that
/// borrows the turn's read buffer cannot be kept past the turn; what waits in a queue is stored
/// without proof and judged again when it leaves.
///
/// It cannot be forged: the field is private (E0451).
/// ```compile_fail,E0451
/// use authcache::{ChannelIndex, Permitted};
/// let forged = Permitted { value: ChannelIndex::new(7) };
/// ```
///
/// It cannot be altered after the judgement (E0594).
/// ```compile_fail,E0594
/// struct Message { channel: u32 }
/// fn swap(mut proof: authcache::Permitted<Message>) {
///     proof.channel = 8;
/// }
/// ```
///
/// A proof on a buffer does not outlive the turn that owns the buffer (E0521).
/// ```compile_fail,E0521
/// use authcache::Permitted;
/// fn turn(proof: Permitted<&[u8]>) {
///     std::thread::spawn(move || drop(proof));
/// }
/// ```
///
/// The same code passes with a value that owns what it needs.
/// ```
/// use authcache::Permitted;
/// fn turn(proof: Permitted<Vec<u8>>) {
///     std::thread::spawn(move || drop(proof));
/// }
/// ```
#[must_use = "a permitted value is meant to be routed"]
pub struct Permitted<T> {
    value: T,
}

impl<T> Permitted<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { value }
    }

    /// Gives the value back and the proof up.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Permitted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Permitted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permitted").field(&self.value).finish()
    }
}
