//! Packets as text, in the words that this codec and mqttbytes share.

use std::panic::catch_unwind;

use bytes::BytesMut;
use mqttbytes::{v4, v5};

use crate::mqtt::ProtocolVersion::{self, V5, V31, V311};
use crate::mqtt::{Ack, Packet, UserProperties};

/// What mqttbytes says to a packet, in the words of `summary`.
pub(super) fn second_opinion(
    bytes: &[u8],
    version: ProtocolVersion,
) -> Option<Result<String, String>> {
    let mut stream = BytesMut::from(bytes);
    let verdict = catch_unwind(move || match version {
        V311 => Some(v4::read(&mut stream, bytes.len()).map(|packet| of_v4(&packet))),
        V5 => Some(v5::read(&mut stream, bytes.len()).map(|packet| of_v5(&packet))),
        V31 => None,
    });
    match verdict {
        Ok(verdict) => verdict.map(|verdict| verdict.map_err(|error| format!("{error:?}"))),
        Err(_) => Some(Err("panic".to_owned())),
    }
}

/// The facts of a packet that both codecs can tell, as text.
pub(super) fn summary(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connect(c) => {
            let will = c.will.map(|w| {
                (
                    w.topic.to_owned(),
                    w.payload.to_vec(),
                    w.qos as u8,
                    w.retain,
                )
            });
            // It cannot tell an absent user name or password from an empty one.
            let login = (
                c.username.unwrap_or_default(),
                c.password.unwrap_or_default(),
            );
            let p = &c.properties;
            let will_user = c.will.map(|will| users(&will.properties.user_properties));
            format!(
                "connect {} {} {} {will:?} {login:?} {} {:?} {:?} {:?}",
                c.client_id,
                c.keep_alive,
                c.clean_start,
                p.session_expiry,
                users(&p.user_properties),
                p.authentication_method,
                will_user.unwrap_or_default(),
            )
        }
        Packet::ConnAck(c) => format!(
            "connack {} {} {:?} {:?} {:?}",
            c.session_present,
            c.reason.get(),
            c.properties.server_keep_alive,
            c.properties.authentication_data,
            users(&c.properties.user_properties),
        ),
        Packet::Publish(p) => {
            let id = p.delivery.packet_id().map_or(0, |id| id.get());
            let o = &p.properties;
            let identifiers: Vec<_> = o.subscription_identifiers.iter().collect();
            format!(
                "publish {} {} {} {} {id} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {identifiers:?} {:?}",
                p.dup,
                p.retain,
                p.delivery.qos() as u8,
                p.topic,
                p.payload,
                o.payload_format.map(|format| format as u8),
                o.message_expiry,
                o.topic_alias,
                o.response_topic,
                o.correlation_data,
                o.content_type,
                users(&o.user_properties),
            )
        }
        Packet::PubAck(ack) => acknowledgement("puback", ack),
        Packet::PubRec(ack) => acknowledgement("pubrec", ack),
        Packet::PubRel(ack) => acknowledgement("pubrel", ack),
        Packet::PubComp(ack) => acknowledgement("pubcomp", ack),
        Packet::Subscribe(s) => {
            let filters: Vec<_> = s
                .filters
                .iter()
                .map(|f| (f.filter, f.qos as u8, f.no_local, f.retain_as_published))
                .collect();
            let id = s.subscription_identifier;
            format!("subscribe {} {filters:?} {id:?}", s.packet_id.get())
        }
        Packet::SubAck(s) => format!("suback {} {:?}", s.packet_id.get(), s.codes),
        Packet::Unsubscribe(u) => {
            format!(
                "unsubscribe {} {:?}",
                u.packet_id.get(),
                u.filters.iter().collect::<Vec<_>>()
            )
        }
        Packet::UnsubAck(u) => format!("unsuback {} {:?}", u.packet_id.get(), u.codes),
        Packet::PingReq => "pingreq".to_owned(),
        Packet::PingResp => "pingresp".to_owned(),
        Packet::Disconnect(d) => format!(
            "disconnect {} {:?} {:?} {:?}",
            d.reason.get(),
            d.session_expiry,
            d.reason_string,
            users(&d.user_properties),
        ),
        Packet::Auth(_) => "auth".to_owned(),
    }
}

