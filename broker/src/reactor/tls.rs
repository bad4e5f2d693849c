//! TLS below a shard, through rustls's unbuffered interface: records are opened in the buffer that
//! they were read into, and sealed into the one that is sent.

use authcache::feed::ShownCertificate;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};

use crate::reactor::dtls_files::DtlsFiles;
use crate::tls::{TlsError, TlsOptions, load, shown_in};

/// The TLS of one listener. Whoever comes in gets the certificates of that moment and keeps them.
#[derive(Debug)]
pub(crate) struct TlsDoor {
    name: String,
    options: TlsOptions,
    /// What is spoken inside.
    alpn: &'static [&'static [u8]],
    config: ArcSwap<rustls::ServerConfig>,
}

impl TlsDoor {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub(crate) fn open(
        name: &str,
        options: &TlsOptions,
        alpn: &'static [&'static [u8]],
    ) -> Result<TlsDoor, TlsError> {
        let config = load(options, alpn)?;
        Ok(TlsDoor {
            name: name.to_owned(),
            options: options.clone(),
            alpn,
            config: ArcSwap::from(config),
        })
    }

    /// What connections get now.
    pub(crate) fn config(&self) -> Arc<rustls::ServerConfig> {
        self.config.load_full()
    }

    /// Whether a client's certificate says which client it is.
    pub(crate) fn identifies(&self) -> bool {
        self.options.identity
    }

    /// The files it was made of.
    pub(crate) fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        self.options.files()
    }

    /// Reads the files again; with files that are wrong the old ones stay in force.
    pub(crate) fn reload(&self) {
        match load(&self.options, self.alpn) {
            Ok(config) => {
                self.config.store(config);
                tracing::info!(listener = self.name, "certificates were read again");
            }
            Err(error) => {
                tracing::error!(listener = self.name, %error, "the old certificates stay in force");
            }
        }
    }
}

/// One connection's TLS.
pub(crate) struct Tls {
    connection: UnbufferedServerConnection,
    /// The part of a record that came.
    incoming: Vec<u8>,
    /// Bytes of the peer before its handshake was done.
    before: usize,
    identifies: bool,
    certificate: Option<Box<ShownCertificate>>,
}

/// The connection cannot go on; an alert, if there is one to send, was appended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Broken {
    /// The peer said that it is done.
    Closed,
    /// The peer broke the protocol, or cannot be agreed with.
    Fault,
}

/// Bytes a peer may send before its handshake is done: a ClientHello and a chain of certificates.
pub(crate) const HANDSHAKE_BYTES_MAX: usize = 32 << 10;

impl Tls {
    /// The state before the first byte; `None` if the listener's configuration makes none.
    pub(crate) fn new(door: &TlsDoor) -> Option<Tls> {
        let connection = UnbufferedServerConnection::new(door.config.load_full());
        let connection = connection
            .inspect_err(|error| tracing::error!(listener = door.name, %error, "no TLS"))
            .ok()?;
        Some(Tls {
            connection,
            incoming: Vec::new(),
            before: 0,
            identifies: door.options.identity,
            certificate: None,
        })
    }

    /// Whether the handshake is not done.
    pub(crate) fn is_shaking_hands(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Bytes of its buffer.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.incoming.capacity()
    }

    /// The peer's certificate, where it says which client it is.
    pub(crate) fn certificate(&self) -> Option<&ShownCertificate> {
        self.certificate.as_deref()
    }

    /// Opens the records in `input`: their content is appended to `plain`, what is to be sent to
    /// `answers`.
    ///
    /// # Errors
    /// [`Broken`], also when the peer said that it is done; what came before counts.
    pub(crate) fn open(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        answers: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let was_shaking = self.is_shaking_hands();
        if was_shaking {
            self.before += input.len();
            if self.before > HANDSHAKE_BYTES_MAX {
                return Err(Broken::Fault);
            }
        }
        let opened = if self.incoming.is_empty() {
            let (used, opened) = self.process(input, plain, answers);
            self.incoming.extend_from_slice(&input[used..]);
            opened
        } else {
            let mut incoming = std::mem::take(&mut self.incoming);
            incoming.extend_from_slice(input);
            let (used, opened) = self.process(&mut incoming, plain, answers);
            if used < incoming.len() {
                incoming.drain(..used);
                self.incoming = incoming;
            }
            opened
        };
        if was_shaking && self.identifies && !self.is_shaking_hands() {
            let shown = self.connection.peer_certificates();
            self.certificate = shown.and_then(|chain| shown_in(chain.first()?));
        }
        opened
    }

