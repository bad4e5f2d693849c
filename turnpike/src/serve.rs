//! `turnpike serve`: broker and control in one process, joined by a memory pipe, or one of the two.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use authcache::EntityId;
use broker::{Broker, Certificates};
use control_api::{Build, Control, FirstRun, HttpListener, Metrics, Node, Ready, Secret, Time};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::banner::Banner;
use crate::config::{ApiListener, Config, Role};
use crate::{cli, feed, log};

/// Exit code after a second signal: the first one's work was cut short.
const CUT_SHORT: i32 = 130;

/// Serves until a signal comes.
///
/// # Errors
/// Configuration, data directory or a port stands in the way, or control failed while serving.
pub(crate) async fn run(arguments: cli::Serve) -> anyhow::Result<()> {
    let (config, _) = arguments.config()?;
    log::start(&config);
    let mut signals = Signals::new()?;
    // Ports first: what is made in the data directory is shown once, and must not be made for a start
    // that fails.
    let api = Api::bind(&config.api).await?;
    if config.role != Role::Control {
        for (name, _, listener) in config.mqtt_listeners() {
            probe(name, listener.address).await?;
        }
    }
    if config.http.enabled {
        probe("http", config.http.address).await?;
    }
    if config.role == Role::Broker {
        return broker_alone(&arguments, &config, api, &mut signals).await;
    }
    let brokers = if config.serves_brokers() {
        let address = config.feed.address;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| cannot_listen("feed.address", address, &error))?;
        Some((listener, config.feed.acceptor()?))
    } else {
        None
    };
    let (control, first_run) = Control::open(control_config(&config)).await?;
    let brokers_at = brokers
        .as_ref()
        .map(|(listener, _)| listener.local_addr())
        .transpose()?;
    if let Some((listener, acceptor)) = brokers {
        tokio::spawn(feed::serve(control.clone(), listener, acceptor));
    }
    let served = Served::start(&config, control, api).await;
    let served = match served {
        Ok(served) => served,
        Err(error) => {
            if let Some(first_run) = &first_run {
                rescue(first_run);
            }
            return Err(error);
        }
    };
    let mut listeners = served
        .broker
        .as_ref()
        .map_or_else(Vec::new, |broker| broker.listeners().to_vec());
    listeners.extend(brokers_at.map(|address| ("feed".to_owned(), address)));
    let first_run = first_run.as_ref();
    say_ready(&arguments, &config, &listeners, served.api, first_run)?;
    served.until_stopped(&config, &mut signals).await
}

/// Serves clients with rights from a control side elsewhere.
async fn broker_alone(
    arguments: &cli::Serve,
    config: &Config,
    api: Api,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let elsewhere = config.feed.elsewhere()?;
    let node = Node::open(&config.data_dir)?;
    // The name of the domain that control makes for it.
    let open = config.is_open().then(|| "open".to_owned());
    let config_of_broker = broker_config(config, node.node, node.incarnation, open);
    let broker = broker::start(config_of_broker, elsewhere).await?;
    let sources: (Metrics, Ready) = (
        Arc::new(broker.metrics_source()),
        Arc::new(broker.ready_source()),
    );
    let (stop, stopping) = watch::channel(false);
    let serving = api
        .listener
        .serve_broker(node.node, build(), sources, stopping);
    let http = tokio::spawn(serving);
    say_ready(arguments, config, broker.listeners(), api.address, None)?;
    let reload = || {
        broker.reload_certificates();
        api.certificates.iter().for_each(Certificates::reload);
    };
    signals.next(reload).await;
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        () = broker.shutdown(config.shutdown_grace) => {}
        () = signals.next(|| ()) => std::process::exit(CUT_SHORT),
    }
    stop.send_replace(true);
    http.await??;
    Ok(())
}

/// Where the API, health and metrics are served.
struct Api {
    listener: HttpListener,
    address: SocketAddr,
    /// None in the clear.
    certificates: Option<Certificates>,
}

