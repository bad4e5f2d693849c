//! SUBSCRIBE and UNSUBSCRIBE. MQTT 5, 3.8 and 3.10; MQTT 3.1.1, 3.8 and 3.10.

use std::fmt;

use super::property::{Properties, Property, id};
use super::{PacketId, PacketType, ProtocolVersion, QoS, UserProperties, put, topic};
use crate::cursor::Cursor;
use crate::error::{DecodeError, Malformed, ProtocolError};
use crate::varint;

/// Subscribe request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscribe<'a> {
    /// Identifier that the SUBACK carries back.
    pub packet_id: PacketId,
    /// Identifier of all its subscriptions, 1 to 268 435 455; MQTT 5 only.
    pub subscription_identifier: Option<u32>,
    /// User Properties in order.
    pub user_properties: UserProperties<'a>,
    /// The subscriptions asked for, at least one.
    pub filters: SubscribeFilters<'a>,
}

/// One subscription asked for. MQTT 5, 3.8.3.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscription<'a> {
    /// Topic Filter; its wildcards are in allowed places, but a ShareName may have some in MQTT 5.
    pub filter: &'a str,
    /// Maximum QoS.
    pub qos: QoS,
    /// Own messages are not sent back; MQTT 5 only.
    pub no_local: bool,
    /// RETAIN is forwarded as published; MQTT 5 only.
    pub retain_as_published: bool,
    /// When retained messages are sent; `Send` before MQTT 5.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent for a subscription. MQTT 5, 3.8.3.1.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum RetainHandling {
    /// At the time of the SUBSCRIBE.
    #[default]
    Send = 0,
    /// Only if the subscription is new.
    SendIfNew = 1,
    /// Never at the time of the SUBSCRIBE.
    DoNotSend = 2,
}

/// The subscriptions of a SUBSCRIBE, borrowed from it and already checked; at least one.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a> {
    bytes: &'a [u8],
    count: usize,
}

/// Unsubscribe request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Identifier that the UNSUBACK carries back.
    pub packet_id: PacketId,
    /// User Properties in order.
    pub user_properties: UserProperties<'a>,
    /// Topic Filters, at least one.
    pub filters: UnsubscribeFilters<'a>,
}

/// The Topic Filters of an UNSUBSCRIBE, borrowed from it and already checked; at least one.
#[derive(Clone, Copy)]
pub struct UnsubscribeFilters<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(
        mut body: Cursor<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id("SUBSCRIBE")?;
        let mut subscription_identifier = None;
        let mut user_properties = UserProperties::default();
        if version.is_v5() {
            let mut properties = Properties::open(&mut body, "SUBSCRIBE")?;
            while let Some(property) = properties.next()? {
                match property {
                    Property::SubscriptionIdentifier(id) => subscription_identifier = Some(id),
                    _ => return Err(properties.misplaced()),
                }
            }
            user_properties = properties.user_properties();
        }
        let filters = SubscribeFilters::parse(body.take_rest(), version)?;
        Ok(Self {
            packet_id,
            subscription_identifier,
            user_properties,
            filters,
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Panics
    /// As [`Packet::encode`](super::Packet::encode), or the Subscription Identifier is out of
    /// range.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put::packet(out, PacketType::Subscribe, |out| {
            put::u16(out, self.packet_id.get());
            if version.is_v5() {
                put::prefixed(out, |out| {
                    if let Some(identifier) = self.subscription_identifier {
                        out.push(id::SUBSCRIPTION_IDENTIFIER);
                        varint::put(out, identifier);
                    }
                    self.user_properties.append_to(out);
                });
            }
            for subscription in self.filters.iter() {
                subscription.put(version, out);
            }
        });
    }
}

impl<'a> Subscription<'a> {
    /// A subscription with the options that all versions have.
    pub const fn new(filter: &'a str, qos: QoS) -> Self {
        let retain_handling = RetainHandling::Send;
        Self {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling,
        }
    }

    /// Appends its part of a SUBSCRIBE payload.
    ///
    /// # Panics
    /// The filter is longer than 65 535 bytes.
    pub fn put(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put::text(out, self.filter);
        let mut options = self.qos.as_u8();
        if version.is_v5() {
            options |= u8::from(self.no_local) << 2
                | u8::from(self.retain_as_published) << 3
                | (self.retain_handling as u8) << 4;
        }
        out.push(options);
    }

