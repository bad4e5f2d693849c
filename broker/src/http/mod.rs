//! The HTTP listener for messages, on the second runtime: publishing in all its forms, subscribing by
//! Server-Sent Events, and WebSockets, whose connections go to a shard.

mod cors;
mod events;
mod guest;
pub(crate) mod repeats;
mod request;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use authcache::feed::ShownCertificate;
use bytes::Bytes;
use codec::mqtt::ReasonCode;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use session::web::Login;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::HttpCompat;
use crate::ferry::Descriptor;
pub(crate) use crate::http::cors::Cors;
use crate::http::events::{Answer, events};
pub(crate) use crate::http::guest::Guests;
use crate::http::guest::{Guest, Outgoing, Peer, Refused};
use crate::http::repeats::{Begun, Outcome, Repeats};
use crate::http::request::{Asked, Fault, Success};
use crate::reactor::admission::Admission;
use crate::reactor::door::Door;
use crate::reactor::layer::Layer;
use crate::reactor::tcp::TcpWire;
use crate::reactor::tls::TlsDoor;
use crate::tls::shown_in;

/// Connections at a time; further ones wait to be accepted. Each costs at most a body, 16 KiB of
/// headers and a pipe.
const CONNECTIONS_MAX: usize = 4_096;
const HEADER_BYTES_MAX: usize = 16 << 10;
const HEADER_WAIT: Duration = Duration::from_secs(5);
const BODY_WAIT: Duration = Duration::from_secs(30);

/// How long requests in progress may take once the broker stops.
const GRACE: Duration = Duration::from_secs(5);

/// Pause when no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a request that are looked at before it is known whose it is.
const PEEK_BYTES: usize = 8 << 10;

