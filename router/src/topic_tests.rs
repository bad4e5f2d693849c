use proptest::prelude::*;

use super::*;

const LIMITS: TopicLimits = TopicLimits {
    bytes: 4096,
    levels: 128,
};
const DOMAIN: &str = "0190a5f3-7c1e-7b22-9f00-0123456789ab";
const CHANNEL: &str = "0190a5f3-7c1e-7b22-9f00-ba9876543210";

fn channel(topic: &str) -> (&str, &str, Option<&str>) {
    match parse_topic(topic, &LIMITS) {
        Ok(ParsedTopic::Channel(parsed)) => (parsed.domain, parsed.channel, parsed.subtopic),
        other => panic!("{topic}: {other:?}"),
    }
}

#[test]
fn message_topics_are_taken_apart() {
    for (topic, expected) in [
        ("/m/d/c/x/a/b", ("d", "x", Some("a/b"))),
        ("m/d/c/x", ("d", "x", None)),
        ("m/d/c/x/a/", ("d", "x", Some("a/"))),
        // MQTT topics are not unescaped.
        ("/m/d/c/x/a%2Fb", ("d", "x", Some("a%2Fb"))),
        ("m/d/c/x/a b/*/>", ("d", "x", Some("a b/*/>"))),
        ("m/d/c/x/c/y", ("d", "x", Some("c/y"))),
        ("m/c/c/c", ("c", "c", None)),
        ("m/d/c/x/$y", ("d", "x", Some("$y"))),
    ] {
        assert_eq!(channel(topic), expected, "{topic}");
    }
}

#[test]
fn malformed_message_and_health_topics_are_refused() {
    // [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT3-3.3.2-2] [MQTT3-4.7.1-1]
    for (topic, expected) in [
        ("m/d/c/", TopicError::BadName),
        ("m//c/x", TopicError::BadName),
        ("m/d/c//a", TopicError::BadName),
        ("m/d d/c/x", TopicError::BadName),
        ("hc/", TopicError::NotAHealthTopic),
        ("hc/d/e", TopicError::NotAHealthTopic),
        ("m/d/c/x/a//b", TopicError::EmptyLevel),
        ("m/d/c/x//b", TopicError::EmptyLevel),
        ("m/d/c/x/", TopicError::EmptyLevel),
        ("m/d/c/x/+", TopicError::WildcardInTopicName),
        ("m/d/c/x/#", TopicError::WildcardInTopicName),
        ("a+b", TopicError::WildcardInTopicName),
        ("m/", TopicError::NotAChannelTopic),
        ("m/d", TopicError::NotAChannelTopic),
        ("m/d/c", TopicError::NotAChannelTopic),
        ("m/d/x/y", TopicError::NotAChannelTopic),
        ("/m/d", TopicError::NotAChannelTopic),
        ("m/d/x/c/y", TopicError::NotAChannelTopic),
    ] {
        assert_eq!(parse_topic(topic, &LIMITS), Err(expected), "{topic}");
    }
}

#[test]
fn topics_outside_the_grammar_belong_to_the_open_namespace() {
    for topic in [
        "not-a-topic",
        "/extra/m/d/c/x",
        "m",
        "hc",
        "/",
        "//m/d/c/x",
        "a//b",
        "Mm/x",
    ] {
        assert_eq!(parse_topic(topic, &LIMITS), Ok(ParsedTopic::Open(topic)));
    }
    for topic in ["$SYS/broker/uptime", "$", "$share", "$share/g/x"] {
        assert_eq!(parse_topic(topic, &LIMITS), Ok(ParsedTopic::Sys(topic)));
    }
    assert_eq!(
        parse_topic("hc/plant", &LIMITS),
        Ok(ParsedTopic::Health { domain: "plant" })
    );
    assert_eq!(
        parse_topic("/hc/plant", &LIMITS),
        Ok(ParsedTopic::Health { domain: "plant" })
    );
}

