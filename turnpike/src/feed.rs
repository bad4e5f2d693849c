//! Control's feed between processes: TLS 1.3, where each side shows a certificate of one authority.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use broker::{Connecting, Feed, FeedPipe};
use control_api::{Control, Seldom, network};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How long the other side may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes a pipe in memory holds in each direction. Larger messages pass in pieces.
const PIPE_BYTES: usize = 256 * 1024;
/// Brokers that are served at a time; one more is refused.
const PIPES_MAX: usize = 256;
/// Connections whose handshake is not over, of all and of one address (of IPv6, a /64); one more ends
/// the oldest.
const HANDSHAKES_MAX: usize = 256;
const HANDSHAKES_PER_ADDRESS: usize = 32;

/// The feed of the control side in this process, whenever that one leads.
pub(crate) fn here(control: &Control) -> Feed {
    let control = control.clone();
    Feed::here(move || -> Connecting {
        let control = control.clone();
        Box::pin(async move {
            control.leads().await;
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            // It ends with the pipe, whose other end the broker watches.
            tokio::spawn(async move {
                if let Err(error) = control.serve_feed(theirs).await {
                    tracing::warn!(%error, "the feed of the broker in this process ended");
                }
            });
            Ok(Box::new(ours) as Box<dyn FeedPipe>)
        })
    })
}

/// Where the feed is served or found, and with which certificates.
#[derive(Clone, Debug)]
pub(crate) struct FeedSettings {
    /// Where control serves it.
    pub(crate) address: SocketAddr,
    /// Where a broker finds it, as host and port.
    pub(crate) connect: String,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) ca: Option<PathBuf>,
}

/// What both ends show, and whom they believe.
struct Trust {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Arc<RootCertStore>,
}

impl FeedSettings {
    /// Whether there are certificates, so that brokers elsewhere can be served.
    pub(crate) fn has_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    fn trust(&self) -> anyhow::Result<Trust> {
        let file = |path: &Option<PathBuf>, key: &str| {
            path.clone()
                .with_context(|| format!("feed.{key} is not set; expected the path of a PEM file"))
        };
        let chain = certificates(&file(&self.certificate, "certificate")?)?;
        let key = file(&self.key, "key")?;
        let key = PrivateKeyDer::from_pem_file(&key).with_context(|| {
            format!("feed.key {}: expected a private key in PEM", key.display())
        })?;
        let mut authorities = RootCertStore::empty();
        for authority in certificates(&file(&self.ca, "ca")?)? {
            authorities
                .add(authority)
                .context("feed.ca: expected certificates of authorities")?;
        }
        Ok(Trust {
            chain,
            key,
            authorities: Arc::new(authorities),
        })
    }

    /// The feed of a control side elsewhere.
    ///
    /// # Errors
    /// The certificates cannot be used, or the address has no host.
    pub(crate) fn elsewhere(&self) -> anyhow::Result<Feed> {
        let trust = self.trust()?;
        let config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(trust.authorities)
            .with_client_auth_cert(trust.chain, trust.key)
            .context("feed.certificate and feed.key: expected a certificate and its own key")?;
        let connector = TlsConnector::from(Arc::new(config));
        let address = self.connect.clone();
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .with_context(|| format!("feed.connect {address}: expected host:port"))?;
        Ok(Feed::elsewhere(move || -> Connecting {
            let (connector, address, name) = (connector.clone(), address.clone(), name.clone());
            Box::pin(async move {
                let pipe = async {
                    let stream = TcpStream::connect(&address).await?;
                    stream.set_nodelay(true)?;
                    connector.connect(name, stream).await
                };
                let pipe = tokio::time::timeout(HANDSHAKE, pipe).await??;
                Ok(Box::new(pipe) as Box<dyn FeedPipe>)
            })
        }))
    }

