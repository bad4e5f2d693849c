//! Wakes an epoll when another thread has something to say.

use std::sync::Arc;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fd::OwnedFd;

use crate::error::Error;

/// Clones ring the same bell.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    /// Its events bear this number.
    pub(crate) const NUMBER: u64 = u64::MAX - 1;

    /// # Errors
    /// The system gives no event counter.
    pub(crate) fn new() -> Result<Bell, Error> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Bell(Arc::new(eventfd(0, flags)?)))
    }

    /// Lets `epoll` hear it, for every ring after this and for those before it.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn wake(&self, epoll: &OwnedFd) -> Result<(), Error> {
        let data = epoll::EventData::new_u64(Bell::NUMBER);
        // Ringing is an edge: nobody reads the counter.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(epoll, &*self.0, data, flags)?)
    }

    pub(crate) fn ring(&self) {
        // A counter that is full is ringing.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}