    /// Takes whole records; how many bytes they were.
    fn process(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        answers: &mut Vec<u8>,
    ) -> (usize, Result<(), Broken>) {
        let mut at = 0;
        let mut result = Ok(());
        loop {
            // Behind a fault there is only its alert to be sent: what is left would be another one.
            let end = if result.is_err() { at } else { input.len() };
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut input[at..end]);
            let mut done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => plain.extend_from_slice(record.payload),
                            Err(_) => result = Err(Broken::Fault),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let encoded = append(answers, 512, |room| match data.encode(room) {
                        Ok(len) => Ok(len),
                        Err(EncodeError::InsufficientSize(size)) => Err(Some(size)),
                        Err(EncodeError::AlreadyEncoded) => Err(None),
                    });
                    if encoded.is_none() {
                        result = Err(Broken::Fault);
                        done = true;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => {
                    done = true;
                }
                Ok(ConnectionState::PeerClosed) => result = Err(Broken::Closed),
                // Nothing is taken before the handshake is done: it could be a replay.
                Ok(ConnectionState::Closed | ConnectionState::ReadEarlyData(_)) | Ok(_) => {
                    result = Err(Broken::Fault);
                    done = true;
                }
                Err(error) => {
                    tracing::debug!(%error, "a TLS connection failed");
                    // Once more, for the alert.
                    done = result.is_err();
                    result = Err(Broken::Fault);
                }
            }
            at += discard;
            if done {
                return (at, result);
            }
        }
    }

    /// Appends `plain` as records to `sealed`.
    ///
    /// # Errors
    /// [`Broken`], when the connection takes nothing any more.
    pub(crate) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), Broken> {
        // A record's head, tag and nonce for each 16 KiB, with room to spare.
        let guess = plain.len() + 64 * (1 + plain.len() / (16 << 10));
        self.write(sealed, |connection, sealed| {
            append(sealed, guess, |room| {
                encrypted(connection.encrypt(plain, room))
            })
        })
    }

    /// Appends the alert that says goodbye, if one can be sent.
    pub(crate) fn close(&mut self, sealed: &mut Vec<u8>) {
        if !self.is_shaking_hands() {
            let _ = self.write(sealed, |connection, sealed| {
                append(sealed, 64, |room| {
                    encrypted(connection.queue_close_notify(room))
                })
            });
        }
    }

    /// Leads the connection to where it takes data, then calls `write`.
    fn write(
        &mut self,
        sealed: &mut Vec<u8>,
        write: impl FnOnce(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut Vec<u8>,
        ) -> Option<()>,
    ) -> Result<(), Broken> {
        loop {
            // What is kept of a record stays where it is: it is not whole.
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut self.incoming);
            let written = match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    write(&mut traffic, sealed).ok_or(Broken::Fault)
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let encoded = append(sealed, 512, |room| match data.encode(room) {
                        Ok(len) => Ok(len),
                        Err(EncodeError::InsufficientSize(size)) => Err(Some(size)),
                        Err(EncodeError::AlreadyEncoded) => Err(None),
                    });
                    match encoded {
                        Some(()) => continue,
                        None => Err(Broken::Fault),
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    continue;
                }
                Ok(_) | Err(_) => Err(Broken::Fault),
            };
            self.incoming.drain(..discard);
            return written;
        }
    }
}

fn encrypted(result: Result<usize, EncryptError>) -> Result<usize, Option<InsufficientSizeError>> {
    result.map_err(|error| match error {
        EncryptError::InsufficientSize(size) => Some(size),
        EncryptError::EncryptExhausted => None,
    })
}

/// Lets `write` append to `out`, with as much room as it asks for after `guess` bytes; `None` if
/// it cannot.
fn append(
    out: &mut Vec<u8>,
    guess: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> Option<()> {
    let start = out.len();
    let mut room = guess;
    for _ in 0..2 {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(len) => {
                out.truncate(start + len);
                return Some(());
            }
            Err(Some(InsufficientSizeError { required_size })) => room = required_size,
            Err(None) => break,
        }
    }
    out.truncate(start);
    None
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("handshaking", &self.connection.is_handshaking())
            .finish_non_exhaustive()
    }
}

/// Every listener's TLS, to be read again together.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsDoors {
    pub(crate) tls: Vec<Arc<TlsDoor>>,
    pub(crate) dtls: Vec<Arc<DtlsFiles>>,
}

impl TlsDoors {
    /// Reads all files again.
    pub(crate) fn reload(&self) {
        for door in &self.tls {
            door.reload();
        }
        for files in &self.dtls {
            files.reload();
        }
    }

    /// When each file was changed last; a file that is not there counts as never.
    pub(crate) fn changed(&self) -> Vec<Option<std::time::SystemTime>> {
        let tls = self.tls.iter().flat_map(|door| door.files());
        let dtls = self.dtls.iter().flat_map(|files| files.files());
        tls.chain(dtls)
            .map(|file| {
                std::fs::metadata(file)
                    .and_then(|meta| meta.modified())
                    .ok()
            })
            .collect()
    }
}
