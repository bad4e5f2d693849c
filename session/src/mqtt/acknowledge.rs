//! Acknowledgements from the client (MQTT 5, 3.4 to 3.7, and 4.3).

use codec::mqtt::{Ack, ReasonCode};

use crate::mqtt::machine::{Cold, Machine};
use crate::mqtt::publish::check_user_properties;
use crate::mqtt::reply::{self, Kind};
use crate::mqtt::window::{Acknowledged, Outgoing};
use crate::rules::Rules;
use crate::step::Step;

impl Machine<'_> {
    pub(crate) fn puback(
        &mut self,
        ack: &Ack<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        self.acknowledged(ack, rules, out, |outgoing| outgoing.puback(ack.packet_id))
    }

    pub(crate) fn pubcomp(
        &mut self,
        ack: &Ack<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        self.acknowledged(ack, rules, out, |outgoing| outgoing.pubcomp(ack.packet_id))
    }

    fn acknowledged(
        &mut self,
        ack: &Ack<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
        take: impl FnOnce(&mut Outgoing) -> Acknowledged,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        if let Err(code) = check_user_properties(&ack.user_properties, rules.limits) {
            return self.fail(code, out);
        }
        let taken = live
            .session
            .outgoing
            .as_mut()
            .map_or(Acknowledged::Unknown, |o| take(o));
        match taken {
            // An identifier that is not in use may belong to an exchange that ended before.
            Acknowledged::Taken | Acknowledged::Unknown => Step::Done,
            Acknowledged::WrongKind => self.fail(ReasonCode::PROTOCOL_ERROR, out),
        }
    }

    /// PUBREC: the client has the message, or refuses it. [MQTT-4.3.3-4] [MQTT3-4.3.3-1]
    pub(crate) fn pubrec(
        &mut self,
        ack: &Ack<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        if let Err(code) = check_user_properties(&ack.user_properties, rules.limits) {
            return self.fail(code, out);
        }
        let refused = ack.reason.is_error();
        let taken = live
            .session
            .outgoing
            .as_mut()
            .map_or(Acknowledged::Unknown, |outgoing| {
                outgoing.pubrec(ack.packet_id, refused)
            });
        let how = live.connection.manner(self.hot.maximum_packet_size);
        let code = match taken {
            Acknowledged::Taken if refused => return Step::Done,
            Acknowledged::Taken => ReasonCode::SUCCESS,
            Acknowledged::Unknown if refused => return Step::Done,
            Acknowledged::Unknown => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
            Acknowledged::WrongKind => return self.fail(ReasonCode::PROTOCOL_ERROR, out),
        };
        reply::ack(Kind::Rel, ack.packet_id, code, how, out);
        Step::Done
    }

    /// PUBREL ends the exchange on this side. [MQTT-4.3.3-11] [MQTT3-4.3.3-2]
    pub(crate) fn pubrel(
        &mut self,
        ack: &Ack<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        if let Err(code) = check_user_properties(&ack.user_properties, rules.limits) {
            return self.fail(code, out);
        }
        let code = if live.session.received.release(ack.packet_id) {
            ReasonCode::SUCCESS
        } else {
            ReasonCode::PACKET_IDENTIFIER_NOT_FOUND
        };
        let how = live.connection.manner(self.hot.maximum_packet_size);
        reply::ack(Kind::Comp, ack.packet_id, code, how, out);
        Step::Done
    }
}
