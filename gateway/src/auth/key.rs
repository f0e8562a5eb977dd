//! Keys that signatures are checked with, each pinned to the one algorithm that it is used for.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::claims::Claims;

/// Most keys that are taken from one set.
const MAX_KEYS: usize = 100;

/// Bytes of an RSA modulus of 2048 bits. RFC 7518 section 3.3: a key of this size or larger must be used.
const MIN_RSA_BYTES: usize = 256;

/// A key, and what it is good for.
pub(super) struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// Why a key does not accept a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    /// It is not three parts in base64.
    #[error("the token is not a JWT")]
    Shape,
    /// It was not signed with this key.
    #[error("the token's signature is wrong")]
    Signature,
    /// It was signed, and its claims are of other types than they should be.
    #[error("the token's claims cannot be read: {0}")]
    Claims(#[from] serde_json::Error),
}

/// One member of a key set (RFC 7517). What is not needed for a signature is not read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Members are read one by one, so that one that makes no sense does not hide the others.
#[derive(Deserialize)]
struct JwkSet<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// What came of a key set.
pub(super) struct Parsed {
    /// The keys that can be used, by `kid`.
    pub(super) keys: HashMap<String, Arc<Key>>,
    /// How many there were besides.
    pub(super) left_out: usize,
}

impl Key {
    /// The shared secret, for HS256 alone.
    pub(super) fn from_secret(secret: &str) -> Self {
        Self { algorithm: Algorithm::HS256, decoding: DecodingKey::from_secret(secret.as_bytes()) }
    }

    /// A public key from a file's text.
    ///
    /// # Errors
    ///
    /// Says why it cannot be used with this algorithm.
    pub(super) fn from_pem(algorithm: Algorithm, pem: &str) -> Result<Self, String> {
        if !pem.contains("-----BEGIN PUBLIC KEY-----") && !pem.contains("-----BEGIN RSA PUBLIC KEY-----") {
            return Err("is no public key: it must begin with \"-----BEGIN PUBLIC KEY-----\"".to_owned());
        }
        let unfit = |_| format!("is no key for {algorithm:?}");
        let decoding = match algorithm.family() {
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
            AlgorithmFamily::Hmac => return Err("is public, which no key for HMAC may be".to_owned()),
        }
        .map_err(unfit)?;
        check_size(algorithm, decoding.try_get_as_bytes().map_or(0, <[u8]>::len))?;
        Ok(Self { algorithm, decoding })
    }

    /// A member of a key set. What it says of its algorithm may only agree.
    fn from_jwk(algorithm: Algorithm, jwk: &Jwk) -> Result<Self, String> {
        if jwk.alg.as_ref().is_some_and(|alg| *alg != format!("{algorithm:?}")) {
            return Err("is for another alg".to_owned());
        }
        let verifies = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if jwk.usage.as_ref().is_some_and(|usage| usage != "sig") || !verifies {
            return Err("is not for signatures".to_owned());
        }
        let number = |text: &Option<String>| {
            let bytes = text.as_ref().and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
            bytes.ok_or_else(|| "lacks a number".to_owned())
        };
        let (decoding, size) = match (algorithm.family(), jwk.kty.as_str(), jwk.crv.as_deref()) {
            (AlgorithmFamily::Rsa, "RSA", _) => {
                let (n, e) = (number(&jwk.n)?, number(&jwk.e)?);
                (DecodingKey::from_rsa_raw_components(&n, &e), n.len())
            }
            (AlgorithmFamily::Ec, "EC", Some(crv)) if Some(crv) == curve(algorithm) => {
                let point = [vec![4], number(&jwk.x)?, number(&jwk.y)?].concat();
                (DecodingKey::from_ec_der(&point), point.len())
            }
            (AlgorithmFamily::Ed, "OKP", Some("Ed25519")) => {
                let x = number(&jwk.x)?;
                (DecodingKey::from_ed_der(&x), x.len())
            }
            // Above all "oct": a secret that everybody can read is none.
            _ => return Err(format!("is no key for {algorithm:?}")),
        };
        check_size(algorithm, size)?;
        Ok(Self { algorithm, decoding })
    }

    /// The only algorithm that it is used with.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Checks the signature of a token whose head has been read, and reads the claims, believing nothing else.
    ///
    /// Times, issuer and audience are checked by whoever asks, against the clock that is passed in and with errors that say which.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, VerifyError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(VerifyError::Shape)?;
        let (_, claims) = signed.split_once('.').ok_or(VerifyError::Shape)?;
        let verified = jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.decoding, self.algorithm);
        // A signature that was changed by a character is often not even base64.
        if !verified.is_ok_and(|is_right| is_right) {
            return Err(VerifyError::Signature);
        }
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).map_err(|_| VerifyError::Shape)?;
        Ok(serde_json::from_slice(&claims)?)
    }
}

fn curve(algorithm: Algorithm) -> Option<&'static str> {
    match algorithm {
        Algorithm::ES256 => Some("P-256"),
        Algorithm::ES384 => Some("P-384"),
        _ => None,
    }
}

/// An RSA key has its modulus (or that and a little more), a point of a curve is as long as the curve says.
fn check_size(algorithm: Algorithm, bytes: usize) -> Result<(), String> {
    match algorithm.family() {
        AlgorithmFamily::Rsa if bytes < MIN_RSA_BYTES => Err("has fewer than 2048 bits".to_owned()),
        AlgorithmFamily::Ec if bytes != if algorithm == Algorithm::ES384 { 97 } else { 65 } => {
            Err(format!("is of another curve than {algorithm:?} needs"))
        }
        AlgorithmFamily::Ed if bytes != 32 => Err("is no key of Ed25519".to_owned()),
        _ => Ok(()),
    }
}

/// Reads a key set for one algorithm. A key without a `kid` goes by `id`.
///
/// # Errors
///
/// When it is no key set at all.
pub(super) fn parse_set(algorithm: Algorithm, id: &str, text: &[u8]) -> Result<Parsed, serde_json::Error> {
    let set: JwkSet<'_> = serde_json::from_slice(text)?;
    let mut keys = HashMap::new();
    for member in set.keys.iter().take(MAX_KEYS) {
        let Ok(jwk) = serde_json::from_str::<Jwk>(member.get()) else { continue };
        let kid = jwk.kid.clone().unwrap_or_else(|| id.to_owned());
        if let Ok(key) = Key::from_jwk(algorithm, &jwk) {
            keys.entry(kid).or_insert_with(|| Arc::new(key));
        }
    }
    let left_out = set.keys.len() - keys.len();
    Ok(Parsed { keys, left_out })
}
