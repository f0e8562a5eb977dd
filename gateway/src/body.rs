//! Bodies of requests, read within bounds of size and time.

use akis_model::ErrorCode;
use akis_service::config::Limits;
use axum::body::Body;
use axum::http::StatusCode;
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::problem::Problem;

/// A body may be so many times too large and is still read to its end.
const DISCARD_TIMES: usize = 16;

/// Reads a body and gives `take` as much of it as may be. What is too much is read and thrown away, within reason: a client
/// that is still sending when the connection closes would not see why.
///
/// # Errors
///
/// The [`Problem`] when it ended early, is too large, or did not come in time.
pub(crate) async fn read(limits: &Limits, body: Body, mut take: impl FnMut(&[u8])) -> Result<(), Problem> {
    let mut chunks = body.into_data_stream();
    let reading = async {
        let mut seen: usize = 0;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Problem::bad_request("the body ended early"))?;
            seen = seen.saturating_add(chunk.len());
            if seen > limits.publish_bytes.saturating_mul(DISCARD_TIMES) {
                break;
            }
            if seen <= limits.publish_bytes {
                take(&chunk);
            }
        }
        if seen <= limits.publish_bytes {
            return Ok(());
        }
        let detail = format!("the body is larger than {} bytes", limits.publish_bytes);
        Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadRequest, detail))
    };
    timeout(limits.header_timeout, reading).await.unwrap_or_else(|_| {
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, "the body did not come in time"))
    })
}
