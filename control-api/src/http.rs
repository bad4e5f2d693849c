//! The HTTP listener: health, metrics, and tokens for users.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::identify::LoginError;
use crate::secret::{Secret, random_id};
use crate::{Control, metrics};

/// Gives the broker's metrics as text.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;
/// Says whether the broker serves.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// Connections at a time; further ones wait to be accepted. Each costs at most 16 KiB of headers and
/// one body.
const CONNECTIONS_MAX: usize = 1_024;
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A login is a name and a password; nothing else is posted here.
const BODY_BYTES_MAX: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests in progress may take once control stops.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct App {
    control: Control,
    metrics: Metrics,
    ready: Ready,
    /// Metrics are open to whoever can reach a loopback listener, and to administrators elsewhere.
    loopback: bool,
}

#[derive(Clone, Copy)]
struct Peer(IpAddr);

impl Control {
    /// Serves HTTP until [`close`](Self::close).
    ///
    /// # Errors
    /// The listener has no address.
    pub async fn serve_http(
        &self,
        listener: TcpListener,
        metrics: Metrics,
        ready: Ready,
    ) -> io::Result<()> {
        let loopback = listener.local_addr()?.ip().is_loopback();
        let router = router(App {
            control: self.clone(),
            metrics,
            ready,
            loopback,
        });
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let mut stopped = std::pin::pin!(self.stopped());
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                break;
            };
            // Cancellation safe: a connection that was not accepted stays in the kernel's queue.
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let connection = serve(self.clone(), router.clone(), stream, peer.ip());
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
        Ok(())
    }
}

async fn serve(control: Control, router: Router, stream: TcpStream, peer: IpAddr) {
    let router = router.layer(axum::Extension(Peer(peer)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // After the stop the connection is driven on until its request is answered.
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = control.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
}

fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(scrape))
        .route("/users/tokens/issue", post(issue))
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "no such route") })
        .method_not_allowed_fallback(|method: Method| async move {
            Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{method} is not served here"),
            )
        })
        .layer(axum::middleware::map_response(identify_response))
        .with_state(app)
}

async fn identify_response(mut response: Response) -> Result<Response, Infallible> {
    if let Ok(id) = HeaderValue::from_str(&random_id().to_string()) {
        response.headers_mut().insert("x-request-id", id);
    }
    Ok(response)
}

/// An error as every route answers it.
struct Failure {
    status: StatusCode,
    message: String,
    detail: String,
}

impl Failure {
    fn new(status: StatusCode, message: impl Into<String>) -> Failure {
        Failure {
            status,
            message: message.into(),
            detail: String::new(),
        }
    }

    fn with_detail(self, detail: impl ToString) -> Failure {
        Failure {
            detail: detail.to_string(),
            ..self
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.detail, "message": self.message });
        let mut response = (self.status, Json(body)).into_response();
        let retry = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => "1",
            StatusCode::TOO_MANY_REQUESTS => "60",
            _ => return response,
        };
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static(retry));
        response
    }
}

async fn health(State(app): State<App>) -> Response {
    let ready = (app.ready)();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::json!({
        "status": if ready { "pass" } else { "fail" },
        "version": env!("CARGO_PKG_VERSION"),
        "description": "turnpike service",
        "instance_id": app.control.node().to_string(),
    });
    let content_type = [(header::CONTENT_TYPE, "application/health+json")];
    (status, content_type, body.to_string()).into_response()
}

async fn scrape(State(app): State<App>, headers: HeaderMap) -> Result<Response, Failure> {
    if !app.loopback {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let bearer = bearer.ok_or_else(|| {
            Failure::new(
                StatusCode::UNAUTHORIZED,
                "metrics need an administrator's access token",
            )
        })?;
        if !app.control.0.identifier.is_administrator(bearer).await {
            let message = "the access token is no administrator's";
            return Err(Failure::new(StatusCode::FORBIDDEN, message));
        }
    }
    let (text, content_type) = metrics::text(&app.control, &(app.metrics)());
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

#[derive(Deserialize)]
struct Login {
    #[serde(alias = "identity", alias = "email")]
    username: String,
    #[serde(alias = "secret")]
    password: Secret,
}

#[derive(Serialize)]
struct IssuedTokens {
    access_token: Secret,
    refresh_token: Secret,
    access_type: &'static str,
}

async fn issue(
    State(app): State<App>,
    axum::Extension(Peer(peer)): axum::Extension<Peer>,
    request: Request<Body>,
) -> Result<Response, Failure> {
    let login: Login = json(request).await?;
    let password = login.password.reveal().as_bytes();
    let issued = app
        .control
        .0
        .identifier
        .login(&login.username, password, Some(peer))
        .await;
    let issued = issued.map_err(|error| {
        let status = match error {
            LoginError::BadCredentials => StatusCode::UNAUTHORIZED,
            LoginError::Throttled => StatusCode::TOO_MANY_REQUESTS,
            LoginError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure::new(status, error.to_string())
    })?;
    let body = IssuedTokens {
        access_token: issued.access,
        refresh_token: issued.refresh,
        access_type: "Bearer",
    };
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, no_store, Json(body)).into_response())
}

/// Reads a JSON body: type, length and time are checked before a byte is parsed.
async fn json<T: for<'de> Deserialize<'de>>(request: Request<Body>) -> Result<T, Failure> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !content_type.contains("application/json") {
        let message = "unsupported content type; expected application/json";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, body)
        .await
        .map_err(|_| {
            Failure::new(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive in 30 seconds",
            )
        })?;
    let bytes = body
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                let message =
                    format!("the body is too long; expected at most {BODY_BYTES_MAX} bytes");
                Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            } else {
                Failure::new(StatusCode::BAD_REQUEST, "the body could not be read")
            }
        })?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| {
        // Where and what kind, never what was sent: it may be a password.
        let kind = match error.classify() {
            serde_json::error::Category::Data => "a field is missing or has the wrong type",
            _ => "not JSON",
        };
        let detail = format!("{kind}, line {}, column {}", error.line(), error.column());
        Failure::new(StatusCode::BAD_REQUEST, "malformed body").with_detail(detail)
    })
}