impl Api {
    async fn bind(wanted: &ApiListener) -> anyhow::Result<Api> {
        let open = |options| Certificates::open("api", &options);
        let certificates = wanted.tls.for_broker().map(open).transpose();
        let certificates = certificates.context("listeners.api has no TLS")?;
        let socket = TcpListener::bind(wanted.address)
            .await
            .map_err(|error| cannot_listen("api", wanted.address, &error))?;
        let address = socket.local_addr()?;
        let tls = certificates
            .as_ref()
            .map(|certificates| Arc::new(certificates.source()) as control_api::Tls);
        let token = wanted.metrics_token_file.as_deref();
        let token = token.map(metrics_token).transpose()?;
        Ok(Api {
            listener: HttpListener::new(socket, tls).with_metrics_token(token),
            address,
            certificates,
        })
    }
}

/// The token that programs show which read metrics.
fn metrics_token(path: &Path) -> anyhow::Result<Secret> {
    let expected = "expected one line of 16 or more printable characters";
    let wrong = || {
        format!(
            "listeners.api.metrics_token_file {}: {expected}",
            path.display()
        )
    };
    let text = std::fs::read_to_string(path).with_context(wrong)?;
    let token = text.trim_end_matches(['\r', '\n']);
    let good = token.len() >= 16 && token.bytes().all(|byte| byte.is_ascii_graphic());
    anyhow::ensure!(good, wrong());
    Ok(Secret::new(token.to_owned()))
}

/// Everything that runs.
struct Served {
    control: Control,
    /// None in a process that is the control side alone.
    broker: Option<Broker>,
    api: SocketAddr,
    /// Of the API's listener; none in the clear.
    certificates: Option<Certificates>,
    http: JoinHandle<std::io::Result<()>>,
    socket: JoinHandle<()>,
}

impl Served {
    async fn start(config: &Config, control: Control, api: Api) -> anyhow::Result<Served> {
        let socket = control
            .bind_socket(control.socket_path())
            .with_context(|| {
                format!(
                    "the operator socket {} cannot be made",
                    control.socket_path().display()
                )
            })?;
        let mut broker = None;
        if config.role == Role::All {
            let open = control.open_domain().map(|domain| domain.to_string());
            let ours_of = broker_config(config, control.node(), control.incarnation(), open);
            broker = Some(broker::start(ours_of, feed::here(&control)).await?);
        }
        let (metrics, ready): (Metrics, Ready) = match &broker {
            Some(broker) => (
                Arc::new(broker.metrics_source()),
                Arc::new(broker.ready_source()),
            ),
            None => (Arc::new(String::new), Arc::new(|| true)),
        };
        let serving = control.clone();
        let listener = api.listener;
        let http = tokio::spawn(async move { serving.serve_http(listener, metrics, ready).await });
        let socket = tokio::spawn(socket.serve());
        Ok(Served {
            control,
            broker,
            api: api.address,
            certificates: api.certificates,
            http,
            socket,
        })
    }

    async fn until_stopped(mut self, config: &Config, signals: &mut Signals) -> anyhow::Result<()> {
        let reload = || {
            self.broker.iter().for_each(Broker::reload_certificates);
            self.certificates.iter().for_each(Certificates::reload);
        };
        // Each branch ends the wait; the handles are not polled again after they ended.
        let ended = tokio::select! {
            () = signals.next(reload) => Ok(()),
            ended = &mut self.http => Err(("the HTTP listener", ended)),
            ended = &mut self.socket => Err(("the operator socket", ended.map(Ok))),
        };
        match &ended {
            Ok(()) => tracing::info!("stopping; a second signal stops at once"),
            Err((what, reason)) => tracing::error!(?reason, "{what} ended: stopping"),
        }
        let Served {
            control,
            broker,
            http,
            socket,
            ..
        } = self;
        let ended_already = [http.is_finished(), socket.is_finished()];
        let stop = async {
            control.stop();
            // Operations in progress wait for the broker, so all stop side by side.
            let shutdown = async {
                if let Some(broker) = broker {
                    broker.shutdown(config.shutdown_grace).await;
                }
            };
            let http = async {
                if !ended_already[0] {
                    let _ = http.await;
                }
            };
            let socket = async {
                if !ended_already[1] {
                    let _ = socket.await;
                }
            };
            tokio::join!(shutdown, http, socket);
            control.close().await;
        };
        // The second signal drops the orderly stop where it is.
        tokio::select! {
            () = stop => {}
            () = signals.next(|| ()) => std::process::exit(CUT_SHORT),
        }
        match ended {
            Ok(()) => Ok(()),
            Err((what, Ok(Ok(())))) => bail!("{what} ended"),
            Err((what, Ok(Err(error)))) => Err(error).context(format!("{what} failed")),
            Err((what, Err(error))) => Err(error).context(format!("{what} failed")),
        }
    }
}