    fn read(cursor: &mut Cursor<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let filter = topic::topic_filter(cursor.binary("Topic Filter")?, version)?;
        let options = cursor.u8("Subscription Options")?;
        // [MQTT-3.8.3-5] [MQTT3-3.8.3-4]
        let reserved = if version.is_v5() {
            0b1100_0000
        } else {
            0b1111_1100
        };
        if options & reserved != 0 {
            return Err(Malformed::ReservedSubscriptionOptions { found: options }.into());
        }
        // [MQTT3-3.8.3-4]
        let qos = match QoS::from_bits(options & 0b11) {
            Some(qos) => qos,
            None if version.is_v5() => return Err(ProtocolError::SubscriptionQosThree.into()),
            None => {
                return Err(Malformed::QosThree {
                    field: "Requested QoS",
                }
                .into());
            }
        };
        // [MQTT-3.8.3-3] [MQTT-3.8.3-4]
        let no_local = options & 0b100 != 0;
        if no_local && filter.starts_with("$share/") {
            return Err(ProtocolError::NoLocalOnShared.into());
        }
        let retain_handling = match options >> 4 & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(ProtocolError::RetainHandlingThree.into()),
        };
        let retain_as_published = options & 0b1000 != 0;
        Ok(Self {
            filter,
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        })
    }
}

impl<'a> SubscribeFilters<'a> {
    /// Reads the payload of a SUBSCRIBE, as [`Subscription::put`] appends it.
    ///
    /// # Errors
    /// There is no subscription, or one is not allowed.
    pub fn parse(bytes: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let mut count = 0;
        while !cursor.is_empty() {
            Subscription::read(&mut cursor, version)?;
            count += 1;
        }
        // [MQTT-3.8.3-2] [MQTT3-3.8.3-3]
        if count == 0 {
            return Err(ProtocolError::NoFilters {
                packet: "SUBSCRIBE",
            }
            .into());
        }
        Ok(Self { bytes, count })
    }

    /// The subscriptions in the order of the packet.
    pub fn iter(&self) -> impl Iterator<Item = Subscription<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.bytes);
        // The options of all versions are allowed in MQTT 5.
        std::iter::from_fn(move || Subscription::read(&mut cursor, ProtocolVersion::V5).ok())
    }

    /// How many there are, at least one.
    pub const fn count(&self) -> usize {
        self.count
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for SubscribeFilters<'_> {}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(
        mut body: Cursor<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id("UNSUBSCRIBE")?;
        let mut user_properties = UserProperties::default();
        if version.is_v5() {
            let mut properties = Properties::open(&mut body, "UNSUBSCRIBE")?;
            if properties.next()?.is_some() {
                return Err(properties.misplaced());
            }
            user_properties = properties.user_properties();
        }
        let filters = UnsubscribeFilters::read(body.take_rest(), version)?;
        Ok(Self {
            packet_id,
            user_properties,
            filters,
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Panics
    /// As [`Packet::encode`](super::Packet::encode).
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put::packet(out, PacketType::Unsubscribe, |out| {
            put::u16(out, self.packet_id.get());
            if version.is_v5() {
                put::prefixed(out, |out| self.user_properties.append_to(out));
            }
            out.extend_from_slice(self.filters.bytes);
        });
    }
}

impl<'a> UnsubscribeFilters<'a> {
    /// Reads the payload of an UNSUBSCRIBE, as [`UnsubscribeFilters::put`] appends it, by the rules
    /// of MQTT 5.
    ///
    /// # Errors
    /// There is no Topic Filter, or one is not allowed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Self::read(bytes, ProtocolVersion::V5)
    }

    fn read(bytes: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let mut count = 0;
        while !cursor.is_empty() {
            topic::topic_filter(cursor.binary("Topic Filter")?, version)?;
            count += 1;
        }
        // [MQTT-3.10.3-2] [MQTT3-3.10.3-2]
        if count == 0 {
            return Err(ProtocolError::NoFilters {
                packet: "UNSUBSCRIBE",
            }
            .into());
        }
        Ok(Self { bytes, count })
    }

    /// Appends one Topic Filter of an UNSUBSCRIBE payload.
    ///
    /// # Panics
    /// The filter is longer than 65 535 bytes.
    pub fn put(filter: &str, out: &mut Vec<u8>) {
        put::text(out, filter);
    }

    /// The Topic Filters in the order of the packet.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut cursor = Cursor::new(self.bytes);
        std::iter::from_fn(move || cursor.text("Topic Filter").ok())
    }

    /// How many there are, at least one.
    pub const fn count(&self) -> usize {
        self.count
    }
}

impl PartialEq for UnsubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for UnsubscribeFilters<'_> {}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