/// What every connection needs.
pub(crate) struct Messaging {
    pub(crate) guests: Guests,
    /// The largest body.
    pub(crate) body_bytes_max: usize,
    /// The door of requests for a WebSocket.
    pub(crate) door: Arc<Door>,
    /// Whether everything is in TLS.
    pub(crate) tls: Option<Arc<TlsDoor>>,
    /// Pages that may read answers.
    pub(crate) cors: Cors,
    /// What is answered as older servers do.
    pub(crate) compat: HttpCompat,
    /// Requests with a key.
    pub(crate) repeats: Arc<Repeats>,
    /// Whether clients are served; no request is answered before.
    pub(crate) serving: watch::Receiver<bool>,
    /// Bounds per address, as for all listeners.
    pub(crate) admission: Arc<Admission>,
    /// Told when the broker stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Messaging {
    /// Serves until it is told to stop.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let messaging = Arc::new(self);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let mut serving = messaging.serving.clone();
        let mut stopping = messaging.stopping.clone();
        if serving.wait_for(|serving| *serving).await.is_err() {
            return;
        }
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break;
            };
            // Cancellation safe: a connection that was not accepted stays in the kernel's queue.
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let ip = peer.ip().to_canonical();
                        if !messaging.admission.admit(ip, stream.as_raw_fd(), Instant::now()) {
                            continue;
                        }
                        let messaging = Arc::clone(&messaging);
                        connections.spawn(async move {
                            messaging.connection(stream, peer).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an HTTP connection cannot be accepted now");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = stopped(&mut stopping) => break,
            }
            while connections.try_join_next().is_some() {}
        }
        let _ = tokio::time::timeout(GRACE, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let fd = stream.as_raw_fd();
        let Some(door) = &self.tls else {
            if let Some(stream) = self.websocket(stream).await {
                let left = Left(&self.admission, fd);
                let peer = Peer {
                    ip: peer.ip(),
                    certificate: None,
                };
                self.requests(stream, left, peer).await;
            }
            return;
        };
        let acceptor = TlsAcceptor::from(door.config());
        let mut shaking = std::pin::pin!(acceptor.accept(stream).into_fallible());
        let left = Left(&self.admission, fd);
        match tokio::time::timeout(HEADER_WAIT, shaking.as_mut()).await {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates();
                let shown = chain.filter(|_| door.identifies());
                let peer = Peer {
                    ip: peer.ip(),
                    certificate: shown.and_then(|chain| shown_in(chain.first()?)),
                };
                self.requests(stream, left, peer).await;
            }
            failed => {
                drop(left);
                drop(failed);
            }
        }
    }

    /// Answers the requests of one connection.
    async fn requests<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        stream: S,
        left: Left<'_>,
        peer: Peer,
    ) {
        // The pipe of the last request, for the next one of the same client.
        let kept: Arc<Mutex<Option<Guest>>> = Arc::default();
        let mut stopping = self.stopping.clone();
        let service = service_fn(|request: Request<Incoming>| {
            let messaging = Arc::clone(self);
            let kept = Arc::clone(&kept);
            let peer = peer.clone();
            async move {
                let origin = request.headers().get(ORIGIN).cloned();
                let answer = messaging.answer(request, &peer, &kept).await;
                let answer = answer.unwrap_or_else(refuse);
                Ok::<_, Infallible>(messaging.as_asked(answer, origin.as_ref()))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_WAIT)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // Dropped before the connection, so that the number of its descriptor is still its own.
        let _left = left;
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = stopped(&mut stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "an HTTP connection failed");
        }
    }

    /// A connection that begins with a request for a WebSocket goes to a shard, which answers it;
    /// all others come back.
    async fn websocket(&self, stream: TcpStream) -> Option<TcpStream> {
        let mut head = vec![0; PEEK_BYTES];
        let peeked = tokio::time::timeout(HEADER_WAIT, stream.peek(&mut head)).await;
        let Ok(Ok(seen)) = peeked else {
            self.admission.left(stream.as_raw_fd());
            return None;
        };
        let head = head[..seen].to_ascii_lowercase();
        let asks = |line: &[u8]| line.starts_with(b"upgrade:") && line.ends_with(b"websocket\r");
        if !head.split(|byte| *byte == b'\n').any(asks) {
            return Some(stream);
        }
        let stream = stream.into_std().ok()?;
        stream.set_nodelay(true).ok()?;
        let wire = TcpWire {
            fd: Descriptor::Here(OwnedFd::from(stream)),
            layer: Layer::new(&self.door),
        };
        self.guests.hand_over(wire, self.guests.listener);
        None
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        kept: &Mutex<Option<Guest>>,
    ) -> Result<Response<Answer>, Fault> {
        let (parts, body) = request.into_parts();
        if parts.headers.contains_key(UPGRADE) {
            if self.tls.is_some() {
                return Err(Fault(
                    StatusCode::MISDIRECTED_REQUEST,
                    "WebSockets over TLS are served by the listener wss, not here",
                ));
            }
            return Err(Fault(
                StatusCode::UPGRADE_REQUIRED,
                "a WebSocket begins with the first request of a connection",
            ));
        }
        if Cors::is_preflight(&parts) {
            return Ok(self.preflight(&parts));
        }
        let body = match parts.method {
            Method::POST => self.body(body).await?,
            _ => Vec::new(),
        };
        let repeated = self.repeated(&parts, &body, peer)?;
        let directory = self.guests.shared.cache.directory();
        let topic_of = |channel: &str| {
            let id = authcache::EntityId::from_text(channel)?;
            directory
                .prefix(directory.channel(id)?)
                .map(|prefix| prefix.to_string())
        };
        if self.compat.known_content_types_only {
            request::check_content_type(&parts)?;
        }
        let certified = peer.certificate.is_some();
        match request::read(&parts, body, certified, &topic_of)? {
            Asked::Publish {
                login,
                messages,
                success,
            } => {
                let guest = self.guest(&login, peer, kept).await?;
                let (guest, outcome) = match repeated {
                    None => publish(guest, &messages, success).await?,
                    Some(repeated) => self.once(repeated, guest, messages, success).await?,
                };
                *kept.lock().await = Some(guest);
                Ok(response(outcome))
            }
            Asked::Subscribe {
                login,
                filter,
                envelopes,
            } => {
                let mut guest = self.guests.enter(&login, peer).await.map_err(fault)?;
                guest.subscribe(&filter).await.map_err(fault)?;
                let mut answer = Response::new(events(guest, envelopes));
                let headers = answer.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                Ok(answer)
            }
        }
    }

    /// The key of a request that may be sent again, and what it says.
    fn repeated(&self, parts: &Parts, body: &[u8], peer: &Peer) -> Result<Option<Repeated>, Fault> {
        let Some(key) = parts.headers.get("idempotency-key") else {
            return Ok(None);
        };
        let key = Repeats::key(key.as_bytes()).ok_or(Fault(
            StatusCode::BAD_REQUEST,
            "Idempotency-Key: expected 1 to 255 printable characters without spaces",
        ))?;
        let content_type = parts.headers.get(CONTENT_TYPE);
        let content_type = content_type.map_or(&b""[..], HeaderValue::as_bytes);
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        Ok(Some(Repeated {
            key: key.to_vec(),
            request: self.repeats.print(&[path.as_bytes(), content_type, body]),
            certificate: peer.certificate.clone(),
        }))
    }

    /// Publishes unless that was done under the same key. It is finished even if whoever asked does
    /// not wait for the answer: who asks again gets it.
    async fn once(
        &self,
        repeated: Repeated,
        guest: Guest,
        messages: Vec<Outgoing>,
        success: Success,
    ) -> Result<(Guest, Outcome), Fault> {
        let Repeated {
            key,
            request,
            certificate,
        } = repeated;
        let count = messages.len();
        let who = self.repeats.who(guest.login(), certificate.as_deref());
        let begun = self
            .repeats
            .begin(who, &key, request, count, Instant::now());
        let place = match begun {
            Begun::First(place) => place,
            Begun::Again(outcome) => return Ok((guest, outcome)),
            Begun::UnderWay => {
                return Err(Fault(
                    StatusCode::CONFLICT,
                    "the first request with this Idempotency-Key is being carried out",
                ));
            }
            Begun::OtherRequest => {
                return Err(Fault(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "this Idempotency-Key was used for another request",
                ));
            }
            Begun::Full => {
                return Err(Fault(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "no more Idempotency-Keys are remembered now",
                ));
            }
        };
        // It ends with the answer of the broker, which `publish` awaits for a bounded time.
        let task = tokio::spawn(async move {
            let (guest, outcome) = publish(guest, &messages, success).await?;
            place.finish(&outcome);
            Ok((guest, outcome))
        });
        task.await.unwrap_or(Err(Fault(
            StatusCode::SERVICE_UNAVAILABLE,
            "the broker did not answer",
        )))
    }

    /// The answer to a browser that asks what a page may do.
    fn preflight(&self, parts: &Parts) -> Response<Answer> {
        let mut answer = Response::new(Answer::text(""));
        let headers = answer.headers_mut();
        if self.cors.allow(parts.headers.get(ORIGIN), headers) {
            Cors::tell(headers);
        }
        // Without those headers the browser refuses the page, whatever the status.
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer
    }

    /// An answer for the page at `origin`, with the statuses that are asked for.
    fn as_asked(
        &self,
        mut answer: Response<Answer>,
        origin: Option<&HeaderValue>,
    ) -> Response<Answer> {
        self.cors.allow(origin, answer.headers_mut());
        if self.compat.denied_is_401 && answer.status() == StatusCode::FORBIDDEN {
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
        }
        answer
    }

    /// The pipe of the last request if it is the same client's and still answers, or a new one.
    async fn guest(
        &self,
        login: &Login,
        peer: &Peer,
        kept: &Mutex<Option<Guest>>,
    ) -> Result<Guest, Fault> {
        // It is put back when it has answered: a request that is dropped halfway takes it along.
        let known = kept.lock().await.take();
        if let Some(mut guest) = known.filter(|guest| guest.login() == login)
            && guest.answers().await
        {
            return Ok(guest);
        }
        self.guests.enter(login, peer).await.map_err(fault)
    }

    async fn body(&self, body: Incoming) -> Result<Vec<u8>, Fault> {
        let too_large = Fault(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than a message may be",
        );
        // A claim is enough: nothing is awaited of a body that cannot be taken.
        if body.size_hint().lower() > self.body_bytes_max as u64 {
            return Err(too_large);
        }
        let whole = Limited::new(body, self.body_bytes_max).collect();
        match tokio::time::timeout(BODY_WAIT, whole).await {
            Ok(Ok(whole)) => Ok(whole.to_bytes().to_vec()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large),
            Ok(Err(_)) => Err(Fault(StatusCode::BAD_REQUEST, "the body was cut")),
            Err(_) => Err(Fault(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
        }
    }
}

/// Takes a connection off its address's count when it ends.
struct Left<'a>(&'a Admission, RawFd);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.left(self.1);
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A broker that is gone has stopped as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// A request that may come again.
struct Repeated {
    key: Vec<u8>,
    request: [u8; 32],
    certificate: Option<Box<ShownCertificate>>,
}

/// Publishes everything and says what came of it.
async fn publish(
    mut guest: Guest,
    messages: &[Outgoing],
    success: Success,
) -> Result<(Guest, Outcome), Fault> {
    let codes = guest.publish(messages).await.map_err(fault)?;
    Ok((guest, told(&codes, success)?))
}

/// What came of messages that were given to the broker.
fn told(codes: &[ReasonCode], success: Success) -> Result<Outcome, Fault> {
    let refused: Vec<(usize, ReasonCode)> = codes
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, code)| code.is_error())
        .collect();
    if let (Some((_, code)), true) = (refused.first(), success != Success::Published) {
        return Err(fault(Refused(Some(*code))));
    }
    let (status, body) = match success {
        Success::Accepted => (StatusCode::ACCEPTED, None),
        Success::AcceptedStatus => (StatusCode::ACCEPTED, Some(json!({"status": "accepted"}))),
        Success::Published => {
            let published = codes.len() - refused.len();
            let errors: Vec<_> = refused
                .iter()
                .map(|(at, code)| json!({"index": at, "code": code.get(), "error": code.name()}))
                .collect();
            match refused.first() {
                None => (StatusCode::OK, Some(json!({"published": published}))),
                Some((_, code)) => {
                    let Fault(status, _) = fault(Refused(Some(*code)));
                    let body = json!({"published": published, "errors": errors});
                    (status, Some(body))
                }
            }
        }
    };
    Ok(Outcome {
        status,
        body: body.map(|body| Bytes::from(body.to_string())),
    })
}

