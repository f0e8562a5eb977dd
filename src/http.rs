//! The small HTTP client of the tools.

use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An RFC 9457 problem document, as far as people are shown it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    error_code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
}

/// A client that goes straight to where it is told to: the tools talk to the user's own processes.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT);
    builder.build().context("cannot set up an HTTP client")
}

/// What an answer that is no success says, in one line.
pub(crate) fn explain(status: u16, body: &[u8]) -> String {
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        let text: String = String::from_utf8_lossy(body).trim().chars().filter(|c| !c.is_control()).take(200).collect();
        return if text.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {text}") };
    };
    let words = problem.detail.or(problem.title).unwrap_or_default();
    match problem.error_code {
        Some(code) => format!("HTTP {status} {code}: {words}"),
        None => format!("HTTP {status}: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_in_one_line() {
        let problem = br#"{"title":"Unauthorized","errorCode":"TOKEN_EXPIRED","detail":"exp has passed"}"#;
        assert_eq!(explain(401, problem), "HTTP 401 TOKEN_EXPIRED: exp has passed");
        assert_eq!(explain(502, b"<html>\n"), "HTTP 502: <html>");
        assert_eq!(explain(500, b""), "HTTP 500");
    }
}
