use std::path::Path;

use super::*;

fn file(text: &str) -> RawConfig {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turnpike.toml");
    std::fs::write(&path, text).unwrap();
    let mut raw = RawConfig::default();
    raw.file(&path).unwrap();
    raw
}

/// What is told about a file, its place cut to the line.
fn told(text: &str) -> Vec<String> {
    let faults = Config::check(&file(text)).unwrap_err();
    let lines = faults.to_string();
    lines
        .lines()
        .map(|line| {
            line.rsplit_once("turnpike.toml:")
                .map_or(line, |(_, rest)| rest)
                .to_owned()
        })
        .collect()
}

fn variables(pairs: &[(&str, &str)]) -> RawConfig {
    let mut raw = RawConfig::default();
    raw.variables(
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    raw
}

#[test]
fn nothing_written_means_the_defaults() {
    let config = Config::check(&RawConfig::default()).unwrap();
    assert_eq!(config.data_dir, Path::new("./turnpike-data"));
    assert_eq!(config.mqtt.address.to_string(), "127.0.0.1:1883");
    assert_eq!(config.api.address.to_string(), "127.0.0.1:9000");
    assert!(config.demo && !config.mqtt.open && !config.mqtt.anonymous);
    assert_eq!(config.limits.max_packet_size, 1 << 20);
}

#[test]
fn a_file_sets_what_it_names() {
    let config = Config::check(&file(
        "data_dir = '/var/lib/turnpike'\n[listeners.mqtt]\naddress = '[::]:8883'\nopen = true\n\
         [limits]\nmax_packet_size = '256KiB'\nconnect_timeout = '750ms'\nsession_expiry_max = '2h'\n\
         queue_policy = 'drop_newest'\nmax_topic_levels = 0x10",
    ))
    .unwrap();
    assert_eq!(config.data_dir, Path::new("/var/lib/turnpike"));
    assert_eq!(config.mqtt.address.to_string(), "[::]:8883");
    assert!(config.mqtt.open);
    assert_eq!(config.limits.max_packet_size, 256 << 10);
    assert_eq!(config.limits.connect_timeout_ms, 750);
    assert_eq!(config.limits.session_expiry_max, 7_200);
    assert_eq!(config.limits.queue_policy, broker::QueuePolicy::DropNewest);
    assert_eq!(config.limits.topic.levels, 16);
}

#[test]
fn variables_go_over_the_file_and_flags_over_both() {
    let mut raw = file("demo = true\nshards = 3\n[limits]\nreceive_maximum = 10");
    raw.variables([
        ("TURNPIKE_SHARDS".to_owned(), "4".to_owned()),
        (
            "TURNPIKE_LIMITS__RECEIVE_MAXIMUM".to_owned(),
            "20".to_owned(),
        ),
        ("TURNPIKE_CONFIG".to_owned(), "is no key".to_owned()),
        ("PATH".to_owned(), "/bin".to_owned()),
    ]);
    raw.flag("--no-demo", "demo", "false");
    let config = Config::check(&raw).unwrap();
    assert!(!config.demo);
    assert_eq!((config.shards, config.limits.receive_maximum), (4, 20));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_line_and_what_is_accepted() {
    let told = told(
        "demo = 'yes'\n\nshards = 0\n[listeners.mqtt]\naddres = '127.0.0.1:1883'\n\
         [limits]\nmax_packet_size = 'big'\nqueue_policy = 'drop'\n[colour]\nred = 1\n",
    );
    assert_eq!(told.len(), 6, "{told:#?}");
    for expected in [
        "1: demo is \"yes\"; expected true or false",
        "3: shards is 0; expected a whole number from 1 to 64",
        "5: listeners.mqtt.addres is no known key; did you mean listeners.mqtt.address?",
        "7: limits.max_packet_size is \"big\"; expected a size from 1024 to 268435455 bytes, such as 65536 or \"64KiB\"",
        "8: limits.queue_policy is \"drop\"; expected \"drop_oldest\" or \"drop_newest\"",
    ] {
        assert!(
            told.iter().any(|line| line == expected),
            "{expected}: {told:#?}"
        );
    }
    assert!(
        told.iter()
            .any(|line| line.starts_with("10: colour.red is no known key; expected one of"))
    );
}

#[test]
fn unknown_tables_and_values_in_place_of_tables_are_told() {
    assert!(
        told("[limit]\n")[0].starts_with("1: limit is no known key"),
        "{:?}",
        told("[limit]\n")
    );
    assert!(told("limits = 5\n")[0].starts_with("1: limits is no known key"));
    assert!(Config::check(&file("[limits]\n")).is_ok());
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let told = told("demo = true\nshards = = 3\n");
    assert!(told[0].starts_with("2: not TOML: "), "{told:?}");
}

#[test]
fn a_missing_file_is_told() {
    let path = Path::new("/nowhere/turnpike.toml");
    let faults = RawConfig::default().file(path).unwrap_err();
    assert_eq!(
        faults.to_string(),
        "configuration file /nowhere/turnpike.toml does not exist"
    );
}

#[test]
fn an_unknown_variable_is_told_by_its_name() {
    let faults = Config::check(&variables(&[("TURNPIKE_LIMITS__MAX_PACKET", "1")])).unwrap_err();
    let text = faults.to_string();
    assert!(
        text.starts_with("TURNPIKE_LIMITS__MAX_PACKET: limits.max_packet is no known key"),
        "{text}"
    );
    let faults = Config::check(&variables(&[("TURNPIKE_SHARDS", "many")])).unwrap_err();
    let expected = "TURNPIKE_SHARDS: shards is \"many\"; expected a whole number from 1 to 64";
    assert_eq!(faults.to_string(), expected);
}

#[test]
fn rules_between_keys_are_told() {
    let anonymous = told("[listeners.mqtt]\nanonymous = true\n");
    assert!(
        anonymous[0].contains("expected listeners.mqtt.open = true"),
        "{anonymous:?}"
    );
    let api = told("[listeners.api]\naddress = '0.0.0.0:9000'\n");
    assert!(api[0].contains("expected a loopback address"), "{api:?}");
    assert!(
        Config::check(&file(
            "[listeners.api]\naddress = '0.0.0.0:9000'\ninsecure = true"
        ))
        .is_ok()
    );
    let sealed = "[listeners.api]\naddress = '0.0.0.0:9000'\ncertificate = 'a.pem'\n";
    let without_key = told(sealed);
    assert!(
        without_key[0].contains("expected one key for each certificate"),
        "{without_key:?}"
    );
    assert!(Config::check(&file(&format!("{sealed}key = 'a.key'\n"))).is_ok());
    let same = told("[listeners.api]\naddress = '127.0.0.1:1883'\n");
    assert!(same[0].contains("expected two addresses"), "{same:?}");
    let connect = told("[limits]\nmax_packet_size = 1024\n");
    assert!(
        connect[0].contains("limits.max_connect_packet_size is 65536"),
        "{connect:?}"
    );
}

#[test]
fn providers_of_logins_have_tables_of_their_own() {
    let google = "[control]\nreturn_urls = 'https://a.example/in'\n[control.oauth.google]\nclient_id = 'us'\n";
    let raw = file(google);
    let config = Config::check(&raw).unwrap();
    let provider = &config.control.oauth[0];
    assert_eq!((&*provider.name, &*provider.client_id), ("google", "us"));
    assert!(provider.token_url.contains("googleapis.com"));
    let shown = config.show(&raw);
    assert!(
        shown.contains("[control.oauth.google]\nclient_id = \"us\""),
        "{shown}"
    );
    let again = Config::check(&file(&shown)).unwrap();
    assert_eq!(again.control.oauth, config.control.oauth);

    let other = told(
        "[control]\nreturn_urls = 'https://a.example/in'\n[control.oauth.plant]\nclient_id = 'us'\n",
    );
    assert!(
        other[0].contains("control.oauth.plant.authorize_url is not set"),
        "{other:?}"
    );
    let nowhere = told("[control.oauth.google]\nclient_id = 'us'\n");
    assert!(
        nowhere[0].contains("control.return_urls is not set"),
        "{nowhere:?}"
    );
    let plain = told(&format!("{google}token_url = 'http://a.example/token'\n"));
    assert!(plain[0].contains("expected https://"), "{plain:?}");
    let unknown = told(&format!("{google}colour = 'red'\n"));
    assert!(unknown[0].contains("is no known key"), "{unknown:?}");
    let name = told("[control.oauth.Big]\nclient_id = 'us'\n");
    assert!(name[0].contains("is no known key"), "{name:?}");
}

#[test]
fn what_is_shown_can_be_read_back_and_names_its_origin() {
    let mut raw = file("shards = 3\n[limits]\nsession_expiry_max = 5\n");
    raw.flag("--no-demo", "demo", "false");
    let config = Config::check(&raw).unwrap();
    let shown = config.show(&raw);
    let has = |line: &str, origin: &str| {
        shown
            .lines()
            .any(|shown| shown.starts_with(line) && shown.contains(origin))
    };
    assert!(has("shards = 3", "turnpike.toml:1"), "{shown}");
    assert!(has("demo = false", "# --no-demo"), "{shown}");
    assert!(
        has("session_expiry_max = \"5s\"", "turnpike.toml:3"),
        "{shown}"
    );
    assert!(has("max_topic_levels = 128", "# default"), "{shown}");
    let again = Config::check(&file(&shown)).unwrap();
    assert_eq!(format!("{again:?}"), format!("{config:?}"));
}

#[test]
fn every_key_is_shown_by_default_or_optional() {
    let config = Config::default();
    let hidden: Vec<_> = KEYS
        .iter()
        .filter(|key| (key.show)(&config).is_none())
        .map(|key| key.path)
        .collect();
    assert_eq!(hidden, ["control.database_url", "control.mail"]);
}

#[test]
fn a_database_url_is_checked_and_its_password_shown_nowhere() {
    let url = "postgres://turnpike:hunter2@db/turnpike";
    let config = |url: &str| Config::check(&file(&format!("control.database_url = \"{url}\"")));
    let good = config(url).unwrap();
    let shown = format!("{good:?}");
    assert!(shown.contains("postgres://db:5432/turnpike"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let told = config(&url.replace("@db", "@db:port"))
        .unwrap_err()
        .to_string();
    assert!(
        told.ends_with(
            "control.database_url is \"postgres://…\"; expected \"sqlite:PATH\" or \"postgres://USER:PASSWORD@HOST/DATABASE\""
        ),
        "{told}"
    );
}
