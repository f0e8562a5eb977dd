//! Doors for the fuzz targets in `fuzz/`, which feed what is private otherwise. Only there when cargo-fuzz
//! builds, and for the tests, which play the corpus.

use std::sync::OnceLock;

use akis_service::config::{AuthConfig, KeyConfig, KeySource, Limits, Secret};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::auth::Authenticator;
use crate::sse::Cursor;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The present of the targets, in milliseconds since the epoch.
const NOW_MS: i64 = 1_800_000_000_000;

fn authenticator() -> Option<&'static Authenticator> {
    static AUTHENTICATOR: OnceLock<Option<Authenticator>> = OnceLock::new();
    let key = |id: &str, alg: &str, file: &str| KeyConfig {
        id: id.to_owned(),
        alg: alg.to_owned(),
        source: KeySource::Pem(format!("{}/fixtures/keys/{file}", env!("CARGO_MANIFEST_DIR")).into()),
    };
    let made = || {
        let keys = vec![
            key("rsa", "RS256", "rsa.pub.pem"),
            key("ec", "ES256", "ec.pub.pem"),
            key("ed", "EdDSA", "ed.pub.pem"),
        ];
        let config = AuthConfig { secret: Some(Secret::new(SECRET)), keys, ..AuthConfig::default() };
        Authenticator::new(&config, &Limits::default()).ok()
    };
    AUTHENTICATOR.get_or_init(made).as_ref()
}

/// Reads a cursor, and writes it again.
///
/// # Panics
///
/// When what was read is written in another way.
pub fn sse_cursor(text: &str) {
    if let Some(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.text(), text, "two texts for one cursor");
    }
}

/// Reads a CloudEvent as an object; and as attributes (one a line, up to the first empty one) and data.
pub fn cloud_event(text: &str) {
    crate::publish::fuzz_cloud_event(text);
}

/// Checks a token twice: as it is, and with head and claims (the text before and after the first line break) under a signature
/// by the shared secret, so that what lies behind the signature is reached too.
///
/// # Panics
///
/// When a token is accepted that should not be.
pub fn token(text: &str) {
    let Some(auth) = authenticator() else { return };
    // Nobody guesses a signature.
    assert!(auth.check(text, NOW_MS).is_err(), "accepted without a signature");
    let Some((head, claims)) = text.split_once('\n') else { return };
    let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(head), BASE64_URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let Ok(signature) = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256) else { return };
    if let Ok(grant) = auth.check(&format!("{message}.{signature}"), NOW_MS) {
        assert!(grant.expires_at_ms > NOW_MS && !grant.subject.is_empty(), "accepted without sub or exp");
        assert!(head.contains("HS256") || head.contains('\\'), "accepted by another alg than the secret's");
    }
}

#[cfg(test)]
mod tests {
    /// Feeds each file of a target's corpus.
    fn play(target: &str, feed: fn(&str)) {
        let corpus = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(corpus).unwrap().collect();
        assert!(!files.is_empty(), "the corpus is there");
        for file in files {
            if let Ok(text) = std::fs::read_to_string(file.unwrap().path()) {
                feed(&text);
            }
        }
    }

    #[test]
    fn tokens_of_the_corpus_keep_to_the_rules() {
        play("token", super::token);
    }

    #[test]
    fn cursors_and_cloud_events_of_the_corpus_harm_nothing() {
        play("sse_cursor", super::sse_cursor);
        play("cloud_event", super::cloud_event);
    }
}
