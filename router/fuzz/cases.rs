//! What each fuzz target does with its bytes. Also included by `router/tests/corpus.rs`, which
//! replays the corpus with plain `cargo test`.

#![allow(dead_code, reason = "each fuzz target takes one of the functions")]

use std::collections::BTreeMap;
use std::sync::Arc;

use authcache::{
    Action, AuthCache, Capacity, Change, ChannelIndex, EntityId, Gate, Identity, PrincipalIndex,
    PrincipalRecord, Right, RightCache, Status,
};
use router::{
    Interest, ParsedTopic, Retained, Routed, ShardId, SharedGroups, SlotId, Subs, Subscription,
    TopicLimits, parse_filter, parse_topic,
};

/// Any text, as topic and as filter: no panic, parts are parts, what is a topic is a filter.
pub(crate) fn topic(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let limits = TopicLimits {
        bytes: 200,
        levels: 20,
    };
    let topic = parse_topic(text, &limits);
    if let Ok(target) = topic {
        assert!(!text.contains(['+', '#', '\0']) && !text.is_empty() && text.len() <= 200);
        assert!(text.split('/').count() <= 20);
        if let ParsedTopic::Channel(parsed) = target {
            let (prefix, rest) = text.split_at(parsed.prefix_len);
            assert_eq!(rest.strip_prefix('/'), parsed.subtopic);
            let expected = format!("m/{}/c/{}", parsed.domain, parsed.channel);
            assert_eq!(prefix.trim_start_matches('/'), expected);
        }
        if !text.starts_with("$share") {
            assert_eq!(
                parse_filter(text, &limits).map(|filter| filter.target),
                Ok(target)
            );
        }
    }
    if let Ok(filter) = parse_filter(text, &limits)
        && let Some(share) = filter.share
    {
        assert!(!share.as_str().is_empty() && !share.as_str().contains(['/', '+', '#']));
    }
}

/// Subscriptions of a few slots on one channel against a plain map and the naive matcher.
pub(crate) fn subscriptions(data: &[u8]) {
    let (gate, who, channel) = scene();
    let (interest, groups) = (Arc::new(Interest::new()), Arc::new(SharedGroups::new()));
    let mut subs = Subs::new(ShardId::new(0), 1, interest, groups, 0);
    let mut model = BTreeMap::new();
    for step in data.chunks_exact(4) {
        let (slot, text) = (u32::from(step[1] & 7), text(step[2], step[3]));
        let id = SlotId::new(slot);
        match step[0] % 3 {
            0 => {
                let qos = step[1] >> 3 & 1;
                let wanted = wanted(channel, &text, qos);
                let Ok(permitted) =
                    gate.permit(who, Action::Subscribe, &mut RightCache::default(), wanted)
                else {
                    panic!("the right is there")
                };
                let replaced = subs.subscribe(permitted, id).replaced;
                assert_eq!(replaced, model.insert((slot, text), qos).is_some());
            }
            1 => {
                let removed = subs.unsubscribe(id, channel, &text, None);
                assert_eq!(removed, model.remove(&(slot, text)).is_some());
            }
            _ => {
                let topic = text.replace(['+', '#'], "x");
                let mut expected = BTreeMap::new();
                for ((slot, _), &qos) in model
                    .iter()
                    .filter(|((_, filter), _)| matches(filter, &topic))
                {
                    let highest: &mut u8 = expected.entry(*slot).or_default();
                    *highest = qos.max(*highest);
                }
                let routed = subs.route(channel, None, &topic, &gate, |_| who);
                let found: Vec<_> = match routed {
                    Routed::Plain(entries) => entries
                        .iter()
                        .map(|entry| (entry.slot().get(), entry.qos()))
                        .collect(),
                    Routed::Merged(all) => {
                        all.iter().map(|one| (one.slot.get(), one.qos)).collect()
                    }
                };
                assert_eq!(found.len(), expected.len());
                assert_eq!(BTreeMap::from_iter(found), expected);
            }
        }
        subs.invariants();
    }
}

/// Retained messages against a plain map and the naive matcher.
pub(crate) fn retained(data: &[u8]) {
    let channel = ChannelIndex::new(1);
    let mut retained = Retained::new(|_: &u32| 1);
    let mut model = BTreeMap::new();
    for (number, step) in data.chunks_exact(3).enumerate() {
        let (text, number) = (text(step[1], step[2]), number as u32);
        let topic = text.replace(['+', '#'], "x");
        match step[0] % 3 {
            0 => assert_eq!(
                retained.set(channel, &topic, number),
                model.insert(topic, number)
            ),
            1 => assert_eq!(retained.remove(channel, &topic), model.remove(&topic)),
            _ => {
                let mut found = Vec::new();
                retained.matching(channel, &text, &mut found);
                found.sort_unstable();
                let matching = model.iter().filter(|(topic, _)| matches(&text, topic));
                let mut expected: Vec<u32> = matching.map(|(_, number)| *number).collect();
                expected.sort_unstable();
                assert_eq!(found, expected, "{text}");
            }
        }
        retained.invariants();
    }
}

/// A filter of up to four levels, from two bytes.
fn text(low: u8, high: u8) -> String {
    let bits = u16::from_le_bytes([low, high]);
    let levels = (0..bits & 7).map_while(|at| match bits >> (3 + 3 * at) & 7 {
        _ if at > 3 => None,
        0 | 1 => Some("a"),
        2 => Some("b"),
        3 => Some(""),
        4 => Some("$c"),
        5 => Some("long-level"),
        _ => Some("+"),
    });
    let mut levels: Vec<&str> = levels.collect();
    if bits & 7 > 4 {
        levels.push("#");
    }
    levels.join("/")
}

/// The rule by its words (MQTT 5, 4.7.1), within a channel.
fn matches(filter: &str, topic: &str) -> bool {
    fn walk(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => walk(filter, topic),
            ([one, filter @ ..], [other, topic @ ..]) => one == other && walk(filter, topic),
            _ => false,
        }
    }
    fn split(text: &str) -> Vec<&str> {
        if text.is_empty() {
            Vec::new()
        } else {
            text.split('/').collect()
        }
    }
    walk(&split(filter), &split(topic))
}

fn wanted(channel: ChannelIndex, filter: &str, qos: u8) -> Subscription {
    Subscription {
        channel,
        filter: filter.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        version5: true,
        identifier: None,
        prefix: None,
        share: None,
    }
}

/// One domain, one channel, one client that may do everything.
fn scene() -> (Gate, PrincipalIndex, ChannelIndex) {
    let [domain, channel, client] = [1, 2, 3].map(EntityId::from_u128);
    let (cache, mut writer) = AuthCache::new(Capacity::default());
    cache.lease().unlimited();
    let status = Status::Enabled;
    writer.apply(&Change::DomainSet {
        id: domain,
        route: String::new(),
        status,
    });
    let change = Change::ChannelSet {
        id: channel,
        domain,
        route: None,
        status,
        open: false,
    };
    writer.apply(&change);
    let kind = PrincipalRecord::Client { domain };
    let rights = vec![(channel, Right::BOTH)];
    let who = writer.hold(&Identity {
        id: client,
        kind,
        status,
        credential: 0,
        rights,
    });
    let Some(index) = cache.directory().channel(channel) else {
        panic!("it was just made")
    };
    (cache.gate(), who, index)
}
