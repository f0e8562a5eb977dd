//! Tokens: who a client is, what it may subscribe to and publish, and until when.
//!
//! A token is checked with the one key that it names, by the one algorithm of that key. What it says of itself is believed
//! after that, and only as long as no revocation names it.

mod claims;
mod fetch;
mod follow;
mod head;
mod key;
mod key_set;
mod keyring;
mod revoked;

use std::collections::BTreeMap;
use std::sync::Arc;

use akis_model::{Allowlist, ErrorCode};
use akis_service::config::{AuthConfig, Limits, Role};

use self::claims::{ClaimedLimits, Claims, date_ms};
use self::head::Head;
use self::keyring::Keyring;
use crate::gateway::GatewayError;
use crate::metrics::Metrics;
use crate::problem::Problem;

pub(crate) use self::follow::Follower;
#[cfg(test)]
pub(crate) use self::revoked::Revocation;
pub(crate) use self::revoked::{Revocations, check_event};

/// Says what is wrong with the keys of a configuration, a line for each.
pub fn check_keys(config: &AuthConfig) -> Vec<String> {
    Keyring::new(config).err().unwrap_or_default()
}

/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// How far the clocks of issuer and gateway may disagree, for `nbf` only: `exp` is taken by the letter.
const NOT_BEFORE_LEEWAY_MS: i64 = 1000;

/// Seconds after which a client may try again that came before the first key.
const RETRY_AFTER_S: u64 = 1;

/// What a token gives.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    /// `sub`.
    pub(crate) subject: Arc<str>,
    /// `jti`, by which this token alone can be revoked.
    pub(crate) jti: Option<Arc<str>>,
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
    /// A revocation names it.
    #[error("the token has been revoked")]
    Revoked,
    /// Its key may be in a set that is being fetched: to be checked again when that has ended, a few seconds at most.
    #[error("the key that the token names is not known yet")]
    KeyPending,
    /// Its key may be in a set that could not be fetched since the start.
    #[error("the keys to check the token with have not been fetched yet")]
    NoKeys,
    /// Anything else; the text says what.
    #[error("{0}")]
    Invalid(String),
}

impl AuthError {
    /// The `errorCode` for it.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Expired => ErrorCode::TokenExpired,
            Self::NoKeys => ErrorCode::UpstreamUnavailable,
            Self::Revoked | Self::KeyPending | Self::Invalid(_) => ErrorCode::TokenInvalid,
        }
    }
}

/// Checks tokens against the configuration.
pub(crate) struct Authenticator {
    keys: Keyring,
    issuer: Option<String>,
    audience: Option<String>,
    roles: BTreeMap<String, Role>,
    limits: GrantLimits,
    revocations: Revocations,
}

impl Authenticator {
    /// Takes the keys and roles of the configuration.
    ///
    /// # Errors
    ///
    /// [`GatewayError::NoKeys`] without secret and keys, [`GatewayError::Keys`] when one of them cannot be used.
    pub(crate) fn new(config: &AuthConfig, limits: &Limits) -> Result<Self, GatewayError> {
        if config.secret.is_none() && config.keys.is_empty() {
            return Err(GatewayError::NoKeys);
        }
        Ok(Self {
            keys: Keyring::new(config).map_err(|mistakes| GatewayError::Keys(mistakes.join("; ")))?,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            roles: config.roles.clone(),
            limits: GrantLimits {
                channels: limits.channels,
                messages_per_second: limits.messages_per_second,
                burst: limits.burst,
            },
            revocations: Revocations::default(),
        })
    }

    /// What is revoked.
    pub(crate) fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Whether there is any key to check tokens with yet. One is enough to serve those who have a token of that key: that another
    /// provider of keys is away, maybe for good, is no reason to send them elsewhere, where it is away too.
    pub(crate) fn has_keys(&self) -> bool {
        self.keys.has_keys()
    }

    /// Whether a token's key may have to be waited for.
    pub(crate) fn fetches_keys(&self) -> bool {
        self.keys.has_sets()
    }

