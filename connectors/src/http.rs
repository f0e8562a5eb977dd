//! What the REST calls of all venues have in common: the client, bounded bodies, and texts in addresses.

use std::fmt::Write as _;
use std::time::Duration;

use reqwest::Response;

/// A request that takes longer is made again.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest body taken: every symbol of the venue in one `exchangeInfo` stays below it.
const MAX_BODY_BYTES: usize = 32 << 20;

/// The client for all calls. It takes no proxy from the environment, for the streams could not either.
pub(crate) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()
}

/// The number that a header of a response holds.
pub(crate) fn number(response: &Response, name: &str) -> Option<u64> {
    response.headers().get(name)?.to_str().ok()?.trim().parse().ok()
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
