//! MQTT over QUIC, on the second runtime: each connection's streams are merged into one MQTT
//! connection, which goes through a pipe to a shard like those from the network.

mod relay;
mod streams;

use authcache::feed::ShownCertificate;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::http::Guests;
use crate::reactor::admission::Admission;
use crate::reactor::tls::TlsDoor;
use crate::tls::shown_in;

/// What is spoken inside.
pub(crate) const ALPN: &[&[u8]] = &[b"mqtt"];

/// Streams of one connection at a time: one for control and those of data.
const STREAMS_MAX: u32 = 8;

/// Bytes of one stream that may wait to be read. Each stream has its own share of what a connection
/// may send, so none can take the room that another one's packet needs to be finished.
const STREAM_WINDOW: u32 = 32 << 10;

/// Bytes that were sent and are not acknowledged, of one connection.
const SEND_WINDOW: u64 = 64 << 10;

/// Handshakes at a time, until a control stream is there; who comes beyond is refused.
const HANDSHAKES_MAX: usize = 1_024;

/// How long a handshake may take, with the control stream's first packet.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// Bytes of datagrams that may wait for one handshake to be begun, and for all of them.
const INCOMING_BYTES: u64 = 16 << 10;
const INCOMING_BYTES_ALL: u64 = 8 << 20;

/// How long connections in progress may take once the broker stops.
const GRACE: Duration = Duration::from_secs(5);

/// The Application Error Code of a connection that ends in order.
const DONE: VarInt = VarInt::from_u32(0);

/// That of a connection whose peer broke a rule.
const FAULT: VarInt = VarInt::from_u32(1);

/// What every connection needs.
pub(crate) struct Quic {
    /// The way into the shards, with the number of this listener's rules.
    pub(crate) guests: Guests,
    /// The certificates of the moment.
    pub(crate) door: Arc<TlsDoor>,
    /// The largest packet.
    pub(crate) packet_bytes_max: u32,
    /// Silence after which a connection is over; 0 for never.
    pub(crate) idle: Duration,
    /// Whether clients are served; no connection is accepted before.
    pub(crate) serving: watch::Receiver<bool>,
    /// Bounds per address, as for all listeners.
    pub(crate) admission: Arc<Admission>,
    /// Told when the broker stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// The certificates that were used last, and what QUIC makes of them.
struct Current {
    tls: Arc<rustls::ServerConfig>,
    config: Arc<ServerConfig>,
}

impl Quic {
    /// Binds the address: one socket, since a connection that migrates would reach another one of
    /// several.
    ///
    /// # Errors
    /// When the address is taken, or the certificates cannot be used for QUIC.
    pub(crate) fn bind(
        address: SocketAddr,
        door: &TlsDoor,
        idle: Duration,
    ) -> io::Result<(SocketAddr, Endpoint)> {
        let socket = UdpSocket::bind(address)?;
        let bound = socket.local_addr()?;
        let current = Current::first(door, idle)?;
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some((*current.config).clone()),
            socket,
            Arc::new(TokioRuntime),
        )?;
        Ok((bound, endpoint))
    }