    /// Waits while the key of this token is being fetched, so that [`Authenticator::check`] need not be asked twice.
    pub(crate) async fn settle(&self, token: &str) {
        if token.len() <= MAX_TOKEN_BYTES {
            self.keys.settle(token).await;
        }
    }

    /// Keeps key sets fetched, until dropped; returns at once when none is configured.
    pub(crate) async fn keep_keys_fetched(&self, metrics: &Metrics) {
        self.keys.set_ids().for_each(|id| metrics.begin_key_set(id));
        self.keys.keep_fetched(|id, succeeded| metrics.key_fetch(id, succeeded)).await;
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
        let head = Head::parse(token)?;
        let key = self.keys.find(&head)?;
        let claims = key.verify(token).map_err(|error| AuthError::Invalid(error.to_string()))?;
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
        let grant = self.grant(subject, expires_at_ms, &claims);
        if self.revocations.include(&grant, now_ms) { Err(AuthError::Revoked) } else { Ok(grant) }
    }

    /// As [`Authenticator::check`], for a token that [`Authenticator::settle`] was asked for: whoever waited for a set's first fetch waited
    /// in vain.
    ///
    /// # Errors
    ///
    /// [`AuthError`] says what is wrong with it.
    pub(crate) fn check_settled(&self, token: &str, now_ms: i64) -> Result<Grant, AuthError> {
        self.check(token, now_ms).map_err(|error| match error {
            AuthError::KeyPending if Head::parse(token).is_ok_and(|head| self.keys.lacks_keys(&head)) => {
                AuthError::NoKeys
            }
            error => error,
        })
    }

    fn check_origin(&self, claims: &Claims) -> Result<(), AuthError> {
        if self.issuer.is_some() && claims.iss != self.issuer {
            return Err(invalid("the token's iss is not the configured issuer"));
        }
        let Some(audience) = &self.audience else { return Ok(()) };
        let is_meant = claims.aud.as_ref().is_some_and(|aud| aud.includes(audience));
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
            jti: claims.jti.as_deref().map(Arc::from),
            channels: patterns(&claims.channels, |role| &role.channels),
            publish: patterns(&claims.publish, |role| &role.publish),
            expires_at_ms,
            limits: self.limits_of(&roles, &claims.limits),
        }
    }

    /// Roles may lower the server's limits, of several the widest counts, and the token may lower what is left. A lower rate lowers the burst
    /// in proportion.
    fn limits_of(&self, roles: &[&Role], claimed: &ClaimedLimits) -> GrantLimits {
        let server = self.limits;
        let channels = roles.iter().filter_map(|role| role.limits.channels).max();
        let channels = channels.map_or(server.channels, |of_roles| of_roles.min(server.channels));
        let rate = roles.iter().filter_map(|role| role.limits.messages_per_second).max();
        let rate = rate.map_or(server.messages_per_second, |of_roles| of_roles.min(server.messages_per_second));
        let rate = claimed
            .messages_per_second
            .and_then(|claimed| u32::try_from(claimed).ok())
            .unwrap_or(rate)
            .min(rate)
            .max(1);
        let burst = u64::from(server.burst) * u64::from(rate) / u64::from(server.messages_per_second.max(1));
        GrantLimits {
            channels: claimed
                .channels
                .and_then(|claimed| usize::try_from(claimed).ok())
                .unwrap_or(channels)
                .min(channels),
            messages_per_second: rate,
            burst: u32::try_from(burst).unwrap_or(u32::MAX).max(1),
        }
    }
}

fn invalid(what: &str) -> AuthError {
    AuthError::Invalid(what.to_owned())
}

impl From<&AuthError> for Problem {
    fn from(error: &AuthError) -> Self {
        match error {
            AuthError::NoKeys => Self::unavailable(error.code(), error.to_string(), RETRY_AFTER_S),
            AuthError::Expired | AuthError::Revoked | AuthError::KeyPending | AuthError::Invalid(_) => {
                Self::unauthorized(error.code(), error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests;
