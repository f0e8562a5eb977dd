//! Looking whether the exchange is there.

use tokio::net::TcpStream;

use super::config::{Config, Transport};
use super::lines;
use crate::registry::Settings;

/// Waits for a datagram of any line, or connects to the server of the feed; and connects to GLIMPSE, where it is
/// configured.
///
/// # Errors
///
/// In a few words, what did not answer.
pub async fn probe(settings: Settings) -> Result<(), String> {
    let config = Config::read(&settings).map_err(|wrong| wrong.join("; "))?;
    let feed = async {
        match &config.transport {
            Transport::Mold(at) => {
                let sockets = lines::open(at).map_err(|error| error.to_string())?;
                sockets.heard().await.map_err(|error| error.to_string())
            }
            Transport::Soup(address) => reach(address).await,
        }
    };
    let glimpse = async {
        match &config.glimpse {
            Some(address) => reach(address).await,
            None => Ok(()),
        }
    };
    tokio::try_join!(feed, glimpse).map(|_| ())
}

async fn reach(address: &str) -> Result<(), String> {
    TcpStream::connect(address).await.map(drop).map_err(|error| format!("{address}: {error}"))
}
