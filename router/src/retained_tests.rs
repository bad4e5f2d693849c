use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::filters::FirstLevel;

const CHANNEL: ChannelIndex = ChannelIndex::new(3);

fn retained() -> Retained<u32> {
    Retained::new(|_| 10)
}

fn found(retained: &Retained<u32>, channel: ChannelIndex, filter: &str) -> Vec<u32> {
    let mut found = Vec::new();
    retained.matching(channel, filter, &mut found);
    found.sort_unstable();
    found
}

#[test]
fn last_message_of_a_subtopic_is_kept_and_an_empty_one_removes_it() {
    // [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT3-3.3.1-5] [MQTT3-3.3.1-10]
    let mut retained = retained();
    assert_eq!(retained.set(CHANNEL, "a", 1), None);
    assert_eq!(retained.set(CHANNEL, "a", 2), Some(1));
    assert_eq!(retained.get(CHANNEL, "a"), Some(&2));
    assert_eq!((retained.len(), retained.bytes()), (1, 11));
    assert_eq!(retained.remove(CHANNEL, "b"), None);
    assert_eq!(retained.remove(CHANNEL, "a"), Some(2));
    assert!(retained.is_empty() && retained.bytes() == 0);
    retained.invariants();
}

#[test]
fn wildcards_find_messages_but_not_the_brokers_own() {
    // [MQTT-4.7.2-1] [MQTT3-4.7.2-1]
    for fill in [0, 30] {
        let mut retained = retained();
        for number in 0..fill {
            retained.set(ChannelIndex::SYS, &format!("fill/{number}/x"), 100);
            retained.set(CHANNEL, &format!("fill/{number}/x"), 100);
        }
        retained.set(ChannelIndex::SYS, "$SYS/broker/uptime", 1);
        retained.set(CHANNEL, "$alarm", 2);
        retained.set(CHANNEL, "", 3);
        assert!(!found(&retained, ChannelIndex::SYS, "#").contains(&1));
        assert!(found(&retained, ChannelIndex::SYS, "+/broker/uptime").is_empty());
        assert_eq!(found(&retained, ChannelIndex::SYS, "$SYS/#"), [1]);
        assert_eq!(found(&retained, CHANNEL, "+"), [2]);
        assert_eq!(found(&retained, CHANNEL, ""), [3]);
        assert_eq!(found(&retained, CHANNEL, "#")[..2], [2, 3]);
        retained.remove_channel(CHANNEL);
        retained.invariants();
        assert_eq!(retained.len(), 1 + fill);
    }
}

fn subtopic() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&["a", "b", "", "$c"][..]), 0..5)
        .prop_map(|levels| levels.join("/"))
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(&["a", "b", "", "+", "$c"][..]);
    (prop::collection::vec(level, 0..5), any::<bool>()).prop_map(|(mut levels, all)| {
        if all {
            levels.push("#");
        }
        levels.join("/")
    })
}

proptest! {
    #[test]
    fn retained_messages_are_what_the_model_holds(
        operations in prop::collection::vec((subtopic(), prop::bool::weighted(0.7)), 0..150),
        filters in prop::collection::vec(filter(), 1..8),
    ) {
        let mut retained = retained();
        let mut model = BTreeMap::new();
        for (number, (subtopic, set)) in operations.into_iter().enumerate() {
            let number = number as u32;
            if set {
                let former = retained.set(CHANNEL, &subtopic, number);
                prop_assert_eq!(former, model.insert(subtopic, number));
            } else {
                prop_assert_eq!(retained.remove(CHANNEL, &subtopic), model.remove(&subtopic));
            }
            retained.invariants();
        }
        for (subtopic, number) in &model {
            prop_assert_eq!(retained.get(CHANNEL, subtopic), Some(number));
        }
        for filter in filters {
            let mut expected: Vec<u32> = model
                .iter()
                .filter(|(subtopic, _)| filter_matches(&filter, subtopic, FirstLevel::Inner))
                .map(|(_, number)| *number)
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(found(&retained, CHANNEL, &filter), expected, "{}", filter);
        }
        prop_assert_eq!(retained.iter().count(), model.len());
    }
}
