//! The listeners, as they are configured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use broker::{Network, SlowPolicy};

/// Where clients come in, and what lies between.
#[derive(Clone, Debug)]
pub(crate) struct MqttListener {
    pub(crate) address: SocketAddr,
    pub(crate) enabled: bool,
    /// Whether topics outside `m/…` go to the open namespace.
    pub(crate) open: bool,
    /// Whether peers that nobody knows are admitted to the open namespace.
    pub(crate) anonymous: bool,
    /// Whether losing the right of a subscription ends a connection.
    pub(crate) close_on_revoked: bool,
    /// Proxies in front that say for whom they speak.
    pub(crate) proxies: Vec<Network>,
    /// Origins of pages that may open a WebSocket; all if empty.
    pub(crate) origins: Vec<String>,
    /// What becomes of messages that a channel socket has no room for.
    pub(crate) slow_consumer: SlowPolicy,
    /// Whether a channel socket without a credential is answered 403.
    pub(crate) missing_is_403: bool,
    pub(crate) tls: Tls,
}

/// Certificates and keys of a listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    pub(crate) certificate: Vec<PathBuf>,
    pub(crate) key: Vec<PathBuf>,
    pub(crate) client_ca: Option<PathBuf>,
    /// Whether clients without a certificate are let in.
    pub(crate) client_optional: bool,
    /// Whether a certificate says which client it is.
    pub(crate) identity: bool,
    pub(crate) revoked: Option<PathBuf>,
    pub(crate) only_1_3: bool,
}

/// Where peers come in that speak CoAP.
#[derive(Clone, Debug)]
pub(crate) struct CoapListener {
    pub(crate) address: SocketAddr,
    pub(crate) enabled: bool,
    /// Whether credentials are taken though others can read along.
    pub(crate) insecure: bool,
    /// Whether addresses elsewhere have to be proven.
    pub(crate) echo: bool,
    /// Whether POST on a channel is answered 2.01 instead of 2.04.
    pub(crate) created: bool,
    /// Certificates for DTLS, beside pre-shared keys.
    pub(crate) tls: Tls,
}

impl CoapListener {
    /// On loopback, with the defaults of a first start.
    pub(crate) fn on(port: u16) -> CoapListener {
        CoapListener {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            enabled: true,
            insecure: false,
            echo: true,
            created: false,
            tls: Tls::default(),
        }
    }

    /// What the broker is told, under this name; `created` is a setting of all.
    pub(crate) fn for_broker(&self, name: &str, dtls: bool, created: bool) -> broker::CoapListener {
        broker::CoapListener {
            dtls: dtls.then(|| broker::DtlsOptions {
                certificates: self.tls.for_broker(),
            }),
            name: name.to_owned(),
            address: self.address,
            insecure: self.insecure,
            echo: self.echo,
            created,
        }
    }
}

/// Where the control API, health and metrics are served.
#[derive(Clone, Debug)]
pub(crate) struct ApiListener {
    pub(crate) address: SocketAddr,
    /// Whether it may listen without TLS where others can read along.
    pub(crate) insecure: bool,
    /// The token that programs show which read metrics off loopback.
    pub(crate) metrics_token_file: Option<PathBuf>,
    pub(crate) tls: Tls,
}

impl MqttListener {
    /// On loopback, for known clients on channels.
    pub(crate) fn on(port: u16, enabled: bool) -> MqttListener {
        MqttListener {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            enabled,
            open: false,
            anonymous: false,
            close_on_revoked: false,
            proxies: Vec::new(),
            origins: Vec::new(),
            slow_consumer: SlowPolicy::default(),
            missing_is_403: false,
            tls: Tls::default(),
        }
    }

