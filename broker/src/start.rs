//! Starting and stopping: threads, listeners, the link to control.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use authcache::{AuthCache, Capacity};
use router::{Interest, ShardId, SharedGroups};
use session::{IdSource, ListenerRules, Now};
use tokio::sync::{Notify, watch};

use crate::config::Config;
use crate::control;
use crate::feed::Feed;
use crate::ferry::Ferry;
use crate::http::repeats::Repeats;
use crate::http::{Cors, Guests, Messaging};
use crate::link::{Link, LinkListener};
use crate::metrics::{self, ControlCounters, Counters};
use crate::quic::{self, Quic};
use crate::reactor::admission::Admission;
use crate::reactor::coap::CoapDoor;
use crate::reactor::door::Door;
use crate::reactor::dtls_files::DtlsFiles;
use crate::reactor::shakers::Shakers;
use crate::reactor::tcp::Wire;
use crate::reactor::tls::{TlsDoor, TlsDoors};
use crate::reactor::{Waker, listener};
use crate::shard::env::Env;
use crate::shard::inbox::{Inbox, Post};
use crate::shard::shared::{ControlMailbox, Shared};
use crate::thread::ShardThread;
use crate::tls::TlsError;

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The number of shards is outside 1 to 64.
    #[error("{0} shards were asked for; expected 1 to 64")]
    Shards(usize),
    /// A listener's address cannot be bound.
    #[error("listener {name}: cannot listen on {address}: {source}")]
    Listen {
        /// The listener.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A listener's TLS cannot be set up.
    #[error("listener {name}: {source}")]
    Tls {
        /// The listener.
        name: String,
        /// What is wrong with its files.
        source: TlsError,
    },
    /// The system gives no descriptor or thread.
    #[error("the broker cannot start: {0}")]
    System(#[from] io::Error),
    /// Control did not tell its state.
    #[error("control did not tell its state within {0:?}")]
    Control(Duration),
}

/// A running broker.
pub struct Broker {
    shared: Arc<Shared<Wire>>,
    control_counters: Arc<ControlCounters>,
    listeners: Vec<(String, SocketAddr)>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    serving: watch::Receiver<bool>,
    link: tokio::task::JoinHandle<()>,
    tls_doors: TlsDoors,
    /// Tells the listeners of the second runtime to stop.
    stop: watch::Sender<bool>,
    http: Option<tokio::task::JoinHandle<()>>,
    repeats: Arc<Repeats>,
    quic: Option<tokio::task::JoinHandle<()>>,
    watching: tokio::task::JoinHandle<()>,
}

/// The HTTP listener's name.
const HTTP: &str = "http";

/// The name of QUIC's.
const QUIC: &str = "quic";

/// Between two looks at the shards that drain.
const DRAIN_LOOK: Duration = Duration::from_millis(1);

/// How long control may take to tell its state at the start.
const CONTROL_WAIT: Duration = Duration::from_secs(30);

/// Starts shards and listeners; returns when control's state is in force and clients are served.
///
/// `feed` is the way to the control side; the broker has no other source of rights. With a control
/// side elsewhere this returns at once, and clients are served when it has told its state. Has to be
/// called in a tokio runtime, which carries the link to control.
///
/// # Errors
///
/// [`StartError`], when an address is taken, the system refuses a resource, or control is silent.
pub async fn start(config: Config, feed: Feed) -> Result<Broker, StartError> {
    if !(1..=64).contains(&config.shards) {
        return Err(StartError::Shards(config.shards));
    }
    let began = Instant::now();
    let limits = &config.limits;
    let per_address = match config.own_descriptors {
        // It knows connections by their descriptors, which then have no number of their own.
        true => (0, 0),
        false => (limits.max_connections_per_ip, limits.connect_rate_per_ip),
    };
    let admission = Arc::new(Admission::new(per_address.0, per_address.1));
    let mut tls_doors = TlsDoors::default();
    let mut listeners = Vec::new();
    let mut sockets: Vec<Vec<listener::Listener>> = Vec::new();
    sockets.resize_with(config.shards, Vec::new);
    for (number, wanted) in config.listeners.iter().enumerate() {
        let door = Door::open(wanted, limits.max_packet_size, &mut tls_doors);
        let door = Arc::new(door.map_err(|source| StartError::Tls {
            name: wanted.name.clone(),
            source,
        })?);
        let bound = listener::bind(
            wanted.address,
            config.shards,
            number as u8,
            &door,
            &admission,
        );
        let (address, ends) = bound.map_err(|source| StartError::Listen {
            name: wanted.name.clone(),
            address: wanted.address,
            source,
        })?;
        listeners.push((wanted.name.clone(), address));
        for (shard, end) in sockets.iter_mut().zip(ends) {
            shard.push(end);
        }
    }

    let mut doors: Vec<Vec<Arc<CoapDoor>>> = vec![Vec::new(); config.shards];
    for (at, wanted) in config.coap.iter().enumerate() {
        // Behind those of MQTT and that of HTTP.
        let number = (config.listeners.len() + 1 + at) as u8;
        let dtls = wanted
            .dtls
            .as_ref()
            .map(|options| DtlsFiles::open(&wanted.name, options.certificates.as_ref()))
            .transpose()
            .map_err(|source| StartError::Tls {
                name: wanted.name.clone(),
                source,
            })?;
        let dtls = dtls.map(Arc::new);
        tls_doors.dtls.extend(dtls.clone());
        let door = dtls.as_ref().map(|files| || files.door());
        let door = door.as_ref().map(|door| door as &dyn Fn() -> _);
        let bound = CoapDoor::bind(wanted, config.shards, number, door);
        let (address, ends) = bound.map_err(|source| StartError::Listen {
            name: wanted.name.clone(),
            address: wanted.address,
            source,
        })?;
        listeners.push((wanted.name.clone(), address));
        for (shard, end) in doors.iter_mut().zip(ends) {
            shard.push(Arc::new(end));
        }
    }

    let mut over_http = None;
    if let Some(http) = &config.http {
        let open = |options| TlsDoor::open(HTTP, options, &[b"http/1.1"]).map(Arc::new);
        let tls = http.tls.as_ref().map(open).transpose();
        let tls = tls.map_err(|source| StartError::Tls {
            name: HTTP.to_owned(),
            source,
        })?;
        tls_doors.tls.extend(tls.clone());
        let listening = match tokio::net::TcpListener::bind(http.address).await {
            Ok(listener) => listener.local_addr().map(|address| (listener, address)),
            Err(error) => Err(error),
        };
        let (listener, address) = listening.map_err(|source| StartError::Listen {
            name: HTTP.to_owned(),
            address: http.address,
            source,
        })?;
        listeners.push((HTTP.to_owned(), address));
        over_http = Some((listener, tls));
    }

    let mut over_quic = None;
    if let Some(wanted) = &config.quic {
        let options = crate::config::TlsOptions {
            only_1_3: true,
            ..wanted.tls.clone()
        };
        let door = TlsDoor::open(QUIC, &options, quic::ALPN).map_err(|source| StartError::Tls {
            name: QUIC.to_owned(),
            source,
        })?;
        let door = Arc::new(door);
        tls_doors.tls.push(Arc::clone(&door));
        let bound = Quic::bind(wanted.address, &door, wanted.idle_timeout);
        let (address, endpoint) = bound.map_err(|source| StartError::Listen {
            name: QUIC.to_owned(),
            address: wanted.address,
            source,
        })?;
        listeners.push((QUIC.to_owned(), address));
        over_quic = Some((door, endpoint, wanted.idle_timeout));
    }

    // Everybody who may be here at once is known when all of them come back: at most 120 bytes each.
    let usual = Capacity::default();
    let (cache, writer) = AuthCache::new(Capacity {
        credentials: config.limits.max_connections.max(usual.credentials),
        ..usual
    });
    let mut wakers = Vec::with_capacity(config.shards);
    let mut inboxes = Vec::with_capacity(config.shards);
    for _ in 0..config.shards {
        let waker = Arc::new(Waker::new()?);
        wakers.push(Arc::clone(&waker));
        inboxes.push(Inbox::new(Box::new(move || waker.wake())));
    }
    let from_shards = Arc::new(Notify::new());
    let notify = Arc::clone(&from_shards);
    let interest = Arc::new(Interest::new());
    let shared = Arc::new(Shared {
        groups: Arc::new(SharedGroups::new()),
        cache: Arc::clone(&cache),
        interest,
        inboxes,
        counters: (0..config.shards)
            .map(|_| Arc::new(Counters::default()))
            .collect(),
        limits: config.limits.clone(),
        control: ControlMailbox::new(Box::new(move || notify.notify_one())),
        connections: AtomicUsize::new(0),
        retained: AtomicU64::new(0),
        retained_bytes: AtomicU64::new(0),
        drained: AtomicUsize::new(0),
        seed: random(),
    });

    let ferry = match config.own_descriptors {
        true => Some(Arc::new(Ferry::new(config.shards)?)),
        false => None,
    };
    let shakers = match tls_doors.tls.is_empty() {
        true => 0,
        false => config.shards.div_ceil(2),
    };
    let shakers = Shakers::start(shakers, config.shards)?;
    let mut threads = Vec::with_capacity(config.shards);
    for (at, (listeners, doors)) in sockets.into_iter().zip(doors).enumerate() {
        let id = ShardId::new(at as u8);
        let env = Env {
            id,
            shared: Arc::clone(&shared),
            gate: cache.gate(),
            // One more for what comes over HTTP, then those of CoAP and that of QUIC.
            listeners: vec![
                ListenerRules::default();
                config.listeners.len() + 2 + config.coap.len()
            ],
            ids: IdSource::new(random()),
            counters: Arc::clone(&shared.counters[at]),
            now: Now::from_millis(0),
        };
        let thread = ShardThread {
            env,
            incarnation: config.incarnation,
            sys_interval_s: config.sys_interval_s,
            admission: Arc::clone(&admission),
            waker: Arc::clone(&wakers[at]),
            listeners,
            shakers: Arc::clone(&shakers),
            doors,
            rest: Duration::from_micros(u64::from(config.rest_us)),
            start: began,
            ferry: ferry.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{at}"))
            .spawn(move || thread.run())?;
        threads.push(thread);
    }

    let control_counters = Arc::new(ControlCounters::default());
    let link = Link::new(
        Arc::clone(&shared),
        Arc::clone(&control_counters),
        writer,
        config.node,
        config.incarnation,
        config
            .listeners
            .iter()
            .map(|listener| LinkListener {
                open: listener.open.clone(),
                anonymous: listener.anonymous,
                close_on_refused: false,
                close_on_revoked: listener.close_on_revoked,
            })
            .chain([LinkListener {
                open: None,
                anonymous: false,
                close_on_refused: true,
                // An event stream that nothing can come on any more is told so by its end.
                close_on_revoked: true,
            }])
            .chain(config.coap.iter().map(|_| LinkListener {
                open: None,
                anonymous: false,
                close_on_refused: false,
                // Observations end one by one.
                close_on_revoked: false,
            }))
            .chain(config.quic.iter().map(|listener| LinkListener {
                open: listener.open.clone(),
                anonymous: listener.anonymous,
                close_on_refused: false,
                close_on_revoked: listener.close_on_revoked,
            }))
            .collect(),
    );
    let (tell, serving) = watch::channel(false);
    let control = control::Control {
        link,
        from_shards,
        serving: tell,
        start: began,
    };
    let here = feed.here;
    let link = tokio::spawn(control::drive(control, feed));
    let (stop, stopping) = watch::channel(false);
    let repeats = Repeats::new();
    let http = over_http.zip(config.http.as_ref());
    let http = http.map(|((listener, tls), http)| {
        let messaging = Messaging {
            guests: Guests {
                shared: Arc::clone(&shared),
                ferry: ferry.clone(),
                listener: config.listeners.len() as u8,
                next: Arc::new(AtomicUsize::new(0)),
            },
            body_bytes_max: config.limits.max_packet_size as usize,
            door: Arc::new(Door::of_http(
                &http.websocket,
                config.limits.max_packet_size,
            )),
            tls,
            cors: Cors::new(&http.cors_origins),
            compat: http.compat,
            repeats: Arc::clone(&repeats),
            serving: serving.clone(),
            admission: Arc::clone(&admission),
            stopping: stopping.clone(),
        };
        tokio::spawn(messaging.serve(listener))
    });
    let quic = over_quic.map(|(door, endpoint, idle)| {
        let quic = Quic {
            guests: Guests {
                shared: Arc::clone(&shared),
                ferry: ferry.clone(),
                listener: (config.listeners.len() + 1 + config.coap.len()) as u8,
                next: Arc::new(AtomicUsize::new(0)),
            },
            door,
            packet_bytes_max: config.limits.max_packet_size,
            idle,
            serving: serving.clone(),
            admission: Arc::clone(&admission),
            stopping,
        };
        tokio::spawn(quic.serve(endpoint))
    });
    // A control side elsewhere may come when it likes: until then nobody is served.
    let told = if here {
        let mut first = serving.clone();
        let told = first.wait_for(|serving| *serving);
        matches!(tokio::time::timeout(CONTROL_WAIT, told).await, Ok(Ok(_)))
    } else {
        true
    };
    let broker = Broker {
        watching: tokio::spawn(watch_files(tls_doors.clone())),
        tls_doors,
        stop,
        http,
        repeats,
        quic,
        shared,
        control_counters,
        listeners,
        threads,
        serving,
        link,
    };
    if !told {
        broker.shutdown(Duration::ZERO).await;
        return Err(StartError::Control(CONTROL_WAIT));
    }
    Ok(broker)
}

/// Between two looks at the files of TLS listeners.
const FILES_LOOK: Duration = Duration::from_secs(5);

/// Reads certificates again when their files have changed.
pub(crate) async fn watch_files(doors: TlsDoors) {
    if doors.changed().is_empty() {
        return;
    }
    let mut known = doors.changed();
    loop {
        tokio::time::sleep(FILES_LOOK).await;
        let changed = doors.changed();
        if changed != known {
            known = changed;
            doors.reload();
        }
    }
}

/// A random number from the hasher's per-process seed.
pub(crate) fn random() -> u64 {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new().hash_one(0u8)
}

impl Broker {
    /// Name and bound address of each listener, in the order of the configuration.
    pub fn listeners(&self) -> &[(String, SocketAddr)] {
        &self.listeners
    }

    /// Reads the certificates of all listeners again. Connections that are there keep theirs; where
    /// the files are wrong, the old ones stay in force and the log says why.
    pub fn reload_certificates(&self) {
        self.tls_doors.reload();
    }

    /// The metrics in the Prometheus text format.
    pub fn metrics(&self) -> String {
        self.metrics_source()()
    }

    /// A function that renders the metrics, for whoever serves them.
    pub fn metrics_source(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        let control = Arc::clone(&self.control_counters);
        let repeats = Arc::clone(&self.repeats);
        let serving = self.serving.clone();
        move || {
            let ready = *serving.borrow();
            metrics::render(&shared.counters, &control, repeats.counts(), ready)
        }
    }

    /// A function that says whether clients are served.
    pub fn ready_source(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let serving = self.serving.clone();
        move || *serving.borrow()
    }

    /// Whether clients are served.
    pub fn ready(&self) -> bool {
        *self.serving.borrow()
    }

    /// Stops accepting, says goodbye to every client (DISCONNECT 0x8B in MQTT 5), sends what was
    /// accepted, and ends; whatever is not done after `grace` is left.
    pub async fn shutdown(self, grace: Duration) {
        let ends = tokio::time::Instant::now() + grace;
        self.stop.send_replace(true);
        // Two rounds, as for a fence: in the first every shard posts what it has accepted, in the
        // second every shard has drained and sent it.
        for round in 1..=2 {
            self.shared.post_all(|| Post::Drain);
            let passed = round * self.shared.shards();
            while self.shared.drained.load(Ordering::Acquire) < passed
                && tokio::time::Instant::now() < ends
            {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        }
        self.shared.post_all(|| Post::Shutdown);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                match thread.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(%error, "a shard ended with an error"),
                    Err(_) => tracing::error!("a shard panicked"),
                }
            }
        });
        if tokio::time::timeout_at(ends, joined).await.is_err() {
            tracing::warn!("shards were still busy when the grace period ended");
        }
        // Its requests were answered, or their shards are gone.
        for mut served in self.http.into_iter().chain(self.quic) {
            if tokio::time::timeout_at(ends, &mut served).await.is_err() {
                served.abort();
            }
        }
        self.link.abort();
        self.watching.abort();
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
