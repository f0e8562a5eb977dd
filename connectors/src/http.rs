//! What the REST calls of all venues have in common: the client, bounded bodies, and texts in addresses.

use std::fmt::Write as _;
use std::time::Duration;

use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// A request that takes longer is made again.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest body taken: every symbol of the venue in one `exchangeInfo` stays below it.
const MAX_BODY_BYTES: usize = 32 << 20;

/// No venue shuts anybody out for longer: Binance bans addresses for up to 3 days.
/// Source: <https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits>.
const MOST_HOLD: Duration = Duration::from_secs(3 * 24 * 3_600);

/// The client for all calls. It takes no proxy from the environment, for the streams could not either.
pub(crate) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()
}

/// The number that a header of a response holds.
pub(crate) fn number(response: &Response, name: &str) -> Option<u64> {
    response.headers().get(name)?.to_str().ok()?.trim().parse().ok()
}

/// How long the venue wants nothing more, where it says so in seconds.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MOST_HOLD))
}

/// Why a body cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("the body has more than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    #[error("the body is not UTF-8")]
    NotText,
}

/// Reads a whole body, as far as it is text of a bounded size.
///
/// # Errors
///
/// [`BodyError::Http`] when the connection fails, the others for what came.
pub(crate) async fn body(mut response: Response) -> Result<String, BodyError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| BodyError::NotText)
}

/// Percent-encodes a value of a query. Source: RFC 3986 section 2.3.
pub(crate) fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The cause that says most: `connection refused` rather than `error sending request`.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_venue_holds_nobody_for_longer_than_any_does() {
        for (said, hold) in [
            ("7", Some(Duration::from_secs(7))),
            (" 0 ", Some(Duration::ZERO)),
            ("18446744073709551615", Some(MOST_HOLD)),
            ("18446744073709551616", None),
            ("-1", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, said.parse().unwrap())]);
            assert_eq!(retry_after(&headers), hold, "{said}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
