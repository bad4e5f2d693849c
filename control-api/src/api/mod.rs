//! The control API: one table of routes, each with its right, its body and its operation.
//!
//! [`answer`] takes a request through the same steps whatever the route: find it, identify the
//! caller, read and check the body, carry out the operation. An operation authorizes inside the
//! transaction in which it reads or writes, so what was checked is what is changed; one that writes
//! also identifies the caller again there, since it may have waited while others wrote. It answers
//! once its revision has settled.

mod aliases;
mod authorize;
mod call;
mod certificates;
mod connect;
mod domains;
mod entities;
mod explain;
mod failure;
mod fields;
mod groups;
mod invitations;
mod journal;
mod keys;
mod mail;
mod mailed;
mod oauth;
mod openapi;
mod parents;
mod pats;
mod people;
mod query;
mod roles;
mod route;
mod routes;
mod several;
mod show;
mod tokens;

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::Control;
use crate::store::journal::Outcome;
use call::{Call, Caller};
use query::Query;
use route::{Auth, BodyShape, Found};

pub(crate) use failure::Failure;
pub(crate) use mail::Mailer;
pub(crate) use openapi::document;

/// What has to hold for any bytes as the body and the query of every route.
///
/// # Panics
/// A promise is broken.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_bytes(input: &[u8]) {
    for route in routes::all() {
        if let Err(failure) = fields::shaped(&route.body, input) {
            assert!(failure.status.is_client_error());
            assert!(!failure.message.is_empty());
        }
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(query) = Query::parse(text) {
        let page = query.page();
        assert!(page.is_err() || page.is_ok_and(|page| (1..=100).contains(&page.limit)));
        let _ = (query.tags(), query.metadata(), query.time("created_from"));
    }
    let _ = route::segments(text);
}

/// What an operation answers.
pub(crate) struct Reply {
    status: StatusCode,
    body: Option<serde_json::Value>,
    location: Option<String>,
    cache: Option<&'static str>,
    cookies: Vec<String>,
}

impl Reply {
    fn json(status: StatusCode, body: serde_json::Value) -> Reply {
        Reply {
            status,
            body: Some(body),
            location: None,
            cache: None,
            cookies: Vec::new(),
        }
    }

    fn ok(body: serde_json::Value) -> Reply {
        Reply::json(StatusCode::OK, body)
    }

    fn created(location: String, body: serde_json::Value) -> Reply {
        Reply {
            location: Some(location),
            ..Reply::json(StatusCode::CREATED, body)
        }
    }

    fn empty(status: StatusCode) -> Reply {
        Reply {
            status,
            body: None,
            location: None,
            cache: None,
            cookies: Vec::new(),
        }
    }

    /// Sends a browser elsewhere.
    fn found(location: String) -> Reply {
        Reply {
            location: Some(location),
            ..Reply::empty(StatusCode::FOUND)
        }
    }

    fn with_cookie(mut self, cookie: String) -> Reply {
        self.cookies.push(cookie);
        self
    }

    fn cached(self, cache: &'static str) -> Reply {
        Reply {
            cache: Some(cache),
            ..self
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Some(body) => (self.status, axum::Json(body)).into_response(),
            None => self.status.into_response(),
        };
        let headers = response.headers_mut();
        let cache = self.cache.unwrap_or("no-store");
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        if let Some(location) = self.location
            && let Ok(location) = HeaderValue::from_str(&location)
        {
            headers.insert(header::LOCATION, location);
        }
        for cookie in self.cookies {
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
        response
    }
}

/// Answers a request.
pub(crate) async fn answer(control: Control, peer: IpAddr, request: Request<Body>) -> Response {
    match carry_out(control, peer, request).await {
        Ok(reply) => reply.into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn carry_out(
    control: Control,
    peer: IpAddr,
    request: Request<Body>,
) -> Result<Reply, Failure> {
    let (head, body) = request.into_parts();
    let segments = route::segments(head.uri.path())?;
    let bearer = bearer(&head.headers);
    let (found, old) = match route::find(&head.method, &segments)? {
        Some(found) => (found, false),
        None => (
            aliases::find(&control, &head, &segments, bearer.as_deref())?,
            true,
        ),
    };
    let Found { route, params } = found;
    let mut query = Query::parse(head.uri.query().unwrap_or_default())?;
    if let Some((name, value)) = route.default_query {
        query.set(name, value.to_owned());
    }
    let mut caller = identify(&control, route.auth, bearer.as_deref()).await?;
    let fields = match &route.body {
        BodyShape::None => fields::Body::None,
        shape => {
            let read = fields::read(shape, caller.is_none(), &head.headers, body).await?;
            // A body may take half a minute to come, and its sender's token may be void by then.
            caller = identify(&control, route.auth, bearer.as_deref()).await?;
            read
        }
    };
    let cookies = head.headers.get(header::COOKIE);
    let cookies = cookies.and_then(|cookies| cookies.to_str().ok());
    let call = Call {
        control,
        cookies: cookies.map(str::to_owned),
        route,
        peer,
        params,
        query,
        fields,
        bearer,
        caller,
        old,
    };
    let looks = route.method == Method::GET && call.control.settings().journal_views;
    let note = call.note();
    let result = match call.check_scope().await {
        Ok(()) => (route.handler)(call).await,
        Err(failure) => Err(failure),
    };
    let outcome = match &result {
        Ok(_) if looks => Some(Outcome::Done),
        Err(failure) if failure.status == StatusCode::FORBIDDEN => Some(Outcome::Denied),
        Ok(_) | Err(_) => None,
    };
    if let (Some(note), Some(outcome)) = (note, outcome) {
        note.record(outcome).await;
    }
    result
}

/// The bearer token of a request. The JavaScript SDK sends the word `undefined` where it has none.
fn bearer(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    let given = scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty();
    (given && token != b"undefined").then(|| token.to_vec())
}

async fn identify(
    control: &Control,
    auth: Auth,
    bearer: Option<&[u8]>,
) -> Result<Option<Caller>, Failure> {
    let needed = match (auth, bearer) {
        (Auth::Open, _) | (Auth::Optional, None) => return Ok(None),
        (_, Some(token)) => token,
        (Auth::Any | Auth::Login | Auth::Session | Auth::Unverified, None) => {
            return Err(Failure::unauthorized(
                "missing access token; expected \"Authorization: Bearer <token>\"",
            ));
        }
    };
    let caller = Caller::identify(control, needed).await?;
    let caller = caller.ok_or_else(call::not_valid)?;
    caller.check(control, auth)?;
    Ok(Some(caller))
}
