//! Session State (MQTT 5, 4.1): what survives a Network Connection.

use std::num::NonZeroU32;
use std::sync::Arc;

use authcache::{ChannelIndex, PrincipalIndex};
use codec::mqtt::QoS;

use crate::message::{Address, Message, MessageParts, Origin};
use crate::mqtt::outgoing::Outgoing;
use crate::now::Now;

/// Which session a CONNECT means: two principals never share one (threats T-SES-6).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionKey {
    /// Whose session.
    pub principal: PrincipalIndex,
    /// The Client Identifier.
    pub client_id: Box<str>,
}

/// The state that belongs to a Client Identifier of one principal.
#[derive(Debug)]
pub struct Session {
    /// Who owns it.
    pub(crate) principal: PrincipalIndex,
    /// The Client Identifier. [MQTT-3.1.3-2] [MQTT3-3.1.3-2]
    pub(crate) client_id: Box<str>,
    /// Number of the claim that the current connection was given.
    pub(crate) epoch: u64,
    /// Seconds it outlives its connection; `u32::MAX` is for ever.
    pub(crate) expiry: u32,
    pub(crate) subscriptions: Vec<SubscriptionRecord>,
    /// Messages to the client; allocated at the first one above QoS 0.
    pub(crate) outgoing: Option<Box<Outgoing>>,
    /// Packet Identifiers of QoS 2 messages received and not released, ascending.
    pub(crate) unreleased: Vec<u16>,
    pub(crate) will: Option<Box<Will>>,
}

/// A subscription as its session keeps it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubscriptionRecord {
    /// The channel, or the open namespace's index.
    pub channel: ChannelIndex,
    /// The filter below the channel.
    pub filter: Box<str>,
    /// The ShareName of a Shared Subscription.
    pub share: Option<Box<str>>,
    /// The topic prefix as the client wrote it, where that is not the canonical one.
    pub prefix: Option<Arc<str>>,
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Subscription Identifier.
    pub identifier: Option<NonZeroU32>,
}

/// A Will Message with all it needs to be sent when its client cannot be asked any more.
#[derive(Clone, Debug)]
pub struct Will {
    pub(crate) address: Address,
    pub(crate) topic: Box<str>,
    pub(crate) payload: Box<[u8]>,
    pub(crate) properties: Box<[u8]>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Seconds between the end of the connection and the will.
    pub(crate) delay: u32,
    /// The will's own Message Expiry Interval in seconds; it begins when the will is sent.
    pub(crate) message_expiry: Option<u32>,
}

impl Will {
    /// The message to publish at `now`.
    pub fn into_message(self, publisher: PrincipalIndex, origin: Origin, now: Now) -> Message {
        Message::new(MessageParts {
            address: self.address,
            qos: self.qos,
            // [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT3-3.1.2-16] [MQTT3-3.1.2-17]
            retain: self.retain,
            topic: &[&self.topic],
            properties: &self.properties,
            payload: &self.payload,
            expires_at: self.message_expiry.map(|seconds| now.plus_secs(seconds)),
            origin,
            publisher,
        })
    }

    /// Seconds between the end of the connection and the will.
    pub fn delay(&self) -> u32 {
        self.delay
    }
}

impl Session {
    /// An empty session.
    pub fn new(key: SessionKey, epoch: u64) -> Session {
        Session {
            principal: key.principal,
            client_id: key.client_id,
            epoch,
            expiry: 0,
            subscriptions: Vec::new(),
            outgoing: None,
            unreleased: Vec::new(),
            will: None,
        }
    }

    /// Which session this is.
    pub fn key(&self) -> SessionKey {
        SessionKey {
            principal: self.principal,
            client_id: self.client_id.clone(),
        }
    }

    /// Who owns it.
    pub fn principal(&self) -> PrincipalIndex {
        self.principal
    }

    /// The Client Identifier.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Number of the claim that the current connection was given.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Seconds it outlives its connection; `u32::MAX` is for ever.
    pub fn expiry(&self) -> u32 {
        self.expiry
    }

    /// Its subscriptions, dormant ones included.
    pub fn subscriptions(&self) -> &[SubscriptionRecord] {
        &self.subscriptions
    }

    /// The will, if one is still to be sent.
    pub fn take_will(&mut self) -> Option<Will> {
        self.will.take().map(|will| *will)
    }

    /// Whether a will is still to be sent.
    pub fn has_will(&self) -> bool {
        self.will.is_some()
    }

    /// Messages in flight and waiting.
    pub fn queued(&self) -> usize {
        self.outgoing.as_ref().map_or(0, |outgoing| outgoing.len())
    }

    /// Whether the queue of waiting messages has no room left under `limits`.
    pub fn is_full(&self, limits: &crate::Limits) -> bool {
        self.outgoing
            .as_ref()
            .is_some_and(|outgoing| outgoing.is_full(limits))
    }

    /// Adds or replaces a subscription; whether the same filter was there already.
    ///
    /// The same Topic Filter text replaces: the spelling of channel and domain is part of it.
    /// [MQTT-3.8.4-3] [MQTT3-3.8.4-3]
    pub(crate) fn record(&mut self, subscription: SubscriptionRecord) -> bool {
        let same = |known: &SubscriptionRecord| {
            known.channel == subscription.channel
                && known.filter == subscription.filter
                && known.share == subscription.share
        };
        match self.subscriptions.iter_mut().find(|known| same(known)) {
            Some(known) => {
                *known = subscription;
                true
            }
            None => {
                self.subscriptions.push(subscription);
                false
            }
        }
    }

    /// Takes a subscription out; whether it was there. [MQTT-3.10.4-1] [MQTT3-3.10.4-1]
    pub(crate) fn forget(
        &mut self,
        channel: ChannelIndex,
        filter: &str,
        share: Option<&str>,
    ) -> bool {
        let at = self.subscriptions.iter().position(|known| {
            known.channel == channel && &*known.filter == filter && known.share.as_deref() == share
        });
        at.map(|at| self.subscriptions.swap_remove(at)).is_some()
    }

    /// Drops what names a channel that no longer exists; its subscriptions.
    pub fn channel_removed(&mut self, channel: ChannelIndex) -> Vec<SubscriptionRecord> {
        let (gone, kept) = std::mem::take(&mut self.subscriptions)
            .into_iter()
            .partition(|record| record.channel == channel);
        self.subscriptions = kept;
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.channel_removed(channel);
        }
        gone
    }
}
