//! What a listener expects of a connection before it speaks MQTT.

use std::net::IpAddr;
use std::sync::Arc;

use codec::ws::ReceiverLimits;

use crate::config::{Listener, WebSocketOptions};
use crate::reactor::tls::{TlsDoor, TlsDoors};
use crate::shard::wires::SlowPolicy;
use crate::tls::TlsError;

/// The way in through one listener; shared by all its connections.
#[derive(Debug, Default)]
pub(crate) struct Door {
    /// Whether everything is in TLS.
    pub(crate) tls: Option<Arc<TlsDoor>>,
    /// Whether HTTP asks for a WebSocket first.
    pub(crate) websocket: Option<WebSocketDoor>,
    /// Sources that put a PROXY header in front, and the only ones that are let in then.
    pub(crate) proxies: Vec<Network>,
}

/// What pages and clients may open a WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocketDoor {
    /// Origins of browsers' pages that may connect; all if empty. Clients without an origin, which
    /// are no browsers, always may.
    pub(crate) origins: Vec<String>,
    /// What becomes of messages that a channel socket has no room for.
    pub(crate) slow: SlowPolicy,
    /// Whether a channel socket without a credential is answered 403 instead of 401.
    pub(crate) missing_is_403: bool,
    /// Bounds for messages that carry MQTT.
    pub(crate) limits: ReceiverLimits,
}

/// Fragments of one message.
const FRAGMENTS_MAX: u32 = 1024;

/// A frame may hold more than one packet: this much beyond the largest.
const FRAME_SLACK: u64 = 64 << 10;

impl Door {
    /// The way in that `listener` describes; its TLS, if it has one, is in `all` besides.
    ///
    /// # Errors
    /// [`TlsError`], when the files do not make a TLS.
    pub(crate) fn open(
        listener: &Listener,
        max_packet_size: u32,
        all: &mut TlsDoors,
    ) -> Result<Door, TlsError> {
        let alpn: &'static [&'static [u8]] = match &listener.websocket {
            None => &[b"mqtt"],
            Some(_) => &[b"http/1.1"],
        };
        let open = |options| TlsDoor::open(&listener.name, options, alpn).map(Arc::new);
        let tls = listener.tls.as_ref().map(open).transpose()?;
        all.tls.extend(tls.clone());
        let websocket = listener
            .websocket
            .as_ref()
            .map(|options| WebSocketDoor::new(options, max_packet_size));
        Ok(Door {
            tls,
            websocket,
            proxies: listener.proxies.clone(),
        })
    }

    /// The way in for requests that began over HTTP.
    pub(crate) fn of_http(options: &WebSocketOptions, max_packet_size: u32) -> Door {
        Door {
            websocket: Some(WebSocketDoor::new(options, max_packet_size)),
            ..Door::default()
        }
    }

    /// Whether connections speak MQTT from their first byte on.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none() && self.websocket.is_none() && self.proxies.is_empty()
    }
}

impl WebSocketDoor {
    fn new(options: &WebSocketOptions, max_packet_size: u32) -> WebSocketDoor {
        WebSocketDoor {
            origins: options.origins.clone(),
            slow: options.slow_consumer,
            missing_is_403: options.missing_is_403,
            limits: ReceiverLimits {
                frame_bytes: u64::from(max_packet_size) + FRAME_SLACK,
                // MQTT is a stream: its own limits hold for what messages carry.
                message_bytes: u64::MAX,
                fragments: FRAGMENTS_MAX,
            },
        }
    }
}

/// Addresses with the same first bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The network of `address` whose first `bits` count; `None` with more bits than it has.
    pub fn new(address: IpAddr, bits: u8) -> Option<Network> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Network { address, bits })
    }

    /// Reads `10.0.0.0/8`, `fd00::/8` or a single address.
    pub fn parse(text: &str) -> Option<Network> {
        match text.split_once('/') {
            Some((address, bits)) => Network::new(address.parse().ok()?, bits.parse().ok()?),
            None => {
                let address: IpAddr = text.parse().ok()?;
                Network::new(address, if address.is_ipv4() { 32 } else { 128 })
            }
        }
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_the_addresses_with_their_first_bits() {
        let contains = |network: &str, address: &str| {
            Network::parse(network)
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.1.2"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(contains("fd00::/8", "fd12::1"));
        assert!(!contains("fd00::/8", "fe80::1"));
        assert!(!contains("::/0", "10.0.0.1"));
        for bad in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "x",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
