//! The claims of a token that are looked at, and what they mean.

use serde::Deserialize;
use serde_json::Number;

/// The claims. Those that must be there are optional here, so that their absence can be named.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) sub: Option<String>,
    pub(super) jti: Option<String>,
    pub(super) exp: Option<Number>,
    pub(super) nbf: Option<Number>,
    pub(super) iss: Option<String>,
    pub(super) aud: Option<Audience>,
    #[serde(default)]
    pub(super) channels: Vec<String>,
    #[serde(default)]
    pub(super) publish: Vec<String>,
    #[serde(default)]
    pub(super) roles: Vec<String>,
    #[serde(default)]
    pub(super) limits: ClaimedLimits,
}

/// `aud`: one, or several (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    /// Whether the token is meant for `name`.
    pub(super) fn includes(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(all) => all.iter().any(|one| one == name),
        }
    }
}

/// `limits`. One that no limit of a server can reach lowers nothing.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClaimedLimits {
    pub(super) channels: Option<u64>,
    pub(super) messages_per_second: Option<u64>,
}

/// A NumericDate (RFC 7519 section 2: seconds, perhaps with a fraction) in milliseconds.
pub(super) fn date_ms(date: &Number) -> Option<i64> {
    if let Some(seconds) = date.as_u64() {
        return Some(i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX));
    }
    let seconds = date.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
    Some((seconds * 1000.0) as i64)
}