fn acknowledgement(name: &str, ack: &Ack<'_>) -> String {
    let users = users(&ack.user_properties);
    format!(
        "{name} {} {} {:?} {users:?}",
        ack.packet_id.get(),
        ack.reason.get(),
        ack.reason_string
    )
}

fn users(properties: &UserProperties<'_>) -> Vec<(String, String)> {
    properties
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn of_v4(packet: &v4::Packet) -> String {
    let none: Vec<(String, String)> = Vec::new();
    let id_only = |name, id| format!("{name} {id} 0 None []");
    match packet {
        v4::Packet::Connect(c) => {
            let will = c.last_will.as_ref();
            let will = will.map(|w| (w.topic.clone(), w.message.to_vec(), w.qos as u8, w.retain));
            let login = c.login.as_ref().map_or(("", &b""[..]), |l| {
                (l.username.as_str(), l.password.as_bytes())
            });
            format!(
                "connect {} {} {} {will:?} {login:?} 0 {none:?} None {none:?}",
                c.client_id, c.keep_alive, c.clean_session,
            )
        }
        v4::Packet::ConnAck(c) => {
            format!(
                "connack {} {} None None {none:?}",
                c.session_present, c.code as u8
            )
        }
        v4::Packet::Publish(p) => format!(
            "publish {} {} {} {} {} {:?} None None None None None None [] {none:?}",
            p.dup,
            p.retain,
            p.qos as u8,
            p.topic,
            p.pkid,
            &p.payload[..],
        ),
        v4::Packet::PubAck(ack) => id_only("puback", ack.pkid),
        v4::Packet::PubRec(ack) => id_only("pubrec", ack.pkid),
        v4::Packet::PubRel(ack) => id_only("pubrel", ack.pkid),
        v4::Packet::PubComp(ack) => id_only("pubcomp", ack.pkid),
        v4::Packet::Subscribe(s) => {
            let filters: Vec<_> = s
                .filters
                .iter()
                .map(|f| (f.path.as_str(), f.qos as u8, false, false))
                .collect();
            format!("subscribe {} {filters:?} None", s.pkid)
        }
        v4::Packet::SubAck(s) => {
            let code = |code: &v4::SubscribeReasonCode| match code {
                v4::SubscribeReasonCode::Success(qos) => *qos as u8,
                v4::SubscribeReasonCode::Failure => 0x80,
            };
            format!(
                "suback {} {:?}",
                s.pkid,
                s.return_codes.iter().map(code).collect::<Vec<_>>()
            )
        }
        v4::Packet::Unsubscribe(u) => format!("unsubscribe {} {:?}", u.pkid, u.topics),
        v4::Packet::UnsubAck(u) => format!("unsuback {} []", u.pkid),
        v4::Packet::PingReq => "pingreq".to_owned(),
        v4::Packet::PingResp => "pingresp".to_owned(),
        v4::Packet::Disconnect => format!("disconnect 0 None None {none:?}"),
    }
}

fn of_v5(packet: &v5::Packet) -> String {
    /// One acknowledgement; the four types have equal fields.
    macro_rules! acknowledgement {
        ($name:literal, $ack:expr) => {{
            let properties = $ack.properties.clone();
            let (reason, users) =
                properties.map_or_else(Default::default, |p| (p.reason_string, p.user_properties));
            format!(
                "{} {} {} {reason:?} {users:?}",
                $name, $ack.pkid, $ack.reason as u8
            )
        }};
    }
    match packet {
        v5::Packet::Connect(c) => {
            let w = c.last_will.as_ref();
            let will = w.map(|w| (w.topic.clone(), w.message.to_vec(), w.qos as u8, w.retain));
            let will_user = w
                .and_then(|w| w.properties.clone())
                .map(|p| p.user_properties);
            let login = c.login.as_ref().map_or(("", &b""[..]), |l| {
                (l.username.as_str(), l.password.as_bytes())
            });
            let p = c.properties.clone();
            let (expiry, users, method) = p.map_or((None, Vec::new(), None), |p| {
                (
                    p.session_expiry_interval,
                    p.user_properties,
                    p.authentication_method,
                )
            });
            format!(
                "connect {} {} {} {will:?} {login:?} {} {users:?} {method:?} {:?}",
                c.client_id,
                c.keep_alive,
                c.clean_session,
                expiry.unwrap_or_default(),
                will_user.unwrap_or_default(),
            )
        }
        v5::Packet::ConnAck(c) => {
            let p = c.properties.clone();
            let (keep_alive, data, users) = p.map_or((None, None, Vec::new()), |p| {
                (
                    p.server_keep_alive,
                    p.authentication_data,
                    p.user_properties,
                )
            });
            let data = data.as_deref();
            format!(
                "connack {} {} {keep_alive:?} {data:?} {users:?}",
                c.session_present, c.code as u8
            )
        }
        v5::Packet::Publish(p) => {
            let none = v5::PublishProperties {
                payload_format_indicator: None,
                message_expiry_interval: None,
                topic_alias: None,
                response_topic: None,
                correlation_data: None,
                user_properties: Vec::new(),
                subscription_identifiers: Vec::new(),
                content_type: None,
            };
            let o = p.properties.clone().unwrap_or(none);
            format!(
                "publish {} {} {} {} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                p.dup,
                p.retain,
                p.qos as u8,
                p.topic,
                p.pkid,
                &p.payload[..],
                o.payload_format_indicator,
                o.message_expiry_interval,
                o.topic_alias,
                o.response_topic,
                o.correlation_data.as_deref(),
                o.content_type,
                o.subscription_identifiers,
                o.user_properties,
            )
        }
        v5::Packet::PubAck(ack) => acknowledgement!("puback", ack),
        v5::Packet::PubRec(ack) => acknowledgement!("pubrec", ack),
        v5::Packet::PubRel(ack) => acknowledgement!("pubrel", ack),
        v5::Packet::PubComp(ack) => acknowledgement!("pubcomp", ack),
        v5::Packet::Subscribe(s) => {
            let filters: Vec<_> = s
                .filters
                .iter()
                .map(|f| (f.path.as_str(), f.qos as u8, f.nolocal, f.preserve_retain))
                .collect();
            let id = s.properties.as_ref().and_then(|p| p.id);
            format!("subscribe {} {filters:?} {id:?}", s.pkid)
        }
        v5::Packet::SubAck(s) => {
            let codes: Vec<_> = s.return_codes.iter().map(|code| *code as u8).collect();
            format!("suback {} {codes:?}", s.pkid)
        }
        v5::Packet::Unsubscribe(u) => format!("unsubscribe {} {:?}", u.pkid, u.filters),
        v5::Packet::UnsubAck(u) => {
            let codes: Vec<_> = u.reasons.iter().map(|code| *code as u8).collect();
            format!("unsuback {} {codes:?}", u.pkid)
        }
        v5::Packet::PingReq => "pingreq".to_owned(),
        v5::Packet::PingResp => "pingresp".to_owned(),
        v5::Packet::Disconnect(d) => {
            let p = d.properties.clone();
            let (expiry, reason, users) = p.map_or((None, None, Vec::new()), |p| {
                (
                    p.session_expiry_interval,
                    p.reason_string,
                    p.user_properties,
                )
            });
            format!(
                "disconnect {} {expiry:?} {reason:?} {users:?}",
                d.reason_code as u8
            )
        }
    }
}
