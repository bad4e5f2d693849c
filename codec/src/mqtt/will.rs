//! The will, part of CONNECT. MQTT 5, 3.1.2.5 and 3.1.3.2.

use std::fmt;

use super::property::{Properties, Property, id};
use super::{ProtocolVersion, PublishProperties, QoS, put, topic};
use crate::cursor::Cursor;
use crate::error::DecodeError;

/// Message to publish when the connection is lost. MQTT 5, 3.1.2.5.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Will<'a> {
    /// Topic Name without wildcards.
    pub topic: &'a str,
    /// The payload, which may be empty.
    pub payload: &'a [u8],
    /// Quality of Service.
    pub qos: QoS,
    /// To be retained.
    pub retain: bool,
    /// Will Delay Interval in seconds, 0 by default.
    pub delay: u32,
    /// Will Properties, forwarded as those of a PUBLISH; none before MQTT 5.
    pub properties: PublishProperties<'a>,
}

impl<'a> Will<'a> {
    pub(crate) fn decode(
        body: &mut Cursor<'a>,
        version: ProtocolVersion,
        qos: QoS,
        retain: bool,
    ) -> Result<Self, DecodeError> {
        let mut delay = 0;
        let mut properties = PublishProperties::default();
        if version.is_v5() {
            let mut read = Properties::open(body, "Will")?;
            while let Some(property) = read.next()? {
                match property {
                    Property::WillDelay(seconds) => delay = seconds,
                    property if properties.take(property) => {}
                    _ => return Err(read.misplaced()),
                }
            }
            properties.user_properties = read.user_properties();
        }
        // [MQTT-3.1.3-9] [MQTT3-3.1.3-10] And a topic name: MQTT 5, 4.7.
        let topic = topic::topic_name(body.binary("Will Topic")?, "Will Topic")?;
        let payload = body.binary("Will Payload")?;
        Ok(Self {
            topic,
            payload,
            qos,
            retain,
            delay,
            properties,
        })
    }

    pub(crate) fn put(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        if version.is_v5() {
            put::prefixed(out, |out| {
                if self.delay != 0 {
                    out.push(id::WILL_DELAY);
                    put::u32(out, self.delay);
                }
                self.properties.put(out);
            });
        }
        put::text(out, self.topic);
        put::binary(out, self.payload);
    }

    /// Whether the payload is well-formed UTF-8, as a payload marked so has to be.
    pub fn payload_is_utf8(&self) -> bool {
        simdutf8::basic::from_utf8(self.payload).is_ok()
    }
}

impl fmt::Debug for Will<'_> {
    /// Gives the length of the payload, not its bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("delay", &self.delay)
            .field("properties", &self.properties)
            .finish()
    }
}
