//! Descriptors on their way between threads that have tables of descriptors of their own.
//!
//! Linux bounds the descriptors of a table (`RLIMIT_NOFILE`), and threads share one unless they
//! say otherwise. With `own_descriptors` each shard has its own, so that a process holds as many
//! connections as all its shards together. A connection that moves to its session's home is then
//! sent over a socket of the two (`SCM_RIGHTS`), and its number means nothing on the way.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::thread::UnshareFlags;

/// A descriptor in the table of whoever holds this, or on its way there.
#[derive(Debug)]
pub(crate) enum Descriptor {
    /// In this thread's table.
    Here(OwnedFd),
    /// In the socket of the shard that it is for.
    Ferried(Ferried),
}

/// Names a descriptor on its way.
#[derive(Debug)]
pub(crate) struct Ferried(u64);

/// A socket to each shard. It is made before any table becomes a shard's own, so that its
/// descriptors mean the same in all of them.
#[derive(Debug)]
pub(crate) struct Ferry {
    /// For each shard the end that others send to, and the end that it receives from.
    ends: Vec<(OwnedFd, OwnedFd)>,
    next: AtomicU64,
}

/// The receiving end of one shard.
#[derive(Debug)]
pub(crate) struct Dock {
    ferry: std::sync::Arc<Ferry>,
    shard: usize,
    /// Descriptors that came before they were asked for.
    waiting: HashMap<u64, OwnedFd>,
}

/// Bytes that may wait in a socket: some thousand descriptors, each with its number.
const SOCKET_BYTES: usize = 4 << 20;

/// Gives the calling thread a table of descriptors of its own, a copy of the one it shared.
///
/// What makes this delicate is that a descriptor's number names something else, or nothing, in
/// another thread from then on, while `OwnedFd` may travel between threads. It is sound here
/// because none does: `start` makes whatever a shard shares with others (listeners, wakers, the
/// ferry) before its thread begins, so their numbers are in every copy, and nobody closes them
/// while the process runs; whatever a shard opens later stays in its thread, but for connections,
/// which cross as [`Ferried`] and are given a number by the receiving table.
///
/// # Errors
/// The system refuses.
#[expect(
    deprecated,
    reason = "the function that replaces it is unsafe for the reason argued above"
)]
pub(crate) fn own_descriptors() -> io::Result<()> {
    Ok(rustix::thread::unshare(UnshareFlags::FILES)?)
}

impl Ferry {
    /// # Errors
    /// The system gives no sockets.
    pub(crate) fn new(shards: usize) -> io::Result<Ferry> {
        let pair = || -> io::Result<(OwnedFd, OwnedFd)> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let kind = SocketType::SEQPACKET;
            let (to, from) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
            // As much as the system allows.
            rustix::net::sockopt::set_socket_send_buffer_size(&to, SOCKET_BYTES)?;
            Ok((to, from))
        };
        Ok(Ferry {
            ends: (0..shards).map(|_| pair()).collect::<io::Result<_>>()?,
            next: AtomicU64::new(0),
        })
    }

    /// Sends a descriptor to a shard; here it is closed.
    ///
    /// # Errors
    /// So many wait there that there is no room.
    pub(crate) fn send(&self, shard: usize, fd: &OwnedFd) -> io::Result<Ferried> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let borrowed = [fd.as_fd()];
        rights.push(SendAncillaryMessage::ScmRights(&borrowed));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let (to, _) = self.ends.get(shard).ok_or(io::ErrorKind::NotFound)?;
        sendmsg(
            to,
            &[IoSlice::new(&number.to_be_bytes())],
            &mut rights,
            flags,
        )?;
        Ok(Ferried(number))
    }
}

impl Dock {
    pub(crate) fn new(ferry: std::sync::Arc<Ferry>, shard: usize) -> Dock {
        Dock {
            ferry,
            shard,
            waiting: HashMap::new(),
        }
    }

    pub(crate) fn ferry(&self) -> &Ferry {
        &self.ferry
    }

    /// The descriptor with this name. It was sent before its name was posted, so it is there.
    ///
    /// # Errors
    /// It is not, because this table is full.
    pub(crate) fn receive(&mut self, ferried: &Ferried) -> io::Result<OwnedFd> {
        loop {
            if let Some(fd) = self.waiting.remove(&ferried.0) {
                return Ok(fd);
            }
            let (number, fd) = self.next()?;
            if let Some(fd) = fd {
                self.waiting.insert(number, fd);
            } else if number == ferried.0 {
                return Err(rustix::io::Errno::MFILE.into());
            }
        }
    }

    fn next(&self) -> io::Result<(u64, Option<OwnedFd>)> {
        let mut number = [0; 8];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let (_, from) = self
            .ferry
            .ends
            .get(self.shard)
            .ok_or(io::ErrorKind::NotFound)?;
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        recvmsg(
            from,
            &mut [IoSliceMut::new(&mut number)],
            &mut rights,
            flags,
        )?;
        let fd = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok((u64::from_be_bytes(number), fd))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn descriptors_reach_a_thread_with_a_table_of_its_own_in_any_order() {
        let ferry = Arc::new(Ferry::new(2).unwrap());
        let (post, posted) = channel::<Ferried>();
        let there = Arc::clone(&ferry);
        let thread = std::thread::spawn(move || {
            own_descriptors().unwrap();
            let mut dock = Dock::new(there, 1);
            let mut ferried: Vec<Ferried> = posted.iter().collect();
            ferried.reverse();
            for (at, one) in ferried.iter().enumerate() {
                let fd = dock.receive(one).unwrap();
                rustix::io::write(&fd, &[at as u8]).unwrap();
            }
        });
        let mut ends = Vec::new();
        for _ in 0..3 {
            let kind = SocketType::STREAM;
            let (ours, theirs) =
                socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
            post.send(ferry.send(1, &theirs).unwrap()).unwrap();
            ends.push(ours);
        }
        drop(post);
        for (end, expected) in ends.iter().zip([2, 1, 0]) {
            let mut byte = [9];
            assert_eq!(rustix::io::read(end, &mut byte).unwrap(), 1);
            assert_eq!(byte, [expected]);
        }
        thread.join().unwrap();
    }

    #[test]
    fn a_full_socket_refuses_and_what_was_never_sent_does_not_come() {
        let ferry = Arc::new(Ferry::new(1).unwrap());
        let flags = SocketFlags::CLOEXEC;
        let (fd, _) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let sent = (0..).take_while(|_| ferry.send(0, &fd).is_ok()).count();
        assert!(sent > 100, "{sent}");
        let mut dock = Dock::new(Arc::clone(&ferry), 0);
        assert!(dock.receive(&Ferried(0)).is_ok());
        assert!(dock.receive(&Ferried(u64::MAX)).is_err());
        assert!(dock.receive(&Ferried(1)).is_ok(), "kept meanwhile");
    }
}