    /// What the broker is told, under this name.
    pub(crate) fn for_broker(
        &self,
        name: &str,
        websocket: bool,
        open_domain: Option<&str>,
    ) -> broker::Listener {
        broker::Listener {
            open: open_domain.filter(|_| self.open).map(str::to_owned),
            anonymous: self.anonymous,
            close_on_revoked: self.close_on_revoked,
            tls: self.tls.for_broker(),
            websocket: websocket.then(|| broker::WebSocketOptions {
                origins: self.origins.clone(),
                slow_consumer: self.slow_consumer,
                missing_is_403: self.missing_is_403,
            }),
            proxies: self.proxies.clone(),
            ..broker::Listener::plain(name, self.address)
        }
    }

    /// What the broker is told of the QUIC listener; nothing without a certificate.
    pub(crate) fn over_quic(
        &self,
        idle_timeout: Duration,
        open_domain: Option<&str>,
    ) -> Option<broker::QuicListener> {
        Some(broker::QuicListener {
            address: self.address,
            open: open_domain.filter(|_| self.open).map(str::to_owned),
            anonymous: self.anonymous,
            close_on_revoked: self.close_on_revoked,
            tls: self.tls.for_broker()?,
            idle_timeout,
        })
    }

    /// What the broker is told of the HTTP listener.
    pub(crate) fn over_http(
        &self,
        cors_origins: &[String],
        compat: broker::HttpCompat,
    ) -> broker::HttpListener {
        broker::HttpListener {
            address: self.address,
            websocket: broker::WebSocketOptions {
                origins: self.origins.clone(),
                slow_consumer: self.slow_consumer,
                missing_is_403: self.missing_is_403,
            },
            tls: self.tls.for_broker(),
            cors_origins: cors_origins.to_vec(),
            compat,
        }
    }

    /// What does not fit together, as key below the listener's table and sentence.
    pub(crate) fn faults(&self, table: &str) -> Vec<(String, String)> {
        let mut found = self.tls.faults(table);
        let mut fault = |key: &str, what: String| {
            let path = format!("{table}.{key}");
            let text = format!("{path} {what}");
            found.push((path, text));
        };
        if self.anonymous && !self.open {
            fault(
                "anonymous",
                format!("is true without an open namespace; expected {table}.open = true as well"),
            );
        }
        found
    }
}

impl Tls {
    /// Whether there is a certificate.
    pub(crate) fn is_there(&self) -> bool {
        !self.certificate.is_empty()
    }

    /// What the broker is told; nothing without a certificate.
    pub(crate) fn for_broker(&self) -> Option<broker::TlsOptions> {
        let pairs = self.certificate.iter().cloned();
        let pairs = pairs.zip(self.key.iter().cloned());
        self.is_there().then(|| broker::TlsOptions {
            certificates: pairs.collect(),
            client_ca: self.client_ca.clone(),
            client_optional: self.client_optional,
            revoked: self.revoked.clone(),
            identity: self.identity,
            only_1_3: self.only_1_3,
        })
    }

    /// What does not fit together, as key below the listener's table and sentence.
    pub(crate) fn faults(&self, table: &str) -> Vec<(String, String)> {
        let tls = self;
        let mut found = Vec::new();
        let mut fault = |key: &str, what: String| {
            let path = format!("{table}.{key}");
            let text = format!("{path} {what}");
            found.push((path, text));
        };
        if tls.certificate.len() != tls.key.len() {
            let (certificates, keys) = (tls.certificate.len(), tls.key.len());
            fault(
                "key",
                format!(
                    "names {keys} files and {table}.certificate {certificates}; expected one key for each certificate"
                ),
            );
        }
        if tls.client_ca.is_some() && tls.certificate.is_empty() {
            fault(
                "client_ca",
                format!("is set without {table}.certificate; expected both"),
            );
        }
        if tls.client_ca.is_none() {
            if tls.identity {
                fault(
                    "identity",
                    format!(
                        "is true without {table}.client_ca; expected the authorities that sign clients' certificates"
                    ),
                );
            }
            if tls.revoked.is_some() {
                fault(
                    "revoked",
                    format!(
                        "is set without {table}.client_ca; expected the authorities whose list it is"
                    ),
                );
            }
        }
        found
    }
}
