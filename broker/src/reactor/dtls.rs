//! DTLS 1.2 below CoAP: pre-shared keys, which control knows, and certificates.
//!
//! A peer's handshake begins with the exchange of a cookie, before any key is derived. The key of an
//! identity is asked of control while the datagram that names it waits.

use authcache::feed::ShownCertificate;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use dimpl::{Config, ConfigBuilder, Dtls, DtlsCertificate, Output, PskResolver};

use crate::reactor::dtls_records::{has_sealed_handshake, identity_in, offers_psk};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a datagram with records of a handshake: fits every path of IPv6.
const MTU: usize = 1200;

/// Bytes of the largest datagram that is written: a block with its options, sealed.
const DATAGRAM_BYTES: usize = 2048;

/// Datagrams of a handshake that wait for one before them.
const QUEUED_MAX: usize = 8;

/// Longest identity: ids of clients have 36 bytes.
pub(crate) const IDENTITY_BYTES_MAX: usize = 128;

/// Looks at the leaf certificate of a peer: what it says, if it is to be believed.
pub(crate) type Verify = dyn Fn(&[u8]) -> Option<Box<ShownCertificate>> + Send + Sync;

/// What a listener's handshakes are made of.
pub(crate) struct DtlsDoor {
    psk: Arc<Config>,
    at_hand: Arc<KeyAtHand>,
    /// Those of the moment; handshakes that began with others go on with them.
    certificates: Arc<ArcSwapOption<Certificates>>,
}

/// The certificate of a listener, and what it makes of those of its peers.
pub(crate) struct Certificates {
    own: DtlsCertificate,
    /// `None` where peers are not asked for one.
    verify: Option<Arc<Verify>>,
    required: bool,
    /// Whether a certificate says which client its peer is.
    identifies: bool,
    config: Arc<Config>,
}

/// Identity and key of the handshake that is looked at: a shard looks at one at a time.
#[derive(Default)]
struct KeyAtHand(Mutex<Option<(Vec<u8>, Vec<u8>)>>);

impl KeyAtHand {
    fn set(&self, pair: Option<(Vec<u8>, Vec<u8>)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pair;
    }
}

impl PskResolver for KeyAtHand {
    fn resolve(&self, identity: &[u8]) -> Option<Vec<u8>> {
        let pair = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, key) = pair.as_ref()?;
        (known == identity && !key.is_empty()).then(|| key.clone())
    }
}

impl Certificates {
    /// # Errors
    /// What the library says of the configuration.
    pub(crate) fn new(
        own: DtlsCertificate,
        verify: Option<Arc<Verify>>,
        required: bool,
        identifies: bool,
    ) -> Result<Certificates, dimpl::Error> {
        let config = base().require_client_certificate(verify.is_some());
        Ok(Certificates {
            own,
            verify,
            required,
            identifies,
            config: Arc::new(config.build()?),
        })
    }
}

impl DtlsDoor {
    /// # Errors
    /// What the library says of the configuration.
    pub(crate) fn new(
        certificates: Arc<ArcSwapOption<Certificates>>,
    ) -> Result<DtlsDoor, dimpl::Error> {
        let at_hand = Arc::new(KeyAtHand::default());
        let resolver: Arc<dyn PskResolver> = Arc::clone(&at_hand) as Arc<dyn PskResolver>;
        let psk = base().with_psk_server(None, resolver);
        Ok(DtlsDoor {
            psk: Arc::new(psk.build()?),
            at_hand,
            certificates,
        })
    }
}

fn base() -> ConfigBuilder {
    Config::builder()
        .mtu(MTU)
        .handshake_timeout(HANDSHAKE_TIMEOUT)
        .use_server_cookie(true)
}

impl fmt::Debug for DtlsDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsDoor").finish_non_exhaustive()
    }
}

/// One peer's session.
pub(crate) struct Secure {
    dtls: Dtls,
    open: bool,
    /// Whom the peer says it is, and with which key; the key is empty for one that nobody has.
    identity: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    certificate: Option<Box<ShownCertificate>>,
    /// What it shakes hands with, unless by a key.
    certificates: Option<Arc<Certificates>>,
    refused: bool,
    /// Whether the peer has shown that it does not know the key, and whether that was noted.
    wrong_key: bool,
    noted: bool,
    /// What waits for the key.
    waiting: Vec<Vec<u8>>,
    next: Option<Instant>,
}

/// The session is over.
#[derive(Debug)]
pub(crate) struct Over;

/// What is to be done about a datagram.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Told {
    /// Nothing more.
    Done,
    /// The key of this identity is to be found out.
    Key(Vec<u8>),
}

impl Secure {
    /// The session that a ClientHello asks for; `None` where it is none.
    pub(crate) fn new(door: &DtlsDoor, hello: &[u8], now: Instant) -> Option<Secure> {
        let wants_psk = offers_psk(hello)?;
        let certificates = door.certificates.load_full().filter(|_| !wants_psk);
        let dtls = match &certificates {
            Some(with) => Dtls::new_12(Arc::clone(&with.config), with.own.clone(), now),
            None => Dtls::new_12_psk(Arc::clone(&door.psk), now),
        };
        Some(Secure {
            dtls,
            open: false,
            identity: None,
            key: None,
            certificate: None,
            certificates,
            refused: false,
            wrong_key: false,
            noted: false,
            waiting: Vec::new(),
            next: None,
        })
    }