    /// Serves until it is told to stop.
    pub(crate) async fn serve(self, endpoint: Endpoint) {
        let mut current = match Current::first(&self.door, self.idle) {
            Ok(current) => current,
            Err(error) => {
                tracing::error!(%error, "QUIC is not served");
                return;
            }
        };
        // The same secrets for the proofs of addresses.
        endpoint.set_server_config(Some((*current.config).clone()));
        let quic = Arc::new(self);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let mut connections = JoinSet::new();
        let mut serving = quic.serving.clone();
        let mut stopping = quic.stopping.clone();
        if serving.wait_for(|serving| *serving).await.is_err() {
            return;
        }
        loop {
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            let Some(incoming) = incoming else {
                break;
            };
            current.renew(&quic.door);
            if let Some((incoming, place, admitted)) = quic.admit(incoming, &handshakes) {
                let config = Arc::clone(&current.config);
                let quic = Arc::clone(&quic);
                connections.spawn(async move {
                    quic.connection(incoming, config, place, &admitted).await;
                });
            }
            while connections.try_join_next().is_some() {}
        }
        // Shards say goodbye to their clients; then nobody is left.
        endpoint.set_server_config(None);
        let _ = tokio::time::timeout(GRACE, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
        connections.shutdown().await;
        endpoint.close(DONE, b"the broker stops");
        let _ = tokio::time::timeout(GRACE, endpoint.wait_idle()).await;
    }

    /// Whether a connection may begin. Its address has to be proven first, so that nobody is
    /// counted, and nobody is answered with more than came, for a forged one.
    fn admit(
        &self,
        incoming: Incoming,
        handshakes: &Arc<Semaphore>,
    ) -> Option<(Incoming, OwnedSemaphorePermit, Admitted)> {
        if !incoming.remote_address_validated() {
            if let Err(refused) = incoming.retry() {
                refused.into_incoming().refuse();
            }
            return None;
        }
        let Ok(place) = Arc::clone(handshakes).try_acquire_owned() else {
            incoming.refuse();
            return None;
        };
        let ip = incoming.remote_address().ip().to_canonical();
        if !self.admission.admit_peer(ip, Instant::now()) {
            incoming.refuse();
            return None;
        }
        let admitted = Admitted {
            admission: Arc::clone(&self.admission),
            ip,
        };
        Some((incoming, place, admitted))
    }

    async fn connection(
        &self,
        incoming: Incoming,
        config: Arc<ServerConfig>,
        place: OwnedSemaphorePermit,
        admitted: &Admitted,
    ) {
        let began = async {
            let connection = incoming.accept_with(config)?.await?;
            let control = connection.accept_bi().await?;
            Ok::<_, quinn::ConnectionError>((connection, control))
        };
        let (connection, control) = match tokio::time::timeout(HANDSHAKE_WAIT, began).await {
            Ok(Ok(began)) => began,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a QUIC connection failed");
                return;
            }
            Err(_) => return,
        };
        drop(place);
        let name = self.door.identifies().then(|| shown_by(&connection));
        let pipe = match self.guests.pipe(admitted.ip, name.flatten()) {
            Ok(pipe) => pipe,
            Err(error) => {
                tracing::warn!(%error, "a QUIC connection cannot be accepted now");
                connection.close(DONE, b"overloaded");
                return;
            }
        };
        match relay::relay(&connection, control, pipe, self.packet_bytes_max).await {
            Ok(()) => connection.close(DONE, b""),
            Err(relay::Fault(why)) => {
                tracing::debug!(why, "a QUIC connection ends");
                connection.close(FAULT, why.as_bytes());
            }
        }
    }
}

/// The certificate that the peer showed.
fn shown_by(connection: &Connection) -> Option<Box<ShownCertificate>> {
    let shown = connection.peer_identity()?;
    let chain = shown.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    shown_in(chain.first()?)
}

/// Counts as a connection of its address while it lives.
struct Admitted {
    admission: Arc<Admission>,
    ip: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.peer_left(self.ip);
    }
}

impl Current {
    fn first(door: &TlsDoor, idle: Duration) -> io::Result<Current> {
        let tls = door.config();
        let crypto = crypto(&tls).map_err(io::Error::other)?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        let idle = match idle {
            Duration::ZERO => None,
            idle => Some(IdleTimeout::try_from(idle).map_err(io::Error::other)?),
        };
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(STREAMS_MAX * STREAM_WINDOW))
            .send_window(SEND_WINDOW)
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(idle);
        config
            .transport_config(Arc::new(transport))
            .migration(true)
            .max_incoming(HANDSHAKES_MAX)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES_ALL);
        Ok(Current {
            tls,
            config: Arc::new(config),
        })
    }

    /// Takes the certificates of the moment; the old ones stay if they cannot be used.
    fn renew(&mut self, door: &TlsDoor) {
        let tls = door.config();
        if Arc::ptr_eq(&tls, &self.tls) {
            return;
        }
        match crypto(&tls) {
            Ok(crypto) => {
                let mut config = (*self.config).clone();
                config.crypto = Arc::new(crypto);
                self.config = Arc::new(config);
            }
            Err(error) => tracing::error!(%error, "QUIC keeps the old certificates"),
        }
        self.tls = tls;
    }
}

/// (0-RTT stays off, as the configuration has no early data: a CONNECT could be replayed.)
fn crypto(
    tls: &Arc<rustls::ServerConfig>,
) -> Result<QuicServerConfig, quinn::crypto::rustls::NoInitialCipherSuite> {
    QuicServerConfig::try_from(Arc::clone(tls))
}
