//! What is printed when everything is ready.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use control_api::FirstRun;
use serde_json::json;

/// What there is to tell.
pub(crate) struct Banner<'a> {
    /// Name and address of each MQTT listener, plain MQTT first.
    pub(crate) listeners: &'a [(String, SocketAddr)],
    pub(crate) api: SocketAddr,
    pub(crate) data_dir: &'a Path,
    /// Whether messages over HTTP are in TLS.
    pub(crate) https: bool,
    /// Whether the control API is in TLS.
    pub(crate) api_https: bool,
    pub(crate) open: bool,
    pub(crate) anonymous: bool,
    pub(crate) first_run: Option<&'a FirstRun>,
}

impl Banner<'_> {
    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        let mut listeners: serde_json::Map<String, serde_json::Value> = self
            .listeners
            .iter()
            .map(|(name, at)| (name.clone(), at.to_string().into()))
            .collect();
        listeners.insert("api".to_owned(), self.api.to_string().into());
        let line = json!({
            "listeners": listeners,
            "admin": self.first_run.map(|first_run| &first_run.admin),
            "demo": self.first_run.and_then(|first_run| first_run.demo.as_ref()),
        });
        format!("{line}\n")
    }

    /// Text for people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("Turnpike {} is ready\n\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<14} {value}");
        };
        for (name, at) in self.listeners {
            match name.as_str() {
                "mqtt" => line("MQTT", &at.to_string()),
                "mqtts" => line("MQTT over TLS", &at.to_string()),
                "quic" => line("MQTT over QUIC", &at.to_string()),
                "ws" => line("WebSocket", &format!("ws://{}/mqtt", reachable(*at))),
                "wss" => line("", &format!("wss://{}/mqtt", reachable(*at))),
                "http" => {
                    let scheme = if self.https { "https" } else { "http" };
                    line(
                        "HTTP messages",
                        &format!("{scheme}://{}/m/...", reachable(*at)),
                    );
                }
                "coap" => line("CoAP", &format!("coap://{}/m/...", reachable(*at))),
                "coaps" => line("", &format!("coaps://{}/m/...", reachable(*at))),
                other => line(other, &at.to_string()),
            }
        }
        let scheme = if self.api_https { "https" } else { "http" };
        line(
            "Control API",
            &format!("{scheme}://{} (/health, /metrics)", reachable(self.api)),
        );
        let folder = self.data_dir.display();
        match self.first_run {
            Some(first_run) => {
                line("Data", &format!("{folder} (new)"));
                line("Administrator", &first_run.admin.username);
                line(
                    "Password",
                    &format!("{} (shown this once)", first_run.admin.password.reveal()),
                );
            }
            None => {
                line(
                    "Data",
                    &format!("{folder} (reused; its logins were shown at the first start)"),
                );
            }
        }
        if self.open {
            let who = if self.anonymous {
                "everybody"
            } else {
                "known clients and users"
            };
            line(
                "Open topics",
                &format!("everything outside m/..., for {who}"),
            );
        }
        self.try_it(&mut text);
        text
    }

    /// Lines that work as they stand.
    fn try_it(&self, text: &mut String) {
        let Some((_, at)) = self.listeners.first() else {
            return;
        };
        let at = reachable(*at);
        let (host, port) = (at.ip(), at.port());
        let demo = self.first_run.and_then(|first_run| first_run.demo.as_ref());
        if let Some(demo) = demo
            && let [subscriber, publisher, ..] = &demo.clients[..]
        {
            let topic = format!("m/{}/c/{}", demo.domain, demo.channel);
            let login = |client: &control_api::DemoClient| {
                format!(
                    "-h {host} -p {port} -u {} -P {}",
                    client.id,
                    client.secret.reveal()
                )
            };
            let _ = write!(
                text,
                "\nTry it, in two terminals:\n\n  mosquitto_sub {} -t {topic}\n  mosquitto_pub {} -t {topic} -m hello\n",
                login(subscriber),
                login(publisher)
            );
        } else if self.anonymous {
            let _ = write!(
                text,
                "\nTry it, in two terminals:\n\n  mosquitto_sub -h {host} -p {port} -t hello\n  mosquitto_pub -h {host} -p {port} -t hello -m world\n"
            );
        }
    }
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
