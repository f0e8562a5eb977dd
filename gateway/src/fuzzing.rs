//! Doors for the fuzz targets in `fuzz/`, which feed what is private otherwise. Only there when cargo-fuzz
//! builds, and for the tests, which play the corpus.

mod frames;

use std::collections::HashSet;
use std::sync::OnceLock;

use akis_model::{Allowlist, Channel, MAX_CHANNEL_BYTES, Pattern};
use akis_service::config::{AuthConfig, KeyConfig, KeySource, Limits, Secret};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};

#[cfg(test)]
pub(crate) use self::frames::Came;
pub use self::frames::frames;
use crate::auth::Authenticator;
use crate::request::{Ask, Request, Wanted};
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

/// Reads a message of a client.
///
/// # Panics
///
/// When what was read breaks a rule that the session relies on.
pub fn client_message(text: &str) {
    let id = match Request::parse(text) {
        Err(bad) => bad.id,
        Ok(Request { id, ask }) => {
            match ask {
                Ask::Subscribe(wishes) => {
                    assert!((1..=200).contains(&wishes.len()), "{} channels", wishes.len());
                    for wish in &wishes {
                        let named = match &wish.wanted {
                            Ok(Wanted::One(terms)) => terms.channel.to_string(),
                            Ok(Wanted::Every(terms)) => terms.channel.to_string(),
                            Err(_) => continue,
                        };
                        assert_eq!(named, wish.name, "another channel");
                    }
                    let names: HashSet<_> = wishes.iter().map(|wish| &wish.name).collect();
                    assert_eq!(names.len(), wishes.len(), "a channel comes twice");
                }
                Ask::Unsubscribe(names) => assert!((1..=200).contains(&names.len()), "{} channels", names.len()),
                Ask::Auth(_) | Ask::Ping => {}
            }
            assert_eq!(Request::id_of(text), id, "an id is found in two ways");
            id
        }
    };
    assert!(id.is_none_or(|id| id.to_string().len() <= 6 * 64 + 2), "a long id is repeated");
}

/// Reads a channel, a pattern and a subject, a line each; and the channel as a pattern.
///
/// # Panics
///
/// When a name is changed by being read, or a pattern covers what the protocol does not say.
pub fn channel(text: &str) {
    let mut lines = text.splitn(3, '\n');
    let (name, pattern, subject) = (lines.next(), lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let parsed = Pattern::parse(pattern);
    if let Ok(parsed) = &parsed {
        assert_eq!(parsed.to_string(), pattern, "two texts for one pattern");
    }
    let Some(Ok(channel)) = name.map(Channel::parse) else { return };
    assert_eq!(Some(channel.as_str()), name, "two names for one channel");
    assert!(channel.as_str().len() <= MAX_CHANNEL_BYTES && (2..=5).contains(&channel.segments().count()));
    let itself = Pattern::parse(channel.as_str()).map(|pattern| pattern.matches(&channel, subject));
    assert_eq!(itself, Ok(true), "a channel does not cover itself");
    let segments: Vec<_> = channel.segments().collect();
    let is_covered = parsed.is_ok()
        && covers(&pattern.split(':').collect::<Vec<_>>(), &segments, subject)
        && (channel.source() != "akis" || !pattern.contains('*'));
    assert_eq!(Allowlist::new(subject, [pattern]).allows(&channel), is_covered, "{pattern} and {channel}");
}

/// What the protocol says of patterns, word for word and without any care for speed.
fn covers(pattern: &[&str], channel: &[&str], subject: &str) -> bool {
    match (pattern, channel) {
        ([], []) | (["*"], [_, ..]) => true,
        ([part, rest @ ..], [name, names @ ..]) => {
            let is_same = *part == "*" || part == name || (*part == "{sub}" && *name == subject);
            is_same && covers(rest, names, subject)
        }
        _ => false,
    }
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
    fn play(target: &str, feed: impl Fn(&[u8])) {
        let corpus = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(corpus).unwrap().collect();
        assert!(!files.is_empty(), "the corpus is there");
        for file in files {
            feed(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }

    /// The same for a target that takes texts.
    fn play_texts(target: &str, feed: fn(&str)) {
        play(target, |bytes| _ = std::str::from_utf8(bytes).map(feed));
    }

    #[test]
    fn tokens_of_the_corpus_keep_to_the_rules() {
        play_texts("token", super::token);
    }

    #[test]
    fn cursors_and_cloud_events_of_the_corpus_harm_nothing() {
        play_texts("sse_cursor", super::sse_cursor);
        play_texts("cloud_event", super::cloud_event);
    }

    #[test]
    fn messages_and_channels_of_the_corpus_keep_to_the_rules() {
        play_texts("client_message", super::client_message);
        play_texts("channel", super::channel);
    }

    #[test]
    fn frames_of_the_corpus_are_read_alike_in_any_pieces() {
        play("frames", super::frames);
    }
}
