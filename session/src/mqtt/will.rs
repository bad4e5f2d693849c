//! The Will Message of a CONNECT (MQTT 5, 3.1.2.5).

use authcache::{Action, ChannelIndex, Denied, OnChannel};
use codec::mqtt::{PayloadFormat, ReasonCode};

use crate::message::Address;
use crate::mqtt::machine::{Cold, Machine};
use crate::mqtt::publish::{check_user_properties, lowered};
use crate::mqtt::target::{self, Target};
use crate::rules::Rules;
use crate::session::Will;
use crate::step::{RightsQuestion, Step};

/// A will whose topic is not resolved yet.
#[derive(Debug)]
pub(crate) struct WillDraft {
    topic: String,
    pub(crate) will: Will,
}

impl Machine<'_> {
    /// A will is judged like a PUBLISH, here and again when it is sent. (Threats T-TOP-7.)
    ///
    /// Also the answer to a [`Step::Wait`] that this gave.
    pub fn check_will(&mut self, rules: &Rules<'_>, out: &mut Vec<u8>) -> Step<'static> {
        let Cold::Authenticating(pending) = &mut *self.cold else {
            return Step::Done;
        };
        let how = pending.manner();
        let principal = pending.principal;
        // [MQTT-3.1.2-7] [MQTT3-3.1.2-8]
        if let Some(draft) = &mut pending.will {
            let place = match target::resolve(&draft.topic, rules) {
                Ok(Target::Place { address, spelling }) => {
                    draft.will.topic = spelling.pieces(&mut [""; 3]).concat().into();
                    draft.will.address = address;
                    address
                }
                Ok(Target::Health(_)) => return self.refuse(ReasonCode::NOT_AUTHORIZED, how, out),
                Err(unroutable) => return self.refuse(unroutable.publish_code(), how, out),
            };
            match rules.gate.permit(
                principal,
                Action::Publish,
                &mut self.hot.rights,
                Place(place),
            ) {
                Ok(_) => {}
                Err((Denied::Unknown, place)) => {
                    return Step::Wait(RightsQuestion {
                        principal,
                        channel: place.0.channel,
                    });
                }
                Err(_) => return self.refuse(ReasonCode::NOT_AUTHORIZED, how, out),
            }
        }
        Step::Claim(pending.key())
    }
}

/// A topic's place without a message, for judging.
#[derive(Debug)]
pub(crate) struct Place(pub(crate) Address);

impl OnChannel for Place {
    fn channel(&self) -> ChannelIndex {
        self.0.channel
    }
}

impl WillDraft {
    /// The will of a CONNECT within the limits.
    pub(crate) fn read(
        will: &codec::mqtt::Will<'_>,
        rules: &Rules<'_>,
    ) -> Result<WillDraft, ReasonCode> {
        let limits = rules.limits;
        check_user_properties(&will.properties.user_properties, limits)?;
        if will.payload.len() > limits.max_will_bytes {
            return Err(ReasonCode::PACKET_TOO_LARGE);
        }
        if will.properties.payload_format == Some(PayloadFormat::Utf8) && !will.payload_is_utf8() {
            return Err(ReasonCode::PAYLOAD_FORMAT_INVALID);
        }
        let mut properties = Vec::new();
        will.properties.forwarded_into(&mut properties);
        let nowhere = Address {
            channel: ChannelIndex::SYS,
            wild: None,
            subtopic_at: 0,
        };
        Ok(WillDraft {
            topic: will.topic.to_owned(),
            will: Will {
                address: nowhere,
                topic: "".into(),
                payload: will.payload.into(),
                properties: properties.into(),
                qos: will.qos,
                retain: will.retain,
                delay: will.delay.min(limits.will_delay_max),
                message_expiry: lowered(will.properties.message_expiry, limits.message_expiry_max),
            },
        })
    }
}
