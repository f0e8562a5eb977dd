//! Tokens: who a client is, what it may subscribe to and publish, and until when.

use std::collections::BTreeMap;
use std::sync::Arc;

use akis_model::{Allowlist, ErrorCode};
use akis_service::config::{AuthConfig, Limits, Role};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Number, Value};

use crate::gateway::GatewayError;
use crate::problem::Problem;

/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// How far the clocks of issuer and gateway may disagree, for `nbf` only: `exp` is taken by the letter.
const NOT_BEFORE_LEEWAY_MS: i64 = 1000;

/// What a token gives.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    /// `sub`.
    pub(crate) subject: Arc<str>,
    /// What it may subscribe to.
    pub(crate) channels: Allowlist,
    /// What it may publish to.
    pub(crate) publish: Allowlist,
    /// `exp`, in milliseconds since the epoch.
    pub(crate) expires_at_ms: i64,
    /// What it may take.
    pub(crate) limits: GrantLimits,
}

/// What one connection under a token may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GrantLimits {
    /// Channels at once.
    pub(crate) channels: usize,
    /// Messages a second.
    pub(crate) messages_per_second: u32,
    /// Messages at once.
    pub(crate) burst: u32,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    /// Its `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// Anything else; the text says what.
    #[error("{0}")]
    Invalid(String),
}

impl AuthError {
    /// The `errorCode` for it.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Expired => ErrorCode::TokenExpired,
            Self::Invalid(_) => ErrorCode::TokenInvalid,
        }
    }
}

/// Checks tokens against the configuration.
pub(crate) struct Authenticator {
    key: DecodingKey,
    validation: Validation,
    issuer: Option<String>,
    audience: Option<String>,
    roles: BTreeMap<String, Role>,
    limits: GrantLimits,
}

/// The claims that are looked at. Those that must be there are optional here, so that their absence can be named.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<Number>,
    nbf: Option<Number>,
    iss: Option<String>,
    aud: Option<OneOrMany>,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    limits: ClaimedLimits,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ClaimedLimits {
    channels: Option<u32>,
    messages_per_second: Option<u32>,
}

impl Authenticator {
    /// Takes the keys and roles of the configuration.
    ///
    /// # Errors
    ///
    /// [`GatewayError::NoSecret`] without a secret.
    pub(crate) fn new(config: &AuthConfig, limits: &Limits) -> Result<Self, GatewayError> {
        let secret = config.secret.as_ref().ok_or(GatewayError::NoSecret)?;
        let mut validation = Validation::new(Algorithm::HS256);
        // Claims are checked here, against the clock that is passed in and with errors that say which.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Ok(Self {
            key: DecodingKey::from_secret(secret.expose().as_bytes()),
            validation,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            roles: config.roles.clone(),
            limits: GrantLimits {
                channels: limits.channels,
                messages_per_second: limits.messages_per_second,
                burst: limits.burst,
            },
        })
    }

    /// Checks a token.
    ///
    /// # Errors
    ///
    /// [`AuthError`] says what is wrong with it.
    pub(crate) fn check(&self, token: &str, now_ms: i64) -> Result<Grant, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid("the token is longer than 8 KiB"));
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| explain(token, &error))?
            .claims;
        let subject =
            claims.sub.as_deref().filter(|sub| !sub.is_empty()).ok_or_else(|| invalid("the token has no sub"))?;
        let exp = claims.exp.as_ref().ok_or_else(|| invalid("the token has no exp"))?;
        let expires_at_ms = date_ms(exp).ok_or_else(|| invalid("the token's exp is no time"))?;
        self.check_origin(&claims)?;
        if let Some(nbf) = &claims.nbf {
            let begins_at_ms = date_ms(nbf).ok_or_else(|| invalid("the token's nbf is no time"))?;
            if begins_at_ms > now_ms.saturating_add(NOT_BEFORE_LEEWAY_MS) {
                return Err(invalid("the token is not valid yet (nbf)"));
            }
        }
        if expires_at_ms <= now_ms {
            return Err(AuthError::Expired);
        }
        Ok(self.grant(subject, expires_at_ms, &claims))
    }

    fn check_origin(&self, claims: &Claims) -> Result<(), AuthError> {
        if self.issuer.is_some() && claims.iss != self.issuer {
            return Err(invalid("the token's iss is not the configured issuer"));
        }
        let Some(audience) = &self.audience else { return Ok(()) };
        let is_meant = match &claims.aud {
            Some(OneOrMany::One(aud)) => aud == audience,
            Some(OneOrMany::Many(all)) => all.contains(audience),
            None => false,
        };
        if is_meant { Ok(()) } else { Err(invalid("the token's aud is not the configured audience")) }
    }

    fn grant(&self, subject: &str, expires_at_ms: i64, claims: &Claims) -> Grant {
        let roles: Vec<&Role> = claims.roles.iter().filter_map(|name| self.roles.get(name)).collect();
        let patterns = |own: &[String], of_role: fn(&Role) -> &[String]| {
            let of_roles = roles.iter().flat_map(|role| of_role(role));
            Allowlist::new(subject, own.iter().chain(of_roles).map(String::as_str))
        };
        Grant {
            subject: subject.into(),
            channels: patterns(&claims.channels, |role| &role.channels),
            publish: patterns(&claims.publish, |role| &role.publish),
            expires_at_ms,
            limits: self.limits_of(&roles, &claims.limits),
        }
    }

    /// Roles stand in place of the server's limits, the widest of several; the token itself may only lower them. A lower rate lowers the burst
    /// in proportion.
    fn limits_of(&self, roles: &[&Role], claimed: &ClaimedLimits) -> GrantLimits {
        let server = self.limits;
        let channels = roles.iter().filter_map(|role| role.limits.channels).max().unwrap_or(server.channels);
        let rate = roles.iter().filter_map(|role| role.limits.messages_per_second).max();
        let rate = rate.unwrap_or(server.messages_per_second);
        let rate = claimed.messages_per_second.map_or(rate, |claimed| claimed.min(rate)).max(1);
        let burst = u64::from(server.burst) * u64::from(rate) / u64::from(server.messages_per_second.max(1));
        GrantLimits {
            channels: claimed.channels.map_or(channels, |claimed| channels.min(claimed as usize)),
            messages_per_second: rate,
            burst: u32::try_from(burst).unwrap_or(u32::MAX).max(1),
        }
    }
}

