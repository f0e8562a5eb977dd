//! Which browser pages may connect: the same origin, and those that are configured.

use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};

/// Whether a request may come from where it says. Without an `Origin` no page sent it.
pub(crate) fn is_allowed(headers: &HeaderMap, configured: &[String]) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if configured.iter().any(|allowed| allowed.trim_end_matches('/').eq_ignore_ascii_case(origin)) {
        return true;
    }
    // The scheme is not compared: TLS usually ends before this process.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (origin.split_once("://"), host) {
        (Some((_, authority)), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_origin_and_configured_ones() {
        let configured = ["https://desk.example".to_owned()];
        for (origin, expected) in [
            (None, true),
            (Some("http://host:8080"), true),
            (Some("https://HOST:8080"), true),
            (Some("https://desk.example"), true),
            (Some("https://desk.example.evil"), false),
            (Some("http://host"), false),
            (Some("null"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "host:8080".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_allowed(&headers, &configured), expected, "{origin:?}");
        }
    }
}