#[test]
fn topic_as_it_is_forwarded_is_told_apart() {
    let canonical = format!("m/{DOMAIN}/c/{CHANNEL}");
    for (topic, expected) in [
        (canonical.clone(), true),
        (format!("{canonical}/a"), true),
        (format!("/{canonical}/a"), false),
        (format!("m/plant/c/{CHANNEL}/a"), false),
        (format!("m/{DOMAIN}/c/line/a"), false),
        (
            canonical
                .to_uppercase()
                .replace("M/", "m/")
                .replace("/C/", "/c/"),
            false,
        ),
    ] {
        let Ok(ParsedTopic::Channel(parsed)) = parse_topic(&topic, &LIMITS) else {
            panic!("{topic}")
        };
        assert_eq!(parsed.canonical, expected, "{topic}");
        let (prefix, rest) = topic.split_at(parsed.prefix_len);
        assert!(prefix.ends_with(parsed.channel));
        assert_eq!(rest.strip_prefix('/'), parsed.subtopic);
    }
}

#[test]
fn limits_hold_while_scanning() {
    // [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3] [MQTT3-4.7.3-1] [MQTT3-4.7.3-2] [MQTT3-4.7.3-3]
    assert_eq!(parse_topic("", &LIMITS), Err(TopicError::Empty));
    assert_eq!(parse_filter("", &LIMITS), Err(TopicError::Empty));
    assert_eq!(parse_topic("a\0b", &LIMITS), Err(TopicError::NullCharacter));
    assert!(parse_topic(&"a".repeat(4096), &LIMITS).is_ok());
    assert_eq!(
        parse_topic(&"a".repeat(4097), &LIMITS),
        Err(TopicError::TooLong(4096))
    );
    let wide = TopicLimits {
        bytes: 1 << 20,
        levels: 1 << 20,
    };
    assert!(parse_topic(&"a".repeat(65_535), &wide).is_ok());
    assert_eq!(
        parse_topic(&"a".repeat(65_536), &wide),
        Err(TopicError::TooLong(65_535))
    );
    // T-TOP-1
    assert!(parse_topic(&"/".repeat(127), &LIMITS).is_ok());
    assert_eq!(
        parse_topic(&"/".repeat(128), &LIMITS),
        Err(TopicError::TooManyLevels(128))
    );
    assert_eq!(
        parse_filter(&"+/".repeat(2000), &LIMITS),
        Err(TopicError::TooManyLevels(128))
    );
}

#[test]
fn wildcards_of_a_filter_are_whole_levels_and_below_the_channel() {
    // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3]
    for (filter, expected) in [
        ("m/d/c/x/#", Some("#")),
        ("/m/d/c/x/+/b/#", Some("+/b/#")),
        ("m/d/c/x", None),
        ("m/d/c/x/a/", Some("a/")),
    ] {
        let parsed = parse_filter(filter, &LIMITS).unwrap();
        let ParsedTopic::Channel(target) = parsed.target else {
            panic!("{filter}")
        };
        assert_eq!((parsed.share, target.subtopic), (None, expected));
    }
    for (filter, expected) in [
        ("m/d/c/x/a+b", TopicError::MisplacedWildcard),
        ("m/d/c/x/a#", TopicError::MisplacedWildcard),
        ("m/d/c/x/#/a", TopicError::MisplacedWildcard),
        ("sport+", TopicError::MisplacedWildcard),
        ("sport/tennis#", TopicError::MisplacedWildcard),
        ("m/+/c/#", TopicError::BadName),
        ("m/d/c/+", TopicError::BadName),
        ("m/d/c/#", TopicError::BadName),
        ("m/#", TopicError::NotAChannelTopic),
        ("hc/#", TopicError::BadName),
        ("m/d/c/x/a//b", TopicError::EmptyLevel),
    ] {
        assert_eq!(parse_filter(filter, &LIMITS), Err(expected), "{filter}");
    }
    for filter in [
        "#",
        "+/#",
        "+",
        "/+",
        "sport/tennis/+",
        "+/tennis/#",
        "a//+",
    ] {
        let open = ParsedFilter {
            share: None,
            target: ParsedTopic::Open(filter),
        };
        assert_eq!(parse_filter(filter, &LIMITS), Ok(open));
    }
}

