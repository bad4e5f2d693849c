//! Every key: what it accepts, what it sets, how it is shown.

use std::path::PathBuf;
use std::time::Duration;

use broker::{QueuePolicy, SlowPolicy};
use control_api::{Database, MailSink};

use super::Role;
use super::key::{FromSize, Key};
use super::value::{is_origin, quoted, show_duration, show_size};

/// All keys, table by table, in the order in which they are shown.
/// Which half of Turnpike a process is.
const ROLES: [(&str, Role); 3] = [
    ("all", Role::All),
    ("control", Role::Control),
    ("broker", Role::Broker),
];

pub(crate) const KEYS: &[Key] = &[
    Key {
        path: "data_dir",
        expected: "the path of a folder",
        set: |config, value| {
            config.data_dir = PathBuf::from(value.text()?);
            Some(())
        },
        show: |config| Some(quoted(&config.data_dir.to_string_lossy())),
    },
    Key {
        path: "role",
        expected: "\"all\", \"control\" or \"broker\"",
        set: |config, value| {
            config.role = value.word(&ROLES)?;
            Some(())
        },
        show: |config| {
            let word = ROLES.iter().find(|(_, role)| *role == config.role)?.0;
            Some(quoted(word))
        },
    },
    boolean!("demo", demo),
    count!("shards", shards, 1, 64),
    boolean!("own_descriptors", own_descriptors),
    count!("shard_rest_us", shard_rest_us, 0, 1000),
    duration!("shutdown_grace", shutdown_grace, 3600),
    duration!("sys_interval", sys_interval, 3600),
    address!("feed.address", feed.address),
    Key {
        path: "feed.connect",
        expected: "host and port, such as \"control.example.com:9001\"",
        set: |config, value| {
            let text = value.text_or_nothing()?;
            let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !text.is_empty() && !matches!(port, Some(Ok(_))) {
                return None;
            }
            config.feed.connect = text.to_owned();
            Some(())
        },
        show: |config| Some(quoted(&config.feed.connect)),
    },
    file!("feed.certificate", feed.certificate),
    file!("feed.key", feed.key),
    file!("feed.ca", feed.ca),
    Key {
        path: "log.filter",
        expected: "a level (error, warn, info, debug) or directives such as \"info,broker=debug\"",
        set: |config, value| {
            let text = value.text()?;
            crate::log::parse_filter(text)?;
            config.log_filter = text.to_owned();
            Some(())
        },
        show: |config| Some(quoted(&config.log_filter)),
    },
    Key {
        path: "log.format",
        expected: "\"text\" or \"json\"",
        set: |config, value| {
            config.log_json = value.word(&[("text", false), ("json", true)])?;
            Some(())
        },
        show: |config| Some(quoted(if config.log_json { "json" } else { "text" })),
    },
    address!("listeners.mqtt.address", mqtt.address),
    boolean!("listeners.mqtt.open", mqtt.open),
    boolean!("listeners.mqtt.anonymous", mqtt.anonymous),
    either!(
        "listeners.mqtt.on_revoke",
        mqtt.close_on_revoked,
        "silence",
        "close"
    ),
    networks!("listeners.mqtt.proxies", mqtt.proxies),
    address!("listeners.mqtts.address", mqtts.address),
    boolean!("listeners.mqtts.open", mqtts.open),
    boolean!("listeners.mqtts.anonymous", mqtts.anonymous),
    either!(
        "listeners.mqtts.on_revoke",
        mqtts.close_on_revoked,
        "silence",
        "close"
    ),
    networks!("listeners.mqtts.proxies", mqtts.proxies),
    files!("listeners.mqtts.certificate", mqtts.tls.certificate),
    files!("listeners.mqtts.key", mqtts.tls.key),
    file!("listeners.mqtts.client_ca", mqtts.tls.client_ca),
    either!(
        "listeners.mqtts.client_certificate",
        mqtts.tls.client_optional,
        "required",
        "optional"
    ),
    boolean!("listeners.mqtts.identity", mqtts.tls.identity),
    file!("listeners.mqtts.revoked", mqtts.tls.revoked),
    either!(
        "listeners.mqtts.min_version",
        mqtts.tls.only_1_3,
        "1.2",
        "1.3"
    ),
    address!("listeners.quic.address", quic.address),
    boolean!("listeners.quic.open", quic.open),
    boolean!("listeners.quic.anonymous", quic.anonymous),
    either!(
        "listeners.quic.on_revoke",
        quic.close_on_revoked,
        "silence",
        "close"
    ),
    files!("listeners.quic.certificate", quic.tls.certificate),
    files!("listeners.quic.key", quic.tls.key),
    file!("listeners.quic.client_ca", quic.tls.client_ca),
    either!(
        "listeners.quic.client_certificate",
        quic.tls.client_optional,
        "required",
        "optional"
    ),
    boolean!("listeners.quic.identity", quic.tls.identity),
    file!("listeners.quic.revoked", quic.tls.revoked),
    duration!("listeners.quic.idle_timeout", quic_idle, 86_400),
    boolean!("listeners.ws.enabled", ws.enabled),
    address!("listeners.ws.address", ws.address),
    boolean!("listeners.ws.open", ws.open),
    boolean!("listeners.ws.anonymous", ws.anonymous),
    either!(
        "listeners.ws.on_revoke",
        ws.close_on_revoked,
        "silence",
        "close"
    ),
    networks!("listeners.ws.proxies", ws.proxies),
    origins!("listeners.ws.origins", ws.origins),
    slow_consumer!("listeners.ws.slow_consumer", ws.slow_consumer),
    address!("listeners.wss.address", wss.address),
    boolean!("listeners.wss.open", wss.open),
    boolean!("listeners.wss.anonymous", wss.anonymous),
    either!(
        "listeners.wss.on_revoke",
        wss.close_on_revoked,
        "silence",
        "close"
    ),
    networks!("listeners.wss.proxies", wss.proxies),
    origins!("listeners.wss.origins", wss.origins),
    slow_consumer!("listeners.wss.slow_consumer", wss.slow_consumer),
    files!("listeners.wss.certificate", wss.tls.certificate),
    files!("listeners.wss.key", wss.tls.key),
    file!("listeners.wss.client_ca", wss.tls.client_ca),
    either!(
        "listeners.wss.client_certificate",
        wss.tls.client_optional,
        "required",
        "optional"
    ),
    boolean!("listeners.wss.identity", wss.tls.identity),
    file!("listeners.wss.revoked", wss.tls.revoked),
    either!("listeners.wss.min_version", wss.tls.only_1_3, "1.2", "1.3"),
    boolean!("listeners.http.enabled", http.enabled),
    address!("listeners.http.address", http.address),
    origins!("listeners.http.origins", http.origins),
    list!(
        "listeners.http.cors_origins",
        http_cors_origins,
        "origins with commas between them, such as \"https://console.example.com\", or \"*\"",
        |origin| (origin == "*" || is_origin(origin)).then(|| origin.to_owned()),
        |origin| origin.clone()
    ),
    slow_consumer!("listeners.http.slow_consumer", http.slow_consumer),
    files!("listeners.http.certificate", http.tls.certificate),
    files!("listeners.http.key", http.tls.key),
    file!("listeners.http.client_ca", http.tls.client_ca),
    either!(
        "listeners.http.client_certificate",
        http.tls.client_optional,
        "required",
        "optional"
    ),
    boolean!("listeners.http.identity", http.tls.identity),
    file!("listeners.http.revoked", http.tls.revoked),
    either!(
        "listeners.http.min_version",
        http.tls.only_1_3,
        "1.2",
        "1.3"
    ),
    boolean!("listeners.coap.enabled", coap.enabled),
    address!("listeners.coap.address", coap.address),
    boolean!("listeners.coap.insecure", coap.insecure),
    boolean!("listeners.coap.echo", coap.echo),
    boolean!("listeners.coaps.enabled", coaps.enabled),
    address!("listeners.coaps.address", coaps.address),
    files!("listeners.coaps.certificate", coaps.tls.certificate),
    files!("listeners.coaps.key", coaps.tls.key),
    file!("listeners.coaps.client_ca", coaps.tls.client_ca),
    either!(
        "listeners.coaps.client_certificate",
        coaps.tls.client_optional,
        "required",
        "optional"
    ),
    boolean!("listeners.coaps.identity", coaps.tls.identity),
    file!("listeners.coaps.revoked", coaps.tls.revoked),
    address!("listeners.api.address", api.address),
    boolean!("listeners.api.insecure", api.insecure),
    Key {
        path: "listeners.api.metrics_token_file",
        expected: "the path of a file",
        set: |config, value| {
            let text = value.text_or_nothing()?;
            config.api.metrics_token_file = (!text.is_empty()).then(|| PathBuf::from(text));
            Some(())
        },
        show: |config| {
            let path = config.api.metrics_token_file.as_deref();
            Some(quoted(
                &path.map(|path| path.to_string_lossy()).unwrap_or_default(),
            ))
        },
    },
    files!("listeners.api.certificate", api.tls.certificate),
    files!("listeners.api.key", api.tls.key),
    either!("listeners.api.min_version", api.tls.only_1_3, "1.2", "1.3"),
    Key {
        path: "control.admin_username",
        expected: "a user name of up to 32 letters, digits, '-' or '_'",
        set: |config, value| {
            let text = value.text()?;
            control_api::check_username(text).ok()?;
            config.admin_username = text.to_owned();
            Some(())
        },
        show: |config| Some(quoted(&config.admin_username)),
    },
    Key {
        path: "control.database_url",
        expected: Database::EXPECTED,
        set: |config, value| {
            config.database = Some(Database::parse(value.text()?)?);
            Some(())
        },
        show: |config| config.database.as_ref().map(|found| quoted(found.shown())),
    },
    boolean!("control.self_registration", control.self_registration),
    boolean!(
        "control.require_verified_email",
        control.require_verified_email
    ),
    Key {
        path: "control.public_url",
        expected: "an http:// or https:// URL without a slash at the end",
        set: |config, value| {
            let text = value.text()?;
            let is_url = text.starts_with("http://") || text.starts_with("https://");
            config.control.public_url =
                (is_url && !text.ends_with('/')).then(|| text.to_owned())?;
            Some(())
        },
        show: |config| Some(quoted(&config.control.public_url)),
    },
    list!(
        "control.return_urls",
        control.return_urls,
        "URLs with commas between them, such as \"https://console.example.com/login\"",
        |url| {
            let scheme = url.starts_with("http://") || url.starts_with("https://");
            let good = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('#');
            (scheme && good).then(|| url.to_owned())
        },
        |url| url.clone()
    ),
    Key {
        path: "control.mail",
        expected: "\"file:FOLDER\" or \"smtp:HOST:PORT\"",
        set: |config, value| {
            let text = value.text()?;
            let folder = text.strip_prefix("file:").filter(|path| !path.is_empty());
            let relay = text.strip_prefix("smtp:");
            let relay = relay.filter(|relay| relay.rsplit_once(':').is_some_and(is_host_and_port));
            config.control.mail = Some(match (folder, relay) {
                (Some(folder), _) => MailSink::Folder(PathBuf::from(folder)),
                (None, Some(relay)) => MailSink::Relay(relay.to_owned()),
                (None, None) => return None,
            });
            Some(())
        },
        show: |config| {
            Some(quoted(&match config.control.mail.as_ref()? {
                MailSink::Folder(folder) => format!("file:{}", folder.display()),
                MailSink::Relay(relay) => format!("smtp:{relay}"),
            }))
        },
    },
    Key {
        path: "control.mail_from",
        expected: "an e-mail address",
        set: |config, value| {
            let text = value.text()?;
            let good = text.contains('@') && !text.chars().any(|c| c.is_control() || c == ' ');
            config.control.mail_from = good.then(|| text.to_owned())?;
            Some(())
        },
        show: |config| Some(quoted(&config.control.mail_from)),
    },
    duration!(
        "control.deleted_domains_kept",
        control.deleted_domains_kept,
        31622400
    ),
    boolean!("control.journal_views", control.journal_views),
    count!(
        "control.rates.mails_per_user",
        control.rates.mails_per_user,
        1,
        1000000
    ),
    count!(
        "control.rates.invitations_per_address",
        control.rates.invitations_per_address,
        1,
        1000000
    ),
    count!(
        "control.rates.links_per_address",
        control.rates.links_per_address,
        1,
        1000000
    ),
    count!(
        "control.rates.links_per_source",
        control.rates.links_per_source,
        1,
        1000000
    ),
    count!(
        "control.rates.registrations_per_source",
        control.rates.registrations_per_source,
        1,
        1000000
    ),
    count!(
        "control.rates.registrations",
        control.rates.registrations,
        1,
        1000000
    ),
    boolean!("compat.close_on_denied", limits.close_on_denied),
    boolean!("compat.coap_created", coap.created),
    boolean!("compat.http_401", http_compat.denied_is_401),
    boolean!(
        "compat.http_content_types",
        http_compat.known_content_types_only
    ),
    boolean!(
        "compat.reveal_client_secrets",
        control.reveal_client_secrets
    ),
    boolean!(
        "compat.unchecked_role_grants",
        control.unchecked_role_grants
    ),
    Key {
        path: "compat.websocket_403",
        expected: "true or false",
        set: |config, value| {
            let value = value.boolean()?;
            for listener in [&mut config.ws, &mut config.wss, &mut config.http] {
                listener.missing_is_403 = value;
            }
            Some(())
        },
        show: |config| Some(config.ws.missing_is_403.to_string()),
    },
    size!(
        "limits.max_packet_size",
        limits.max_packet_size,
        1024,
        268435455
    ),
    size!(
        "limits.max_connect_packet_size",
        limits.max_connect_packet_size,
        256,
        268435455
    ),
    milliseconds!(
        "limits.connect_timeout",
        limits.connect_timeout_ms,
        100,
        600000
    ),
    milliseconds!("limits.auth_timeout", limits.auth_timeout_ms, 100, 600000),
    milliseconds!("limits.lease_grace", limits.lease_grace_ms, 0, 600000),
    milliseconds!(
        "limits.takeover_interval",
        limits.takeover_interval_ms,
        0,
        60000
    ),
    count!(
        "limits.max_connections",
        limits.max_connections,
        1,
        100000000
    ),
    count!(
        "limits.max_connections_per_ip",
        limits.max_connections_per_ip,
        0,
        100000000
    ),
    count!("limits.coap_endpoints", limits.coap_endpoints, 1, 10000000),
    milliseconds!(
        "limits.coap_idle_timeout",
        limits.coap_idle_timeout_ms,
        10000,
        86400000
    ),
    size!(
        "limits.coap_block_bytes",
        limits.coap_block_bytes,
        65536,
        68719476736
    ),
    count!(
        "limits.connect_rate_per_ip",
        limits.connect_rate_per_ip,
        0,
        10000000
    ),
    size!(
        "limits.max_client_id_bytes",
        limits.max_client_id_bytes,
        23,
        65535
    ),
    size!(
        "limits.max_username_bytes",
        limits.max_username_bytes,
        36,
        65535
    ),
    size!(
        "limits.max_password_bytes",
        limits.max_password_bytes,
        43,
        65535
    ),
    count!(
        "limits.max_sessions_per_principal",
        limits.max_sessions_per_principal,
        1,
        100000000
    ),
    seconds!(
        "limits.session_expiry_max",
        limits.session_expiry_max,
        0,
        4294967295
    ),
    seconds!(
        "limits.session_expiry_v311",
        limits.session_expiry_v311,
        0,
        4294967295
    ),
    seconds!("limits.keepalive_max", limits.keepalive_max, 1, 65535),
    count!("limits.receive_maximum", limits.receive_maximum, 1, 65535),
    count!(
        "limits.max_unreleased_v311",
        limits.max_unreleased_v311,
        1,
        65535
    ),
    count!("limits.max_inflight_out", limits.max_inflight_out, 1, 65535),
    size!(
        "limits.outbound_queue_bytes",
        limits.outbound_queue_bytes,
        4096,
        1099511627776
    ),
    milliseconds!(
        "limits.write_stall_timeout",
        limits.write_stall_timeout_ms,
        100,
        86400000
    ),
    count!(
        "limits.session_queue_messages",
        limits.session_queue_messages,
        0,
        1000000000
    ),
    size!(
        "limits.session_queue_bytes",
        limits.session_queue_bytes,
        0,
        1099511627776
    ),
    Key {
        path: "limits.queue_policy",
        expected: "\"drop_oldest\" or \"drop_newest\"",
        set: |config, value| {
            config.limits.queue_policy = value.word(&[
                ("drop_oldest", QueuePolicy::DropOldest),
                ("drop_newest", QueuePolicy::DropNewest),
            ])?;
            Some(())
        },
        show: |config| {
            Some(quoted(match config.limits.queue_policy {
                QueuePolicy::DropOldest => "drop_oldest",
                QueuePolicy::DropNewest => "drop_newest",
            }))
        },
    },
    size!("limits.max_topic_bytes", limits.topic.bytes, 1, 65535),
    count!("limits.max_topic_levels", limits.topic.levels, 1, 65535),
    count!(
        "limits.max_subscriptions_per_client",
        limits.max_subscriptions_per_client,
        1,
        100000000
    ),
    count!(
        "limits.max_filters_per_packet",
        limits.max_filters_per_packet,
        1,
        65535
    ),
    count!("limits.topic_alias_max", limits.topic_alias_max, 0, 65535),
    count!(
        "limits.max_user_properties",
        limits.max_user_properties,
        0,
        65535
    ),
    size!(
        "limits.max_property_bytes",
        limits.max_property_bytes,
        0,
        268435455
    ),
    count!("limits.max_retained", limits.max_retained, 0, 10000000000),
    size!(
        "limits.max_retained_bytes",
        limits.max_retained_bytes,
        0,
        1099511627776
    ),
    size!(
        "limits.max_retained_payload",
        limits.max_retained_payload,
        0,
        268435455
    ),
    seconds!(
        "limits.message_expiry_max",
        limits.message_expiry_max,
        0,
        4294967295
    ),
    size!("limits.max_will_bytes", limits.max_will_bytes, 0, 268435455),
    seconds!(
        "limits.will_delay_max",
        limits.will_delay_max,
        0,
        4294967295
    ),
];

/// Whether what stands around the last colon names a host and a port.
fn is_host_and_port((host, port): (&str, &str)) -> bool {
    !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
}
