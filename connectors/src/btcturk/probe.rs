//! Looking whether the venue is there.

use tokio_tungstenite::connect_async;

use super::config::Config;
use crate::http;

/// Asks the socket and REST. A proxy or a censor often lets one of them through.
///
/// # Errors
///
/// In a few words, what did not answer.
pub async fn probe(config: Config) -> Result<(), String> {
    let rest = async {
        let client = http::client().map_err(|error| format!("no HTTP client: {error}"))?;
        let url = format!("{}/api/v2/server/ping", config.rest_url);
        let answer = client.get(url).send().await.map_err(|error| http::innermost(&error))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("REST answers HTTP {}", status.as_u16())) }
    };
    let socket = async {
        let (socket, _) =
            connect_async(format!("{}/", config.ws_url)).await.map_err(|error| http::innermost(&error))?;
        drop(socket);
        Ok(())
    };
    Box::pin(async { tokio::try_join!(rest, socket) }).await.map(|_| ())
}
