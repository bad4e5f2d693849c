use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The naive matcher: both sides as lists of levels, from the specification's words.
fn naive(filter: &[&str], topic: &[&str], first: FirstLevel) -> bool {
    let dollar = first == FirstLevel::OfTopic && topic.first().is_some_and(|l| l.starts_with('$'));
    if dollar && matches!(filter.first(), Some(&("+" | "#"))) {
        return false;
    }
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, topic @ ..]) => naive(filter, topic, FirstLevel::Inner),
        ([f, filter @ ..], [t, topic @ ..]) if f == t => naive(filter, topic, FirstLevel::Inner),
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

fn found(filters: &Filters<u32>, topic: &str, first: FirstLevel) -> Vec<u32> {
    let mut found = Vec::new();
    filters.matching(topic, first, |value| found.push(*value));
    found.sort_unstable();
    found
}

fn filled(texts: &[&str]) -> Filters<u32> {
    let mut filters = Filters::default();
    for (number, text) in texts.iter().enumerate() {
        filters.get_or_insert_with(text, || number as u32);
    }
    filters
}

#[test]
fn examples_of_the_specification_hold_in_list_and_tree() {
    // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.2-1] [MQTT-4.7.3-4] [MQTT3-4.7.2-1] [MQTT3-4.7.3-4]
    let cases: &[(&str, &str, bool)] = &[
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/ranking",
            true,
        ),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
            true,
        ),
        ("sport/#", "sport", true),
        ("#", "sport/tennis", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("#", "$SYS/monitor", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/monitor", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("ACCOUNTS", "Accounts", false),
        ("/finance", "finance", false),
        ("é", "e\u{301}", false),
        ("a//b", "a//b", true),
        ("a/b", "a//b", false),
    ];
    for &(filter, topic, expected) in cases {
        assert_eq!(
            filter_matches(filter, topic, FirstLevel::OfTopic),
            expected,
            "{filter} {topic}"
        );
        let fill: Vec<String> = (0..LINEAR_MAX)
            .map(|number| format!("fill/{number}"))
            .collect();
        let mut texts: Vec<&str> = fill.iter().map(String::as_str).collect();
        texts.insert(0, filter);
        let filters = filled(&texts);
        assert!(filters.tree.is_some());
        let matched = found(&filters, topic, FirstLevel::OfTopic) == [0];
        assert_eq!(matched, expected, "{filter} {topic}");
    }
}

#[test]
fn within_a_channel_wildcards_match_levels_that_begin_with_a_dollar() {
    assert!(filter_matches("+", "$alarm", FirstLevel::Inner));
    assert!(!filter_matches("+", "$alarm", FirstLevel::OfTopic));
    assert!(filter_matches("#", "", FirstLevel::Inner));
    assert!(filter_matches("", "", FirstLevel::Inner));
    assert!(!filter_matches("", "a", FirstLevel::Inner));
    assert!(!filter_matches("+", "", FirstLevel::Inner));
}

#[test]
fn many_wildcard_permutations_cost_no_more_than_their_nodes() {
    // T-TOP-2: all 2^10 filters of ten levels, each "a" or "+", match one topic.
    let mut filters = Filters::default();
    for bits in 0..1024u32 {
        let levels: Vec<_> = (0..10)
            .map(|at| if bits >> at & 1 == 0 { "a" } else { "+" })
            .collect();
        filters.get_or_insert_with(&levels.join("/"), || bits);
    }
    let topic = ["a"; 10].join("/");
    assert_eq!(
        found(&filters, &topic, FirstLevel::OfTopic),
        (0..1024).collect::<Vec<_>>()
    );
    for bits in 0..1024u32 {
        let levels: Vec<_> = (0..10)
            .map(|at| if bits >> at & 1 == 0 { "a" } else { "+" })
            .collect();
        assert_eq!(filters.remove(&levels.join("/")), Some(bits));
    }
    assert!(filters.is_empty());
}

#[test]
fn million_filters_are_held_and_matched() {
    let mut filters = Filters::default();
    let text = |number: u32| match number % 4 {
        0 => format!("site/{}/line/{}/state", number / 1000, number % 1000),
        1 => format!("site/{}/+/{}/#", number / 1000, number % 1000),
        2 => format!("site/+/line/{number}/state"),
        _ => format!("plant{number}/#"),
    };
    for number in 0..1_000_000 {
        *filters.get_or_insert_with(&text(number), || number) = number;
    }
    assert_eq!(filters.len(), 1_000_000);
    let topic = |site: u32, line: u32| format!("site/{site}/line/{line}/state");
    let of = |topic: &str| found(&filters, topic, FirstLevel::OfTopic);
    assert_eq!(of(&topic(700, 4)), [700_004]);
    assert_eq!(of(&topic(700, 5)), [700_005]);
    // A line that two filters name, one of them for every site.
    assert_eq!(of(&topic(700, 2)), [2]);
    assert_eq!(of("plant999999/any/where"), [999_999]);
    assert_eq!(of("plant1000003"), []);
    for number in 0..1_000_000 {
        assert_eq!(filters.remove(&text(number)), Some(number));
    }
    assert!(filters.is_empty());
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["a", "b", "", "$x", "longer-level"][..])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 0..5).prop_map(|levels| levels.join("/"))
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![4 => level(), 2 => Just("+")];
    (
        prop::collection::vec(level, 0..5),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(mut levels, all)| {
            if all {
                levels.push("#");
            }
            levels.join("/")
        })
}

proptest! {
    #[test]
    fn list_and_tree_agree_with_the_naive_matcher(
        operations in prop::collection::vec((filter(), prop::bool::weighted(0.7)), 0..120),
        topics in prop::collection::vec(topic(), 1..8),
        whole: bool,
    ) {
        let first = if whole { FirstLevel::OfTopic } else { FirstLevel::Inner };
        let mut filters = Filters::default();
        let mut model = BTreeMap::new();
        for (number, (filter, add)) in operations.into_iter().enumerate() {
            let number = number as u32;
            if add {
                let value = *filters.get_or_insert_with(&filter, || number);
                prop_assert_eq!(value, *model.entry(filter).or_insert(number));
            } else {
                prop_assert_eq!(filters.remove(&filter), model.remove(&filter));
            }
            filters.invariants();
            prop_assert_eq!(filters.len(), model.len());
        }
        for topic in topics {
            let mut expected: Vec<u32> = model
                .iter()
                .filter(|(filter, _)| naive(&split(filter), &split(&topic), first))
                .map(|(_, number)| *number)
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(found(&filters, &topic, first), expected, "{}", topic);
        }
    }
}
