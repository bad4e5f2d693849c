//! The HTTP listener: health, metrics, and the control API.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use authcache::EntityId;
use subtle::ConstantTimeEq;

use crate::api::{self, Failure};
use crate::secret::random_id;
use crate::{Build, Control, Secret, links, metrics};

/// Gives the broker's metrics as text.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;
/// Says whether the broker serves.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;
/// Gives the TLS of a connection that comes now: certificates may be renewed meanwhile.
pub type Tls = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// Connections at a time; further ones wait to be accepted. Each costs at most 16 KiB of headers and
/// one body.
const CONNECTIONS_MAX: usize = 1_024;
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests in progress may take once control stops.
const GRACE: Duration = Duration::from_secs(5);

/// What is served whether or not there is a control API.
#[derive(Clone)]
struct Status {
    node: EntityId,
    build: Build,
    metrics: Metrics,
    ready: Ready,
    /// Metrics are open to whoever can reach a loopback listener; elsewhere they need a token.
    loopback: bool,
    metrics_token: Option<Secret>,
}

#[derive(Clone)]
struct App {
    control: Control,
    status: Status,
}

#[derive(Clone, Copy)]
struct Peer(IpAddr);

/// Where HTTP is served, and whether in TLS.
pub struct HttpListener {
    socket: TcpListener,
    tls: Option<Tls>,
    metrics_token: Option<Secret>,
}

impl HttpListener {
    /// Requests come in at `socket`; everything there is in TLS if there is `tls`.
    #[must_use]
    pub fn new(socket: TcpListener, tls: Option<Tls>) -> HttpListener {
        HttpListener {
            socket,
            tls,
            metrics_token: None,
        }
    }

    /// Whoever shows this token reads metrics, also off loopback.
    #[must_use]
    pub fn with_metrics_token(self, token: Option<Secret>) -> HttpListener {
        HttpListener {
            metrics_token: token,
            ..self
        }
    }

    /// Serves health and metrics of a broker that has no control API, until it is told to stop.
    ///
    /// # Errors
    /// The listener has no address.
    pub async fn serve_broker(
        self,
        node: EntityId,
        build: Build,
        (metrics, ready): (Metrics, Ready),
        stopping: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let status = self.status(node, build, metrics, ready)?;
        let router = Router::new()
            .route("/health", get(health_of_broker))
            .route("/metrics", get(scrape_broker))
            .layer(axum::middleware::map_response(identify_response))
            .with_state(status);
        self.serve(router, stopping).await;
        Ok(())
    }

    fn status(
        &self,
        node: EntityId,
        build: Build,
        metrics: Metrics,
        ready: Ready,
    ) -> io::Result<Status> {
        Ok(Status {
            node,
            build,
            metrics,
            ready,
            loopback: self.socket.local_addr()?.ip().is_loopback(),
            metrics_token: self.metrics_token.clone(),
        })
    }

    /// Serves a router until it is told to stop; requests in progress are answered then.
    async fn serve(self, router: Router, mut stopping: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let told = stopping.clone();
        let mut stopped = std::pin::pin!(stopped(&mut stopping));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                break;
            };
            // Cancellation safe: a connection that was not accepted stays in the kernel's queue.
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let router = router.clone().layer(axum::Extension(Peer(peer.ip())));
                        let tls = self.tls.as_ref().map(|tls| tls());
                        let connection = connection(router, stream, tls, told.clone());
                        connections.spawn(async move {
                            connection.await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: others must close first.
                        tracing::warn!(%error, "an HTTP connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                () = &mut stopped => break,
            }
            while connections.try_join_next().is_some() {}
        }
        let _ = tokio::time::timeout(GRACE, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
    }
}

impl Control {
    /// Serves health, metrics and the API until [`stop`](Self::stop).
    ///
    /// # Errors
    /// The listener has no address.
    pub async fn serve_http(
        &self,
        listener: HttpListener,
        metrics: Metrics,
        ready: Ready,
    ) -> io::Result<()> {
        let router = router(App {
            control: self.clone(),
            status: listener.status(self.node(), self.0.build, metrics, ready)?,
        });
        listener.serve(router, self.0.stopping.subscribe()).await;
        Ok(())
    }
}

/// One connection, in TLS if there is one.
async fn connection(
    router: Router,
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    stopping: watch::Receiver<bool>,
) {
    let Some(tls) = tls else {
        return requests(router, stream, stopping).await;
    };
    let shaking = TlsAcceptor::from(tls).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking).await {
        Ok(Ok(stream)) => requests(router, stream, stopping).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin>(
    router: Router,
    stream: S,
    mut stopping: watch::Receiver<bool>,
) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // After the stop the connection is driven on until its request is answered.
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which holds us up no longer either.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(scrape))
        .route("/openapi.json", get(document))
        .route("/docs", get(explorer))
        .route(links::VERIFY, get(verify).fallback(operate))
        .route(links::RESET, get(linked).fallback(operate))
        .route(links::INVITED, get(linked).fallback(operate))
        .fallback(operate)
        .layer(axum::middleware::map_response(identify_response))
        .with_state(app)
}

