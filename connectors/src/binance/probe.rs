//! Looking whether the venue is there.

use tokio_tungstenite::connect_async;

use super::config::Config;
use crate::http;

/// Asks both of the venue's addresses. A proxy or a censor often lets one of them through.
///
/// # Errors
///
/// In a few words, what did not answer.
pub async fn probe(config: Config) -> Result<(), String> {
    let rest = async {
        let client = http::client().map_err(|error| format!("no HTTP client: {error}"))?;
        let url = format!("{}{}/ping", config.rest_url, config.market.rest);
        let answer = client.get(url).send().await.map_err(|error| http::innermost(&error))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("REST answers HTTP {}", status.as_u16())) }
    };
    let streams = async {
        let url = format!("{}{}", config.ws_url, config.market.tape_path);
        let (socket, _) = connect_async(url).await.map_err(|error| http::innermost(&error))?;
        drop(socket);
        Ok(())
    };
    Box::pin(async { tokio::try_join!(rest, streams) }).await.map(|_| ())
}