    /// Whether the handshake is done.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Who the peer is and the key that it showed to know.
    pub(crate) fn identity(&self) -> Option<(&str, &str)> {
        let identity = std::str::from_utf8(self.identity.as_deref()?).ok()?;
        let key = std::str::from_utf8(self.key.as_deref()?).ok()?;
        (self.open && !key.is_empty()).then_some((identity, key))
    }

    /// The peer's certificate, where it says which client it is.
    pub(crate) fn certificate(&self) -> Option<&ShownCertificate> {
        let with = self.certificates.as_ref();
        let identifies = self.open && with.is_some_and(|with| with.identifies);
        self.certificate.as_deref().filter(|_| identifies)
    }

    /// When [`Secure::timeout`] is to be called.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Takes a datagram: what it holds is appended to `plain`, answers are sent.
    ///
    /// # Errors
    /// [`Over`], when the session is to be forgotten.
    pub(crate) fn datagram(
        &mut self,
        door: &DtlsDoor,
        datagram: &[u8],
        now: Instant,
        plain: &mut Vec<Vec<u8>>,
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<Told, Over> {
        if !self.open && self.key.is_none() {
            if self.identity.is_some() {
                if self.waiting.len() < QUEUED_MAX {
                    self.waiting.push(datagram.to_vec());
                }
                return Ok(Told::Done);
            }
            if let Some(identity) = identity_in(datagram) {
                if identity.len() > IDENTITY_BYTES_MAX {
                    return Err(Over);
                }
                self.identity = Some(identity.to_vec());
                self.waiting.push(datagram.to_vec());
                return Ok(Told::Key(identity.to_vec()));
            }
        }
        self.take(door, datagram, now, plain, send)?;
        Ok(Told::Done)
    }

    /// The key is known, or that there is none: the handshake fails then as with a wrong one.
    ///
    /// # Errors
    /// As [`Secure::datagram`].
    pub(crate) fn key(
        &mut self,
        door: &DtlsDoor,
        key: Option<Vec<u8>>,
        now: Instant,
        plain: &mut Vec<Vec<u8>>,
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Over> {
        if self.key.is_some() {
            return Ok(());
        }
        self.key = Some(key.unwrap_or_default());
        for datagram in std::mem::take(&mut self.waiting) {
            self.take(door, &datagram, now, plain, send)?;
        }
        Ok(())
    }

    /// The identity whose key the peer does not know, told once.
    pub(crate) fn take_wrong_key(&mut self) -> Option<&[u8]> {
        let fresh = self.wrong_key && !std::mem::replace(&mut self.noted, self.wrong_key);
        self.identity.as_deref().filter(|_| fresh)
    }

    fn take(
        &mut self,
        door: &DtlsDoor,
        datagram: &[u8],
        now: Instant,
        plain: &mut Vec<Vec<u8>>,
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Over> {
        if !self.open {
            door.at_hand
                .set(self.identity.clone().zip(self.key.clone()));
        }
        let taken = self
            .dtls
            .handle_timeout(now)
            .and_then(|()| self.dtls.handle_packet(datagram));
        let drained = self.drain(plain, send);
        door.at_hand.set(None);
        let known = self.key.as_ref().is_some_and(|key| !key.is_empty());
        self.wrong_key |= known && !self.open && has_sealed_handshake(datagram);
        taken.map_err(|_| Over)?;
        drained
    }

    fn drain(&mut self, plain: &mut Vec<Vec<u8>>, send: &mut dyn FnMut(&[u8])) -> Result<(), Over> {
        let mut buffer = [0; DATAGRAM_BYTES];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => send(packet),
                Output::ApplicationData(data) => plain.push(data.to_vec()),
                Output::Timeout(at) => {
                    self.next = Some(at);
                    break;
                }
                Output::Connected => self.open = true,
                Output::PeerCert(leaf) => {
                    let with = self.certificates.as_ref();
                    match with.and_then(|with| with.verify.as_ref()) {
                        Some(verify) => {
                            self.certificate = verify(leaf);
                            self.refused = self.certificate.is_none();
                        }
                        None => self.refused = true,
                    }
                }
                // A record larger than any that this side writes or takes.
                Output::BufferTooSmall { .. } | Output::CloseNotify => return Err(Over),
                _ => {}
            }
        }
        let with = self.certificates.as_ref();
        let required = self.open && with.is_some_and(|with| with.required);
        let missing = required && self.certificate.is_none();
        if self.refused || missing {
            return Err(Over);
        }
        Ok(())
    }

    /// Time has passed.
    ///
    /// # Errors
    /// [`Over`], when the handshake took too long.
    pub(crate) fn timeout(
        &mut self,
        now: Instant,
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Over> {
        self.dtls.handle_timeout(now).map_err(|_| Over)?;
        self.drain(&mut Vec::new(), send)
    }

    /// Seals a datagram and sends it.
    ///
    /// # Errors
    /// [`Over`], when the session takes no more.
    pub(crate) fn seal(
        &mut self,
        datagram: &[u8],
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Over> {
        self.dtls
            .send_application_data(datagram)
            .map_err(|_| Over)?;
        self.drain(&mut Vec::new(), send)
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self, send: &mut dyn FnMut(&[u8])) {
        if self.open && self.dtls.close().is_ok() {
            // What it leaves to be said is all that is left to do.
            let _ = self.drain(&mut Vec::new(), send);
        }
    }
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
