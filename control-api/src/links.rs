//! The page behind links in mails. Its token is in the fragment, which browsers send to nobody: no
//! log, no proxy and no `Referer` has it. The page sends it in the body of the call that it is for,
//! once a person has said so; a mail scanner that opens the link changes nothing.

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("links.html");

/// Where the page is: the ends of links.
pub(crate) const VERIFY: &str = "/verify-email";
pub(crate) const RESET: &str = "/password/reset";
pub(crate) const INVITED: &str = "/invitations/accept";

/// A link for a mail.
pub(crate) fn link(public_url: &str, path: &str, token: &str) -> String {
    format!("{public_url}{path}#token={token}")
}

/// The page, which runs its own script alone, talks to its own server alone, and stands in no other
/// page. It offers to register where people may.
pub(crate) fn page(registers: bool) -> Response {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            digest("script"),
            digest("style")
        );
        HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
    });
    let fixed: [(HeaderName, &str); 4] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let policy = [(header::CONTENT_SECURITY_POLICY, POLICY.clone())];
    static REGISTERS: LazyLock<String> =
        LazyLock::new(|| PAGE.replacen("<html ", "<html data-registers ", 1));
    let page = if registers { &**REGISTERS } else { PAGE };
    (fixed, policy, page).into_response()
}

/// What a policy calls the inline element of this name.
fn digest(element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let inner = PAGE
        .split_once(&*open)
        .and_then(|(_, rest)| rest.split_once(&*close));
    let inner = inner.map_or("", |(inner, _)| inner);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(inner)))
}