fn response(outcome: Outcome) -> Response<Answer> {
    let mut answer = Response::new(Answer::Whole(outcome.body));
    *answer.status_mut() = outcome.status;
    if !matches!(answer.body(), Answer::Whole(None)) {
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(CONTENT_TYPE, json);
    }
    answer
}

/// What a Reason Code means in HTTP.
fn fault(refused: Refused) -> Fault {
    let Some(code) = refused.0 else {
        return Fault(StatusCode::SERVICE_UNAVAILABLE, "the broker did not answer");
    };
    match code {
        ReasonCode::BAD_USER_NAME_OR_PASSWORD => {
            Fault(StatusCode::UNAUTHORIZED, "a credential is wrong")
        }
        ReasonCode::NOT_AUTHORIZED | ReasonCode::ADMINISTRATIVE_ACTION => {
            Fault(StatusCode::FORBIDDEN, "no right on this channel")
        }
        ReasonCode::TOPIC_NAME_INVALID | ReasonCode::TOPIC_FILTER_INVALID => {
            Fault(StatusCode::BAD_REQUEST, "malformed topic")
        }
        ReasonCode::PACKET_TOO_LARGE => Fault(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the message is larger than it may be",
        ),
        ReasonCode::CONNECTION_RATE_EXCEEDED | ReasonCode::QUOTA_EXCEEDED => {
            Fault(StatusCode::TOO_MANY_REQUESTS, "too many; try again later")
        }
        _ => Fault(StatusCode::SERVICE_UNAVAILABLE, "try again later"),
    }
}

/// The answer to a request that nothing was done for.
fn refuse(Fault(status, why): Fault) -> Response<Answer> {
    let body = json!({ "message": why }).to_string();
    let mut answer = Response::new(Answer::text(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let more = match status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer, Basic, Client")),
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "GET, POST")),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "5")),
        _ => None,
    };
    if let Some((name, value)) = more {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
