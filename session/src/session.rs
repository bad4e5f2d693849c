//! Session State (MQTT 5, 4.1): what survives a Network Connection. Retained messages are no part
//! of it. [MQTT3-3.1.2-7]

use std::num::NonZeroU32;
use std::sync::Arc;

use authcache::{ChannelIndex, PrincipalIndex};
use codec::mqtt::QoS;

use crate::message::{Address, Message, MessageParts, Origin};
use crate::mqtt::received::Received;
use crate::mqtt::window::Outgoing;
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
    /// Packet Identifiers of QoS 2 messages received and not released.
    pub(crate) received: Received,
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
    /// Whether a connection was ended because the right for it was lost, and it is not there again.
    pub revoked: bool,
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
            received: Received::default(),
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

    /// Judges its subscriptions anew: `lost` says whether the right for a channel is gone, or
    /// nothing if that is not known. Whether one of them lost its right since it was judged last.
    pub fn has_lost(&mut self, lost: impl Fn(ChannelIndex) -> Option<bool>) -> bool {
        let mut any = false;
        for record in &mut self.subscriptions {
            if let Some(lost) = lost(record.channel) {
                any |= lost && !record.revoked;
                record.revoked = lost;
            }
        }
        any
    }

    /// The will, if one is still to be sent.
    pub fn take_will(&mut self) -> Option<Will> {
        self.will.take().map(|will| *will)
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
    /// A channel has several names, and by all of them it is the same subscription; messages come
    /// under the name used last. [MQTT-3.8.4-3] [MQTT3-3.8.4-3]
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
                // Most devices have one, and room for four would be half of their memory.
                if self.subscriptions.is_empty() {
                    self.subscriptions.reserve_exact(1);
                }
                self.subscriptions.push(subscription);
                false
            }
        }
    }

    /// Takes out the subscription that was written like this, whatever its channel is called now.
    /// Only for names that are not ids; those are found by [`Session::forget`].
    /// [MQTT-3.10.4-1] [MQTT3-3.10.4-1]
    pub(crate) fn forget_written(&mut self, text: &str) -> Option<SubscriptionRecord> {
        let at = self
            .subscriptions
            .iter()
            .position(|known| known.is_written(text))?;
        Some(self.subscriptions.swap_remove(at))
    }

    /// Takes a subscription out, if it was there. [MQTT-3.10.4-1] [MQTT3-3.10.4-1]
    pub(crate) fn forget(
        &mut self,
        channel: ChannelIndex,
        filter: &str,
        share: Option<&str>,
    ) -> Option<SubscriptionRecord> {
        let at = self.subscriptions.iter().position(|known| {
            known.channel == channel && &*known.filter == filter && known.share.as_deref() == share
        })?;
        Some(self.subscriptions.swap_remove(at))
    }

    /// Drops what names a channel that no longer exists; its subscriptions.
    pub fn channel_removed(&mut self, channel: ChannelIndex) -> Vec<SubscriptionRecord> {
        let (gone, kept) = std::mem::take(&mut self.subscriptions)
            .into_iter()
            .partition(|record| record.channel == channel);
        self.subscriptions = kept;
        self.will.take_if(|will| will.address.channel == channel);
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.channel_removed(channel);
        }
        gone
    }
}

impl SubscriptionRecord {
    /// Whether a Topic Filter with a name instead of ids was written `text`.
    fn is_written(&self, text: &str) -> bool {
        let inner = match &self.share {
            None => Some(text),
            Some(share) => text
                .strip_prefix("$share/")
                .and_then(|rest| rest.strip_prefix(&**share))
                .and_then(|rest| rest.strip_prefix('/')),
        };
        let behind = inner
            .zip(self.prefix.as_ref())
            .and_then(|(inner, prefix)| inner.strip_prefix(&**prefix));
        behind.is_some_and(|behind| match behind.strip_prefix('/') {
            Some(filter) => *filter == *self.filter,
            None => behind.is_empty() && self.filter.is_empty(),
        })
    }
}
