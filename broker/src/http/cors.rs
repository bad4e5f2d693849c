//! Pages of other origins: who may read answers (Fetch, "CORS protocol").
//!
//! A page shows its credential itself; none comes along with the browser. So a page that is not
//! listed can do no harm here, and is only kept from reading.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderValue, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

/// Origins of pages that may read answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cors(Vec<String>);

/// Every page may.
const ANY: &str = "*";

/// What a page may send, beside what every page may.
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, X-FluxMQ-Client-ID, X-FluxMQ-Username",
);

/// Seconds for which a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

impl Cors {
    pub(crate) fn new(origins: &[String]) -> Cors {
        Cors(origins.to_vec())
    }

    /// Whether a browser asks what a page may do.
    pub(crate) fn is_preflight(parts: &Parts) -> bool {
        parts.method == Method::OPTIONS
            && parts.headers.contains_key(ORIGIN)
            && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Adds to an answer what lets the page at `origin` read it; whether it may.
    pub(crate) fn allow(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) -> bool {
        if self.0.is_empty() {
            return false;
        }
        // Caches must not give one page's answer to another.
        answer.insert(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin.filter(|origin| self.lists(origin)) else {
            return false;
        };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let more = HeaderValue::from_static("Retry-After");
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, more);
        true
    }

    /// Adds what a browser wants to know before it sends a page's request.
    pub(crate) fn tell(answer: &mut HeaderMap) {
        let methods = HeaderValue::from_static("GET, POST");
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    }

    fn lists(&self, origin: &HeaderValue) -> bool {
        let listed = |known: &String| known == ANY || known.as_bytes() == origin.as_bytes();
        self.0.iter().any(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_pages_may_read() {
        let page = HeaderValue::from_static("https://console.example");
        let allowed = |origins: &[&str], origin: Option<&HeaderValue>| {
            let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
            let mut headers = HeaderMap::new();
            let may = Cors::new(&origins).allow(origin, &mut headers);
            let told = headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned();
            assert_eq!(may, told.is_some());
            assert_eq!(headers.contains_key(VARY), !origins.is_empty());
            told
        };
        assert_eq!(allowed(&[], Some(&page)), None);
        assert_eq!(allowed(&["https://console.example"], None), None);
        assert_eq!(allowed(&["https://console.example.org"], Some(&page)), None);
        assert_eq!(allowed(&["http://console.example"], Some(&page)), None);
        let listed = ["https://other.example", "https://console.example"];
        assert_eq!(allowed(&listed, Some(&page)), Some(page.clone()));
        assert_eq!(allowed(&["*"], Some(&page)), Some(page));
    }
}