    /// What a listener for brokers elsewhere needs.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub(crate) fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let trust = self.trust()?;
        let verifier = WebPkiClientVerifier::builder(trust.authorities)
            .build()
            .context("feed.ca: expected certificates of authorities")?;
        let config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_client_cert_verifier(verifier)
            .with_single_cert(trust.chain, trust.key)
            .context("feed.certificate and feed.key: expected a certificate and its own key")?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let wanted = || format!("{}: expected certificates in PEM", path.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .with_context(wanted)?
        .collect::<Result<_, _>>()
        .with_context(wanted)?;
    anyhow::ensure!(!found.is_empty(), wanted());
    Ok(found)
}

/// Serves brokers elsewhere for ever. Whoever connects is heard at once: those who have not shown a
/// certificate wait apart from those who are served, and the oldest of them makes room.
pub(crate) async fn serve(control: Control, listener: TcpListener, acceptor: TlsAcceptor) {
    let places = Arc::new(Semaphore::new(PIPES_MAX));
    let log = Arc::new(Seldom::default());
    let mut handshakes = Handshakes::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others must close first.
                tracing::warn!(%error, "a broker's connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let ended = handshakes.begin(peer.ip());
        let (control, acceptor) = (control.clone(), acceptor.clone());
        let (places, log) = (places.clone(), log.clone());
        tokio::spawn(async move {
            let pipe = match handshake(acceptor, stream, ended).await {
                Ok(pipe) => pipe,
                Err(error) => {
                    if let Some(others) = log.passes(Instant::now()) {
                        tracing::warn!(%peer, %error, others, "no broker came of a connection");
                    }
                    return;
                }
            };
            let Ok(_place) = places.try_acquire_owned() else {
                tracing::warn!(%peer, "a broker is refused: {PIPES_MAX} are served");
                return;
            };
            tracing::info!(%peer, "a broker is served");
            if let Err(error) = control.serve_remote_feed(pipe).await {
                tracing::warn!(%peer, %error, "the feed of a broker ended");
            }
        });
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    ended: oneshot::Receiver<()>,
) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let shaking = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
    tokio::select! {
        pipe = shaking => pipe?,
        _ = ended => Err(io::Error::other("newer ones took its place")),
    }
}

/// Connections whose handshake is not over, oldest first.
#[derive(Default)]
struct Handshakes(VecDeque<(IpAddr, oneshot::Sender<()>)>);

impl Handshakes {
    /// One more begins; what is answered ends when it has to make room.
    fn begin(&mut self, address: IpAddr) -> oneshot::Receiver<()> {
        self.0.retain(|(_, end)| !end.is_closed());
        let address = network(address);
        let own = |(other, _): &(IpAddr, _)| *other == address;
        let surplus = if self.0.iter().filter(|one| own(one)).count() >= HANDSHAKES_PER_ADDRESS {
            self.0.iter().position(own)
        } else {
            (self.0.len() >= HANDSHAKES_MAX).then_some(0)
        };
        // With its sender.
        surplus.and_then(|oldest| self.0.remove(oldest));
        let (end, ended) = oneshot::channel();
        self.0.push_back((address, end));
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_ended(ended: &mut oneshot::Receiver<()>) -> bool {
        ended.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn addresses_of_one_small_network_take_the_places_of_one() {
        let address = |n: usize, of: &str| format!("2001:db8:0:{of}::{n:x}").parse().unwrap();
        let mut handshakes = Handshakes::default();
        let mut known = handshakes.begin(address(1, "1"));
        let mut silent: Vec<_> = (0..HANDSHAKES_MAX)
            .map(|n| handshakes.begin(address(n, "2")))
            .collect();
        let open = silent
            .iter_mut()
            .map(has_ended)
            .filter(|ended| !ended)
            .count();
        assert_eq!(open, HANDSHAKES_PER_ADDRESS);
        assert!(!has_ended(&mut known));
    }

    #[test]
    fn silent_connections_make_room_for_newer_ones() {
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let mut handshakes = Handshakes::default();
        let mut known = handshakes.begin(address(1));
        // One address takes nobody else's places.
        let mut silent: Vec<_> = (0..300).map(|_| handshakes.begin(address(2))).collect();
        let open = silent
            .iter_mut()
            .map(has_ended)
            .filter(|ended| !ended)
            .count();
        assert_eq!(open, HANDSHAKES_PER_ADDRESS);
        assert!(!has_ended(&mut known));
        assert!(!has_ended(silent.last_mut().unwrap()));
        // Many addresses together keep nobody waiting.
        let mut many: Vec<_> = (10..1_000).map(|n| handshakes.begin(address(n))).collect();
        let open = many
            .iter_mut()
            .map(has_ended)
            .filter(|ended| !ended)
            .count();
        assert_eq!(open, HANDSHAKES_MAX);
        assert_eq!(handshakes.0.len(), HANDSHAKES_MAX);
        assert!(has_ended(&mut known));
        // What is over counts no longer.
        many.clear();
        let mut last = handshakes.begin(address(1));
        assert_eq!(handshakes.0.len(), 1);
        assert!(!has_ended(&mut last));
    }
}
