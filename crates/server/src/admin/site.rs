//! Keeps web pages out: a browser on this machine reaches the administration,
//! and so may whatever page it shows.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Access;
use super::answer::Failure;

/// Lets a request through that no other site's page can have made.
pub(super) async fn require_own(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(request.headers(), access.is_open()) {
        None => next.run(request).await,
        Some(why) => Failure::forbidden(why).into_response(),
    }
}

fn refusal(headers: &HeaderMap, is_open: bool) -> Option<&'static str> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(HOST);
    // Browsers say which page asks, unless it only reads, and then they do not
    // show it the answer.
    let is_own = |origin: &str| origin.split_once("://").map(|(_, place)| place) == host;
    if !text(ORIGIN).is_none_or(is_own) {
        return Some("requests from the pages of other sites are refused");
    }
    // A name can be made to lead to this machine by whoever owns it, and then
    // the browser takes the answer for that site's. An address cannot.
    let is_address = host.is_none_or(names_this_machine);
    (is_open && !is_address).then_some(
        "without a password, the administration answers only under an IP address or localhost; \
         use one of them, or set a password",
    )
}

fn names_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(host: &str, origin: Option<&str>, is_open: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().expect("it is a header"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("it is a header"));
        }
        refusal(&headers, is_open).is_some()
    }

    #[test]
    fn pages_of_other_sites_are_kept_out() {
        for (host, origin, refused) in [
            ("127.0.0.1:6381", None, false),
            ("localhost:6381", None, false),
            ("LocalHost", None, false),
            ("[::1]:6381", None, false),
            ("10.0.0.7", None, false),
            ("larder.example:6381", None, true),
            ("127.0.0.1.example", None, true),
            ("", None, true),
            ("127.0.0.1:6381", Some("http://127.0.0.1:6381"), false),
            ("127.0.0.1:6381", Some("http://127.0.0.1:8080"), true),
            ("127.0.0.1:6381", Some("http://evil.example"), true),
            ("127.0.0.1:6381", Some("null"), true),
        ] {
            assert_eq!(is_refused(host, origin, true), refused, "{host} {origin:?}");
        }
        assert!(!is_refused("larder.example", None, false), "a page does not know the password");
        assert!(is_refused("larder.example", Some("http://evil.example"), false));
        assert!(refusal(&HeaderMap::new(), true).is_none(), "no browser leaves the host out");
    }
}