fn invalid(what: &str) -> AuthError {
    AuthError::Invalid(what.to_owned())
}

/// A NumericDate (RFC 7519 section 2: seconds, perhaps with a fraction) in milliseconds.
fn date_ms(date: &Number) -> Option<i64> {
    if let Some(seconds) = date.as_u64() {
        return Some(i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX));
    }
    let seconds = date.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
    Some((seconds * 1000.0) as i64)
}

/// Says what is wrong with a token that could not be decoded.
fn explain(token: &str, error: &jsonwebtoken::errors::Error) -> AuthError {
    let algorithm = token
        .split('.')
        .next()
        .and_then(|head| BASE64_URL_SAFE_NO_PAD.decode(head).ok())
        .and_then(|head| serde_json::from_slice::<Value>(&head).ok())
        .and_then(|head| head.get("alg").and_then(Value::as_str).map(str::to_owned));
    match (algorithm, error.kind()) {
        (None, _) => invalid("the token is not a JWT"),
        (Some(algorithm), _) if algorithm != "HS256" => invalid("the token's alg is not allowed, only HS256 is"),
        // Changed by a character, a signature is often not even base64.
        (Some(_), ErrorKind::InvalidSignature | ErrorKind::Base64(_)) => invalid("the token's signature is wrong"),
        (Some(_), ErrorKind::Json(error)) => invalid(&format!("the token's claims cannot be read: {error}")),
        (Some(_), _) => invalid("the token is not a JWT"),
    }
}

