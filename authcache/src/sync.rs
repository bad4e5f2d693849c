//! Atomics and the replaceable pointer, or their checked twins under `cfg(loom)`.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use std::sync::Arc;

/// A shared value that its single writer replaces as a whole. Readers never wait.
#[cfg(not(loom))]
pub(crate) struct Swap<T>(arc_swap::ArcSwap<T>);

#[cfg(not(loom))]
impl<T> Swap<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(value))
    }

    /// Looks at the value; what was stored before it was put in place is visible.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.load())
    }

    pub(crate) fn full(&self) -> Arc<T> {
        self.0.load_full()
    }

    pub(crate) fn store(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

/// The twin for loom: a position in a short list of values, so that a reader may be handed any
/// value that the memory model allows, not only the newest as behind a lock.
#[cfg(loom)]
pub(crate) struct Swap<T> {
    at: loom::sync::atomic::AtomicUsize,
    values: [std::sync::OnceLock<Arc<T>>; 4],
}

#[cfg(loom)]
impl<T> Swap<T> {
    pub(crate) fn new(value: T) -> Self {
        let swap = Self {
            at: loom::sync::atomic::AtomicUsize::new(0),
            values: Default::default(),
        };
        let _ = swap.values[0].set(Arc::new(value));
        swap
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.full())
    }

    pub(crate) fn full(&self) -> Arc<T> {
        self.values[self.at.load(Ordering::Acquire)]
            .get()
            .expect("a position is stored after its value")
            .clone()
    }

    pub(crate) fn store(&self, value: T) {
        let next = self.at.load(Ordering::Relaxed) + 1;
        assert!(self.values[next].set(Arc::new(value)).is_ok());
        self.at.store(next, Ordering::Release);
    }
}