/// Everything else is in the table of the control API.
async fn operate(
    State(app): State<App>,
    axum::Extension(Peer(peer)): axum::Extension<Peer>,
    request: Request<Body>,
) -> Response {
    api::answer(app.control, peer, request).await
}

/// The page behind a link in a mail.
async fn linked(State(app): State<App>) -> Response {
    links::page(app.control.settings().self_registration)
}

/// The page, unless a token is shown in the query, as clients of this API do.
async fn verify(
    state: State<App>,
    peer: axum::Extension<Peer>,
    request: Request<Body>,
) -> Response {
    let mut query = request.uri().query().unwrap_or_default().split('&');
    if query.any(|pair| pair == "token" || pair.starts_with("token=")) {
        return operate(state, peer, request).await;
    }
    linked(state).await
}

async fn document() -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, api::document().to_string()).into_response()
}

async fn explorer() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
        ),
    ];
    (headers, include_str!("explorer.html")).into_response()
}

async fn identify_response(mut response: Response) -> Result<Response, Infallible> {
    if let Ok(id) = HeaderValue::from_str(&random_id().to_string()) {
        response.headers_mut().insert("x-request-id", id);
    }
    Ok(response)
}

async fn health(State(app): State<App>) -> Response {
    app.status.health()
}

async fn health_of_broker(State(status): State<Status>) -> Response {
    status.health()
}

async fn scrape(State(app): State<App>, headers: HeaderMap) -> Result<Response, Failure> {
    if let Some(bearer) = app.status.unknown_scraper(&headers)?
        && !app.control.0.identifier.is_administrator(bearer).await
    {
        let message = "the token is neither that of listeners.api.metrics_token_file nor an \
                       administrator's access token";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    let (text, content_type) = metrics::text(&app.control, &(app.status.metrics)());
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

async fn scrape_broker(
    State(status): State<Status>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if status.unknown_scraper(&headers)?.is_some() {
        let message = "the token is not that of listeners.api.metrics_token_file";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    let (text, content_type) = metrics::typed((status.metrics)());
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

impl Status {
    fn health(&self) -> Response {
        let mut body = serde_json::json!({
            "status": "pass",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "turnpike service",
            "instance_id": self.node.to_string(),
        });
        for (name, value) in self.build.shown() {
            body[name] = value.into();
        }
        let mut status = StatusCode::OK;
        if !(self.ready)() {
            status = StatusCode::SERVICE_UNAVAILABLE;
            body["status"] = "fail".into();
            body["message"] =
                "control has not told the broker its state, or the lease on it is over".into();
        }
        let content_type = [(header::CONTENT_TYPE, "application/health+json")];
        (status, content_type, body.to_string()).into_response()
    }

    /// What somebody shows who asks for metrics, if it still has to be checked.
    ///
    /// # Errors
    /// Nothing is shown where something has to be.
    fn unknown_scraper<'h>(&self, headers: &'h HeaderMap) -> Result<Option<&'h [u8]>, Failure> {
        if self.loopback {
            return Ok(None);
        }
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let bearer = bearer.ok_or_else(|| {
            Failure::new(
                StatusCode::UNAUTHORIZED,
                "metrics need a token; expected \"Authorization: Bearer <token>\"",
            )
        })?;
        // Of the same length whatever is shown, so that the time tells nothing.
        let digest = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
        let own = self.metrics_token.as_ref();
        let right = own.is_some_and(|own| {
            let own = digest(own.reveal().as_bytes());
            own.ct_eq(&digest(bearer)).into()
        });
        Ok((!right).then_some(bearer))
    }
}
