//! Listening sockets: one per shard on the same port, so that the kernel spreads connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::CoapListener;
use crate::reactor::admission::Admission;
use crate::reactor::coap::CoapDoor;
use crate::reactor::door::Door;
use crate::reactor::dtls::DtlsDoor;
use crate::reactor::tcp::ip_of;

/// One shard's end of a listener.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    /// Which listener of the configuration.
    pub(crate) number: u8,
    /// What lies between its sockets and MQTT.
    pub(crate) door: Arc<Door>,
    admission: Arc<Admission>,
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Binds `shards` sockets to one address; the address with the port that was chosen for port 0.
///
/// # Errors
///
/// When the address cannot be bound, among others because another process has it.
pub(crate) fn bind(
    address: SocketAddr,
    shards: usize,
    number: u8,
    door: &Arc<Door>,
    admission: &Arc<Admission>,
) -> io::Result<(SocketAddr, Vec<Listener>)> {
    // Sockets that share a port would also share it with a second broker: a bind that does not
    // share finds out whether somebody is there.
    let probe = socket(address, false)?;
    let bound = local(&probe)?;
    drop(probe);
    let mut listeners = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = socket(bound, true)?;
        // Batches are made by the turn; the kernel must not wait for more. Whatever is accepted
        // inherits it.
        socket.set_tcp_nodelay(true)?;
        socket.listen(BACKLOG)?;
        listeners.push(Listener {
            socket,
            number,
            door: Arc::clone(door),
            admission: Arc::clone(admission),
        });
    }
    Ok((bound, listeners))
}

fn socket(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the socket has no internet address"))
}

/// Bytes that may wait in a socket of datagrams; the system may allow less.
const DATAGRAM_BYTES: usize = 4 << 20;

impl CoapDoor {
    /// Binds `shards` sockets for datagrams to one address, as [`bind`] does for connections; the
    /// system deals peers out by a hash of their addresses.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub(crate) fn bind(
        wanted: &CoapListener,
        shards: usize,
        number: u8,
        dtls: Option<&dyn Fn() -> io::Result<DtlsDoor>>,
    ) -> io::Result<(SocketAddr, Vec<CoapDoor>)> {
        let probe = datagrams(wanted.address, false)?;
        let bound = local(&probe)?;
        drop(probe);
        let mut doors = Vec::with_capacity(shards);
        for _ in 0..shards {
            let socket = datagrams(bound, true)?;
            let _ = socket.set_recv_buffer_size(DATAGRAM_BYTES);
            let _ = socket.set_send_buffer_size(DATAGRAM_BYTES);
            doors.push(CoapDoor {
                socket: socket.into(),
                listener: number,
                insecure: wanted.insecure,
                echo: wanted.echo,
                created: wanted.created,
                dtls: dtls.map(|options| options()).transpose()?.map(Arc::new),
            });
        }
        Ok((bound, doors))
    }
}

fn datagrams(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

impl Listener {
    /// The next connection, `None` inside where its address is not let in; `None` when nobody
    /// waits.
    pub(crate) fn accept(&self) -> rustix::io::Result<Option<Option<OwnedFd>>> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        loop {
            let (fd, peer) = match rustix::net::acceptfrom_with(&self.socket, flags) {
                Ok(accepted) => accepted,
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
                Err(error) => return Err(error),
            };
            let admitted = peer
                .and_then(ip_of)
                .is_some_and(|peer| self.admits(peer, &fd));
            return Ok(Some(admitted.then_some(fd)));
        }
    }

    /// Behind a proxy only the proxy is let in, which stands for many: its clients are not counted
    /// by address.
    fn admits(&self, peer: IpAddr, fd: &OwnedFd) -> bool {
        if self.door.proxies.is_empty() {
            return self.admission.admit(peer, fd.as_raw_fd(), Instant::now());
        }
        self.door.proxies.iter().any(|proxy| proxy.contains(peer))
    }

    /// Takes the next connection and closes it.
    pub(crate) fn turn_away(&self) {
        if let Ok(Some(Some(fd))) = self.accept() {
            self.admission.left(fd.as_raw_fd());
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
