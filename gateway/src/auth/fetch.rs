//! Fetches key sets: bounded in time and size, and from nowhere but the address that is configured.

use std::time::Duration;

use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

/// How long one fetch may take in all.
const FETCH_WITHIN: Duration = Duration::from_secs(5);

/// Largest set that is read. A set of 100 RSA keys with their certificates stays below it.
const MAX_BYTES: usize = 512 << 10;

/// What was fetched.
pub(super) struct Fetched {
    /// The body.
    pub(super) text: Vec<u8>,
    /// How long the server says that it may be kept.
    pub(super) max_age: Option<Duration>,
}

/// Why a set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// It took too long.
    #[error("no answer within {} s", FETCH_WITHIN.as_secs())]
    Late,
    /// No connection, or a broken one.
    #[error("{}", deepest(.0))]
    Http(#[from] reqwest::Error),
    /// Another status than 200, a redirect included: who may redirect could name keys of his own.
    #[error("answered with status {0}")]
    Status(StatusCode),
    /// Something else than JSON.
    #[error("the answer is no JSON by its Content-Type")]
    Type,
    /// More than is read.
    #[error("the answer is larger than {MAX_BYTES} bytes")]
    Size,
    /// JSON, but no key set.
    #[error("the answer is no key set: {0}")]
    Set(#[from] serde_json::Error),
}

/// The cause that says most; the outer ones repeat the address, which may hold a password.
fn deepest(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::error::Error::source(error).is_some() { cause.to_string() } else { "the request failed".to_owned() }
}

/// An HTTP client for key sets.
pub(super) struct Fetcher(Client);

impl Fetcher {
    /// A client that trusts the usual authorities, and those of the system where it has any.
    pub(super) fn new() -> Result<Self, String> {
        let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        // A company's own authority is known to the system alone; a container may have none.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder().tls_backend_preconfigured(tls).redirect(Policy::none()).no_proxy().build();
        client.map(Self).map_err(|error| error.to_string())
    }

    /// Fetches once.
    pub(super) async fn fetch(&self, url: &str) -> Result<Fetched, FetchError> {
        let fetching = async {
            let response = self.0.get(url).send().await?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            if !is_json(response.headers()) {
                return Err(FetchError::Type);
            }
            let max_age = max_age(response.headers());
            Ok(Fetched { text: read(response).await?, max_age })
        };
        timeout(FETCH_WITHIN, fetching).await.unwrap_or(Err(FetchError::Late))
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, FetchError> {
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if text.len() + chunk.len() > MAX_BYTES {
            return Err(FetchError::Size);
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// `application/json`, `application/jwk-set+json` and the like, or nothing said.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let media_type =
        value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut parts = values.flat_map(|value| value.split(',')).map(str::trim);
    let seconds = parts.find_map(|part| part.strip_prefix("max-age=")?.parse().ok())?;
    Some(Duration::from_secs(seconds))
}
