//! What tokens are signed with: the secret, or a private key and the algorithm and name that go with it.

use std::path::Path;

use akis_service::config::{KeyConfig, KeySource, MIN_SECRET_BYTES, Secret};
use anyhow::Context;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, crypto};
use serde::Serialize;

use crate::failure::Failure;

/// What is signed to see whether a key works, and belongs to another one.
const PROBE: &[u8] = b"akis";

/// A key to sign with.
pub(crate) struct Signer {
    key: EncodingKey,
    header: Header,
}

impl Signer {
    /// Signs with a shared secret.
    pub(crate) fn from_secret(secret: &Secret) -> Self {
        Self { key: EncodingKey::from_secret(secret.expose().as_bytes()), header: Header::new(Algorithm::HS256) }
    }

    /// Signs with what a file holds. A private key whose public half is among `known` has that one's `alg` and `id`.
    pub(crate) fn from_file(file: &Path, known: &[KeyConfig]) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read --key {}", file.display()))?;
        if text.contains("-----BEGIN ") {
            return Self::from_pem(&text, known);
        }
        // Editors end a file with a line break, which is no part of the secret.
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.len() < MIN_SECRET_BYTES {
            return Err(Failure::usage(format!(
                "--key must hold {MIN_SECRET_BYTES} bytes or more, or a private key in PEM"
            )));
        }
        Ok(Self::from_secret(&Secret::new(secret)))
    }

    fn from_pem(pem: &str, known: &[KeyConfig]) -> Result<Self, Failure> {
        if !pem.contains("PRIVATE KEY-----") {
            return Err(Failure::usage("--key holds no private key: only its owner can sign with it"));
        }
        let key = read_private(pem).ok_or_else(|| {
            Failure::usage(
                "--key is no RSA, P-256, P-384 or Ed25519 key in PKCS#8, unencrypted; convert it with \
                 openssl pkcs8 -topk8 -nocrypt",
            )
        })?;
        if let Some((id, algorithm)) = known.iter().find_map(|known| public_half(&key, known)) {
            let header = Header { kid: Some(id), ..Header::new(algorithm) };
            return Ok(Self { key, header });
        }
        let usual = match key.family() {
            AlgorithmFamily::Rsa => &[Algorithm::RS256][..],
            AlgorithmFamily::Ec => &[Algorithm::ES256, Algorithm::ES384],
            AlgorithmFamily::Ed => &[Algorithm::EdDSA],
            AlgorithmFamily::Hmac => &[],
        };
        // What a key set holds is not known here, only what its keys are used with.
        let of_sets = known.iter().filter(|known| matches!(known.source, KeySource::Jwks(_)));
        let pinned = of_sets.filter_map(|known| known.alg.parse().ok());
        let fitting =
            pinned.chain(usual.iter().copied()).find(|algorithm| crypto::sign(PROBE, &key, *algorithm).is_ok());
        let algorithm = fitting.ok_or_else(|| Failure::usage("--key is of a curve that tokens are not signed with"))?;
        Ok(Self { header: Header::new(algorithm), key })
    }

    /// Signs claims.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> anyhow::Result<String> {
        jsonwebtoken::encode(&self.header, claims, &self.key).context("cannot sign the token")
    }
}

fn read_private(pem: &str) -> Option<EncodingKey> {
    let pem = pem.as_bytes();
    let read = [EncodingKey::from_rsa_pem, EncodingKey::from_ec_pem, EncodingKey::from_ed_pem];
    read.iter().find_map(|read| read(pem).ok())
}

/// The id and the algorithm of a configured key, when it is the public half of `key`.
fn public_half(key: &EncodingKey, known: &KeyConfig) -> Option<(String, Algorithm)> {
    let KeySource::Pem(path) = &known.source else { return None };
    let algorithm: Algorithm = known.alg.parse().ok()?;
    let pem = std::fs::read(path).ok()?;
    let public = match algorithm.family() {
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(&pem),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(&pem),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(&pem),
        AlgorithmFamily::Hmac => return None,
    };
    let signature = crypto::sign(PROBE, key, algorithm).ok()?;
    let fits = crypto::verify(&signature, PROBE, &public.ok()?, algorithm).unwrap_or(false);
    fits.then(|| (known.id.clone(), algorithm))
}
