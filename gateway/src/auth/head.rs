//! The head of a token, before anything in it is believed.

use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::AuthError;

/// What the head of a token claims. Fields that point to keys (`jku`, `jwk`, `x5u`, `x5c`) are not even read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// `alg`; `None` when it is no algorithm of signatures (`none` is not).
    pub(super) algorithm: Option<Algorithm>,
    /// `kid`.
    pub(super) kid: Option<String>,
}

/// A name that occurs twice is refused by the reading itself.
#[derive(Deserialize)]
struct Fields {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
    b64: Option<IgnoredAny>,
}

impl Head {
    /// Reads the head of a compact JWS.
    ///
    /// # Errors
    ///
    /// [`AuthError::Invalid`] when it is none, or needs extensions: nothing that `crit` may name is understood
    /// (RFC 7515 section 4.1.11), and a payload that is not base64 (`b64`, RFC 7797) is no JWT.
    pub(super) fn parse(token: &str) -> Result<Self, AuthError> {
        let no_jwt = || AuthError::Invalid("the token is not a JWT".to_owned());
        let mut parts = token.split('.');
        let (Some(head), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(no_jwt());
        };
        let head = BASE64_URL_SAFE_NO_PAD.decode(head).map_err(|_| no_jwt())?;
        let fields: Fields = serde_json::from_slice(&head).map_err(|_| no_jwt())?;
        if fields.crit.is_some() || fields.b64.is_some() {
            return Err(AuthError::Invalid(
                "the token needs extensions that are not understood (crit, b64)".to_owned(),
            ));
        }
        Ok(Self { algorithm: Algorithm::from_str(&fields.alg).ok(), kid: fields.kid })
    }
}
