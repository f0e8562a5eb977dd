//! Answers that can be asked for again at little cost: RFC 9110 section 13.1.2.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

use crate::digest::digest;

/// Answers with a JSON text, or with 304 when the client has it.
pub(super) fn json(asked: &HeaderMap, text: String) -> Response {
    let tag = format!("\"{:x}-{:016x}\"", text.len(), digest(text.as_bytes()));
    let is_known = matches(asked, &tag);
    let mut response = Response::new(if is_known { Body::empty() } else { Body::from(text) });
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    // What a token may see is nobody else's, and is asked for anew each time.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(VARY, HeaderValue::from_static("authorization"));
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

fn matches(asked: &HeaderMap, tag: &str) -> bool {
    let lists = asked.get_all(IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|known| {
        // A proxy that compresses makes a weak tag of it.
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_not_sent_again() {
        let ask = |known: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, known.parse().unwrap());
            json(&headers, "{}".to_owned())
        };
        let first = json(&HeaderMap::new(), "{}".to_owned());
        let tag = first.headers()[ETAG].to_str().unwrap();
        assert_eq!(first.status(), 200);
        for known in [tag, "*", &format!("\"x\", W/{tag}")] {
            let again = ask(known);
            assert_eq!(again.status(), 304, "{known}");
            assert_eq!(again.headers()[ETAG], tag);
        }
        assert_eq!(ask("\"x\"").status(), 200);
    }
}
