//! One route, and how a path finds it.

use std::future::Future;
use std::pin::Pin;

use axum::http::{Method, StatusCode};

use super::call::Call;
use super::failure::Failure;
use super::{Reply, routes};
use crate::grant::Kind;

/// Carries out the operation of a route.
pub(super) type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Reply, Failure>> + Send>>;

/// Who may call a route at all; what it then may do is for the operation to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    /// Everybody.
    Open,
    /// Everybody; a token that is there must be good.
    Optional,
    /// A user, by access token or personal access token.
    Any,
    /// A user by access token or API key.
    Login,
    /// A user by access token: tokens for programs manage no tokens.
    Session,
    /// A user by access token, whose e-mail address need not be verified.
    Unverified,
}

/// What a field of a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Text of at most so many characters.
    Text(usize),
    /// Text that is a secret: never shown in an error.
    Secret,
    /// A list of texts.
    Texts,
    /// A text or a list of texts.
    TextOrTexts,
    /// An object.
    Object,
    /// A list of objects.
    Objects,
    /// True or false.
    Flag,
    /// A whole number.
    Whole,
}

/// One field of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) holds: Holds,
    pub(super) required: bool,
}

/// The body that a route takes. Unknown fields are ignored.
#[derive(Clone, Debug)]
pub(super) enum BodyShape {
    /// None; what is sent is not looked at.
    None,
    /// An object.
    Object(Vec<Field>),
    /// An object, or nothing.
    Optional(Vec<Field>),
    /// A list of objects, at least one and at most ten thousand.
    List(Vec<Field>),
}

/// One route.
pub(super) struct Route {
    pub(super) method: Method,
    /// With names of parameters in braces.
    pub(super) path: String,
    pub(super) auth: Auth,
    /// What it does, as in the journal: `client.create`.
    pub(super) operation: String,
    /// Kind of object it is about, if it is one of several alike.
    pub(super) kind: Option<Kind>,
    /// Entity type and operation that a personal access token needs a scope for; without it, no
    /// such token can call the route.
    pub(super) scope: Option<(&'static str, String)>,
    /// Whether the operation itself asks for scopes, for entities that the body names.
    pub(super) scope_in_body: bool,
    pub(super) body: BodyShape,
    /// Names of its query parameters.
    pub(super) query: Vec<&'static str>,
    /// A query parameter that the route stands for.
    pub(super) default_query: Option<(&'static str, &'static str)>,
    pub(super) success: StatusCode,
    /// What it answers: a name among the schemas.
    pub(super) answers: Option<&'static str>,
    pub(super) summary: String,
    pub(super) handler: Handler,
}

/// Parameters of a path: names and values.
pub(super) type Params = Vec<(String, String)>;

/// A route that a path leads to.
pub(super) struct Found {
    pub(super) route: &'static Route,
    pub(super) params: Params,
}

/// The decoded segments of a path; a slash at the end does not count.
///
/// # Errors
/// A segment is no text.
pub(super) fn segments(path: &str) -> Result<Vec<String>, Failure> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/')
        .map(|segment| {
            super::query::decode(segment, false)
                .ok_or_else(|| Failure::bad("the path is no text; expected UTF-8 without NUL"))
        })
        .collect()
}

/// The route for a method and path; none if no route has the path.
///
/// # Errors
/// The path is served, but not with this method.
pub(super) fn find(method: &Method, segments: &[String]) -> Result<Option<Found>, Failure> {
    let method = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let mut best: Option<(Vec<bool>, Found)> = None;
    let mut served = false;
    for route in routes::all() {
        let Some((literal, params)) = matches(&route.path, segments) else {
            continue;
        };
        served = true;
        // The path that is literal earlier is the more particular one.
        let better = best.as_ref().is_none_or(|(known, _)| literal > *known);
        if route.method == *method && better {
            best = Some((literal, Found { route, params }));
        }
    }
    match best {
        Some((_, found)) => Ok(Some(found)),
        None if served => Err(Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{method} is not served here"),
        )),
        None => Ok(None),
    }
}

/// For each segment whether the pattern is literal there, and the values of its parameters.
fn matches(pattern: &str, segments: &[String]) -> Option<(Vec<bool>, Params)> {
    let mut parts = pattern.trim_start_matches('/').split('/');
    let (mut literal, mut params) = (Vec::with_capacity(segments.len()), Vec::new());
    for segment in segments {
        let part = parts.next()?;
        match part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
        {
            Some(_) if segment.is_empty() => return None,
            Some(name) => {
                params.push((name.to_owned(), segment.clone()));
                literal.push(false);
            }
            None if part == segment => literal.push(true),
            None => return None,
        }
    }
    parts.next().is_none().then_some((literal, params))
}
