//! The fast path: QoS 0 frames that leave byte for byte as they came.

use authcache::Action;
use codec::mqtt::{
    Frame, Packet, PayloadFormat, ProtocolVersion, PublishHead, check_topic_name, decode,
    passing_properties, publish_head, split_frame,
};

use crate::hot::TopicMemo;
use crate::limits::Limits;
use crate::message::{Address, Run};
use crate::mqtt::machine::{Machine, unknown_right};
use crate::mqtt::publish::{check_user_properties, user_properties_fit};
use crate::mqtt::target::{self, Spelling, Target};
use crate::rules::Rules;
use crate::step::{Refused, Step};

impl Machine<'_> {
    /// QoS 0 frames that leave as they came: walked while head byte and topic repeat, judged once.
    ///
    /// `None` sends the packet to the slow arm, which knows all rules.
    #[inline]
    pub(crate) fn fast<'b>(
        &mut self,
        input: &'b [u8],
        rules: &Rules<'_>,
    ) -> Option<(usize, Step<'b>)> {
        let version5 = self.hot.is_version5();
        let size_max = rules.limits.max_packet_size;
        let frame = split_frame(input, size_max).ok()??;
        let head = publish_head(&frame)?;
        let address = match self.recall(head.topic, rules) {
            Some(address) => address,
            None => self.look_up(head.topic, rules)?,
        };
        let mut passed: &[u8] = &[];
        if version5 && !passes_as_is(&frame, &head, rules.limits, &mut passed) {
            return None;
        }
        let topic = head.topic;
        let mut end = frame.bytes.len();
        let mut longest = end;
        let mut count = 1;
        while let Some(0x30) = input.get(end) {
            let Ok(Some(next)) = split_frame(&input[end..], size_max) else {
                break;
            };
            let Some(head) = publish_head(&next) else {
                break;
            };
            if head.topic != topic
                || (version5 && !passes_as_is(&next, &head, rules.limits, &mut passed))
            {
                break;
            }
            end += next.bytes.len();
            longest = longest.max(next.bytes.len());
            count += 1;
        }
        let run = Run {
            address,
            topic,
            frames: &input[..end],
            count,
            longest: longest as u32,
            version5,
            origin: rules.origin,
            publisher: self.hot.principal,
        };
        let principal = self.hot.principal;
        match rules
            .gate
            .permit(principal, Action::Publish, &mut self.hot.rights, run)
        {
            Ok(run) => Some((end, Step::Run(run))),
            Err((denied, _)) => match unknown_right(denied, principal, address.channel) {
                Some(question) => Some((0, Step::Wait(question))),
                None if rules.closes_on_denied() => None,
                None => Some((end, Step::Refused(Refused::Denied, count))),
            },
        }
    }

    /// Where a topic leads, if it is the one that was used last.
    #[inline]
    pub(crate) fn recall(&self, topic: &[u8], rules: &Rules<'_>) -> Option<Address> {
        let memo = self.hot.memo.as_ref()?;
        let current = memo.generation == rules.directory.generation();
        (current && memo.topic.as_bytes() == topic).then_some(memo.address)
    }

    /// Resolves a topic for the fast path; `None` if its frames cannot pass as they are.
    fn look_up(&mut self, topic: &[u8], rules: &Rules<'_>) -> Option<Address> {
        let topic = std::str::from_utf8(topic).ok()?;
        check_topic_name(topic).ok()?;
        let generation = rules.directory.generation();
        let Ok(Target::Place {
            address,
            spelling: Spelling::Canonical(_),
        }) = target::resolve(topic, rules)
        else {
            return None;
        };
        self.remember(topic, address, generation);
        Some(address)
    }

    /// Remembers a canonical topic, found at a generation of the directory, for the next message.
    pub(crate) fn remember(&mut self, topic: &str, address: Address, generation: u32) {
        match &mut self.hot.memo {
            // The text's room is used again: a publisher of two topics allocates nothing.
            Some(memo) => {
                memo.topic.clear();
                memo.topic.push_str(topic);
                memo.address = address;
                memo.generation = generation;
            }
            None => {
                let memo = TopicMemo {
                    topic: topic.to_owned(),
                    address,
                    generation,
                };
                self.hot.memo = Some(Box::new(memo));
            }
        }
    }
}

/// Whether an MQTT 5 QoS 0 frame may leave byte for byte: nothing in it has to be resolved,
/// counted down or left out.
///
/// `passed` are the properties of an earlier frame that did, their length in front: most devices
/// send the same ones with each message.
#[inline]
fn passes_as_is<'b>(
    frame: &Frame<'b>,
    head: &PublishHead<'b>,
    limits: &Limits,
    passed: &mut &'b [u8],
) -> bool {
    match head.rest.first() {
        Some(0) => true,
        Some(_) if !passed.is_empty() && head.rest.starts_with(passed) => true,
        Some(_) => passes_with_properties(frame, head, limits, passed),
        None => false,
    }
}

/// The plain ones are told by a look; the rest is decoded.
fn passes_with_properties<'b>(
    frame: &Frame<'b>,
    head: &PublishHead<'b>,
    limits: &Limits,
    passed: &mut &'b [u8],
) -> bool {
    if let Some(passing) = passing_properties(head.rest) {
        let (count, bytes) = (passing.user_properties, passing.user_property_bytes);
        let fit = user_properties_fit(count, bytes, limits);
        if fit {
            *passed = &head.rest[..passing.bytes];
        }
        return fit;
    }
    let Ok(Packet::Publish(publish)) = decode(frame, ProtocolVersion::V5) else {
        return false;
    };
    let properties = &publish.properties;
    properties.topic_alias.is_none()
        && properties.message_expiry.is_none()
        && properties.payload_format != Some(PayloadFormat::Utf8)
        && properties.subscription_identifiers.iter().next().is_none()
        && check_user_properties(&properties.user_properties, limits).is_ok()
}