impl From<&AuthError> for Problem {
    fn from(error: &AuthError) -> Self {
        Self::unauthorized(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use akis_model::Channel;
    use akis_service::config::{RoleLimits, Secret};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW_MS: i64 = 1_000_000_000;

    fn sign(claims: &Value) -> String {
        encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    fn config() -> AuthConfig {
        AuthConfig { secret: Some(Secret::new(SECRET)), ..AuthConfig::default() }
    }

    fn check(config: &AuthConfig, token: &str) -> Result<Grant, AuthError> {
        Authenticator::new(config, &Limits::default()).unwrap().check(token, NOW_MS)
    }

    #[test]
    fn says_what_is_wrong_with_a_token() {
        let good = sign(&json!({ "sub": "a", "exp": 1_000_100 }));
        let (head, signature) = good.rsplit_once('.').unwrap();
        let none = format!("{}.e30.", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        let other = encode(
            &Header::new(Algorithm::HS512),
            &json!({ "sub": "a", "exp": 1_000_100 }),
            &EncodingKey::from_secret(SECRET.as_bytes()),
        )
        .unwrap();
        for (token, expected) in [
            (String::new(), "not a JWT"),
            ("a.b".to_owned(), "not a JWT"),
            ("x".repeat(9000), "longer than 8 KiB"),
            (none, "alg"),
            (other, "alg"),
            (format!("{head}.{}", signature.chars().rev().collect::<String>()), "signature"),
            (sign(&json!({ "exp": 1_000_100 })), "no sub"),
            (sign(&json!({ "sub": "", "exp": 1_000_100 })), "no sub"),
            (sign(&json!({ "sub": "a" })), "no exp"),
            (sign(&json!({ "sub": "a", "exp": "soon" })), "claims"),
            (sign(&json!({ "sub": "a", "exp": -5 })), "exp is no time"),
            (sign(&json!({ "sub": "a", "exp": 1_000_000 })), "expired"),
            (sign(&json!({ "sub": "a", "exp": 1_000_100, "nbf": 1_000_002 })), "nbf"),
            (sign(&json!({ "sub": "a", "exp": 1_000_100, "channels": "a:*" })), "claims"),
        ] {
            let error = check(&config(), &token).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error} should speak of {expected}");
            assert_eq!(error == AuthError::Expired, expected == "expired");
        }
        assert_eq!(check(&config(), &good).unwrap().expires_at_ms, 1_000_100_000);
        let fraction = sign(&json!({ "sub": "a", "exp": 1_000_000.5 }));
        assert_eq!(check(&config(), &fraction).unwrap().expires_at_ms, 1_000_000_500);
    }

    #[test]
    fn issuer_and_audience_are_checked_where_configured() {
        let config = AuthConfig { issuer: Some("me".into()), audience: Some("you".into()), ..config() };
        let token = |iss: Value, aud: Value| sign(&json!({ "sub": "a", "exp": 2_000_000, "iss": iss, "aud": aud }));
        assert!(check(&config, &token(json!("me"), json!("you"))).is_ok());
        assert!(check(&config, &token(json!("me"), json!(["x", "you"]))).is_ok());
        assert!(check(&config, &token(json!("x"), json!("you"))).is_err());
        assert!(check(&config, &token(json!("me"), json!("x"))).is_err());
        assert!(check(&config, &sign(&json!({ "sub": "a", "exp": 2_000_000 }))).is_err());
    }

    #[test]
    fn roles_add_patterns_and_a_token_lowers_limits() {
        let role = Role {
            channels: vec!["binance:*".into()],
            publish: vec!["job:{sub}:*".into()],
            limits: RoleLimits { channels: Some(50), messages_per_second: None },
        };
        let config = AuthConfig { roles: [("desk".to_owned(), role)].into(), ..config() };
        let grant = |limits: Value| {
            let claims =
                json!({ "sub": "a", "exp": 2_000_000, "channels": ["x:y"], "roles": ["desk", "?"], "limits": limits });
            check(&config, &sign(&claims)).unwrap()
        };
        let allowed = grant(json!({}));
        let channel = |name| Channel::parse(name).unwrap();
        assert!(allowed.channels.allows(&channel("binance:X:book")));
        assert!(allowed.channels.allows(&channel("x:y")));
        assert!(!allowed.channels.allows(&channel("x:z")));
        assert!(allowed.publish.allows(&channel("job:a:1")));
        assert!(!allowed.publish.allows(&channel("x:y")));
        assert_eq!(allowed.limits, GrantLimits { channels: 50, messages_per_second: 20, burst: 100 });
        let lowered = grant(json!({ "channels": 3, "messagesPerSecond": 2 })).limits;
        assert_eq!(lowered, GrantLimits { channels: 3, messages_per_second: 2, burst: 10 });
        let raised = grant(json!({ "channels": 300, "messagesPerSecond": 2000 })).limits;
        assert_eq!(raised, allowed.limits, "a token cannot raise what the server allows");
    }
}