#[test]
fn shared_filter_names_its_group_and_its_inner_filter() {
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2] T-TOP-5
    let parsed = parse_filter("$share/g/m/d/c/x/+", &LIMITS).unwrap();
    assert_eq!(parsed.share.map(ShareName::as_str), Some("g"));
    assert!(matches!(parsed.target, ParsedTopic::Channel(target) if target.subtopic == Some("+")));
    let parsed = parse_filter("$share/g//x", &LIMITS).unwrap();
    assert_eq!(parsed.target, ParsedTopic::Open("/x"));
    for filter in [
        "$share",
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//t",
        "$share/g+/t",
        "$share/#/t",
        "$share/+/t",
        "$share/g/$share/h/t",
    ] {
        assert_eq!(
            parse_filter(filter, &LIMITS),
            Err(TopicError::BadShare),
            "{filter}"
        );
    }
    let sys = ParsedFilter {
        share: None,
        target: ParsedTopic::Sys("$shares/g"),
    };
    assert_eq!(parse_filter("$shares/g", &LIMITS), Ok(sys));
}

#[test]
fn a_canonical_topic_is_read_as_the_rules_read_it() {
    let canonical = format!("m/{DOMAIN}/c/{CHANNEL}");
    for subtopic in [
        "", "/", "/a", "/a/", "/a//", "//", "//a", "/a//b", "/a/b/c", "/+", "/a/#", "/a\0b", "a",
        "/ü/$x",
    ] {
        let topic = format!("{canonical}{subtopic}");
        for (bytes, levels) in [
            (4096, 128),
            (topic.len(), 5),
            (topic.len() - 1, 128),
            (4096, 3),
        ] {
            let limits = TopicLimits { bytes, levels };
            assert_eq!(
                parse_topic(&topic, &limits),
                parse_topic_by_rules(&topic, &limits),
                "{topic:?} {limits:?}"
            );
        }
    }
    assert!(canonical_topic(&format!("{canonical}/a/"), &LIMITS).is_some());
}

proptest! {
    #[test]
    fn a_topic_that_is_nearly_canonical_is_read_as_the_rules_read_it(
        domain: u128,
        channel: u128,
        subtopic in "(/[a/+#\\x00ü]{0,8}){0,2}",
        at in 0usize..90,
        with in "[-0-9a-fA-G/m+ü]?",
        levels in 1usize..12,
    ) {
        let [domain, channel] = [domain, channel].map(EntityId::from_u128);
        let mut topic = format!("m/{domain}/c/{channel}{subtopic}");
        if topic.is_char_boundary(at) && topic.is_char_boundary(at + 1) && at < topic.len() {
            topic.replace_range(at..=at, &with);
        }
        let limits = TopicLimits { bytes: 90, levels };
        prop_assert_eq!(parse_topic(&topic, &limits), parse_topic_by_rules(&topic, &limits));
    }

    #[test]
    fn parsing_never_panics_and_parts_are_parts(text in "[mhc/$+# a\u{0}é-]{0,24}") {
        if let Ok(ParsedTopic::Channel(parsed)) = parse_topic(&text, &LIMITS) {
            let slash = if text.starts_with('/') { "/" } else { "" };
            let mut back = format!("{slash}m/{}/c/{}", parsed.domain, parsed.channel);
            prop_assert_eq!(back.len(), parsed.prefix_len);
            if let Some(subtopic) = parsed.subtopic {
                back = format!("{back}/{subtopic}");
            }
            prop_assert_eq!(back, text.clone());
        }
        let _ = parse_filter(&text, &LIMITS);
    }

    #[test]
    fn every_topic_name_is_a_filter_for_itself(text in "[mhc/a]{1,12}") {
        if let Ok(target) = parse_topic(&text, &LIMITS) {
            prop_assert_eq!(parse_filter(&text, &LIMITS), Ok(ParsedFilter { share: None, target }));
        }
    }
}