fn control_config(config: &Config) -> control_api::Config {
    control_api::Config {
        data_dir: config.data_dir.clone(),
        database: config.database.clone(),
        admin_username: config.admin_username.clone(),
        demo: config.demo,
        open: config.is_open(),
        remote_brokers: config.serves_brokers(),
        api: config.control.clone(),
        build: build(),
    }
}

/// What the build script found.
fn build() -> Build {
    let commit = Some(env!("BUILD_COMMIT")).filter(|commit| !commit.is_empty());
    let seconds = env!("BUILD_SECONDS").parse::<i64>().ok();
    Build {
        commit,
        time: seconds.map(|seconds| Time::from_micros(seconds.saturating_mul(1_000_000))),
    }
}

fn broker_config(
    config: &Config,
    node: EntityId,
    incarnation: u64,
    open: Option<String>,
) -> broker::Config {
    let listeners = config
        .mqtt_listeners()
        .map(|(name, websocket, listener)| listener.for_broker(name, websocket, open.as_deref()));
    let created = config.coap.created;
    let coap = [
        ("coap", &config.coap, false),
        ("coaps", &config.coaps, true),
    ]
    .into_iter()
    .filter(|(_, listener, _)| listener.enabled)
    .map(|(name, listener, dtls)| listener.for_broker(name, dtls, created));
    broker::Config {
        shards: config.shards,
        own_descriptors: config.own_descriptors,
        rest_us: config.shard_rest_us,
        listeners: listeners.collect(),
        http: config.http.enabled.then(|| {
            config
                .http
                .over_http(&config.http_cors_origins, config.http_compat)
        }),
        coap: coap.collect(),
        quic: config.quic.over_quic(config.quic_idle, open.as_deref()),
        limits: config.limits.clone(),
        node,
        incarnation,
        sys_interval_s: u32::try_from(config.sys_interval.as_secs()).unwrap_or(u32::MAX),
    }
}

/// Finds out whether the port is free; the broker takes it when it starts.
async fn probe(listener: &str, address: SocketAddr) -> anyhow::Result<()> {
    let probe = TcpListener::bind(address).await;
    probe
        .map(drop)
        .map_err(|error| cannot_listen(listener, address, &error))
}

fn cannot_listen(listener: &str, address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    let reason = match error.kind() {
        ErrorKind::AddrInUse => "another process uses that port".to_owned(),
        ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        ErrorKind::PermissionDenied => "ports below 1024 need a privilege".to_owned(),
        _ => error.to_string(),
    };
    let flag = match listener {
        "mqtt" | "api" => format!("with --{listener}-address or "),
        _ => String::new(),
    };
    let key = match listener {
        "feed.address" => listener.to_owned(),
        _ => format!("listeners.{listener}.address"),
    };
    anyhow::anyhow!(
        "{key} {address} cannot be used, {reason}; choose another one {flag}\
         in the configuration"
    )
}

/// The start failed after logins were made: they are shown nowhere else.
fn rescue(first_run: &FirstRun) {
    eprintln!(
        "The data directory was made; log in as {} with the password {}",
        first_run.admin.username,
        first_run.admin.password.reveal()
    );
}

fn say_ready(
    arguments: &cli::Serve,
    config: &Config,
    listeners: &[(String, SocketAddr)],
    api: SocketAddr,
    first_run: Option<&FirstRun>,
) -> anyhow::Result<()> {
    let banner = Banner {
        listeners,
        api,
        data_dir: &config.data_dir,
        https: config.http.tls.is_there(),
        api_https: config.api.tls.is_there(),
        open: config.mqtt.open,
        anonymous: config.mqtt.anonymous,
        first_run,
    };
    let text = if arguments.json {
        banner.json()
    } else {
        banner.text()
    };
    let mut out = std::io::stdout().lock();
    // Whoever started us may have closed its end: that is no reason not to serve.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

/// SIGINT and SIGTERM, whichever comes; SIGHUP on the way.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next signal to stop; a SIGHUP before it calls `reload`.
    async fn next(&mut self, reload: impl Fn()) {
        loop {
            // Cancellation safe: a signal that is not received stays.
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}
