//! A key set that somebody else publishes: fetched again and again, and once more when a token names a key that is not in it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_service::backoff::Backoff;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{info, warn};

use super::fetch::{FetchError, Fetched, Fetcher};
use super::key::{self, Key};

/// After a fetch for a `kid` that was not there, others of that kind wait for so long: tokens with made-up kids must not
/// become requests to somebody else.
const COOL_DOWN: Duration = Duration::from_secs(10);

/// How long a set is good unless its server says so by `Cache-Control: max-age`, and between which bounds it may say it.
/// A key that was taken out of the set is believed for so long.
const TTL: Duration = Duration::from_secs(300);
const MIN_TTL: Duration = Duration::from_secs(10);
const MAX_TTL: Duration = Duration::from_secs(3600);

/// Bounds of the wait after a fetch that failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

type Keys = HashMap<String, Arc<Key>>;

/// One key set, with its algorithm.
pub(super) struct KeySet {
    id: String,
    algorithm: Algorithm,
    url: String,
    state: Mutex<State>,
    /// Asks for a fetch now.
    wanted: Notify,
}

struct State {
    /// The last set that could be fetched, however long ago: its server being away ends nobody's access.
    keys: Arc<Keys>,
    is_fetching: bool,
    /// Whether it could be fetched at least once.
    was_fetched: bool,
    /// When a token last caused a fetch.
    asked_at: Option<Instant>,
}

impl KeySet {
    /// A set that waits for its first fetch.
    pub(super) fn new(id: &str, algorithm: Algorithm, url: &str) -> Self {
        let state = State { keys: Arc::default(), is_fetching: true, was_fetched: false, asked_at: None };
        let (id, url) = (id.to_owned(), url.to_owned());
        Self { id, algorithm, url, state: Mutex::new(state), wanted: Notify::new() }
    }

    /// What the configuration calls it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The algorithm that all of its keys are used with.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its keys now, by `kid`.
    pub(super) fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.state.lock().keys)
    }

    /// Whether a fetch is under way.
    pub(super) fn is_fetching(&self) -> bool {
        self.state.lock().is_fetching
    }

    /// Whether it could be fetched at least once.
    pub(super) fn was_fetched(&self) -> bool {
        self.state.lock().was_fetched
    }

    /// A token names a key that is not here. Asks for a fetch, unless one was asked for not long ago; gives whether one is under way.
    pub(super) fn ask(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        if !state.is_fetching && state.asked_at.is_none_or(|at| now >= at + COOL_DOWN) {
            state.asked_at = Some(now);
            state.is_fetching = true;
            self.wanted.notify_one();
        }
        state.is_fetching
    }

    /// Fetches the set when it is due or asked for, until dropped. Calls `ended` after each fetch with whether it succeeded.
    pub(super) async fn keep_fetched(&self, fetcher: &Fetcher, ended: impl Fn(bool)) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            self.state.lock().is_fetching = true;
            let fetched = fetcher.fetch(&self.url).await;
            let wait = match fetched.and_then(|fetched| self.take(&fetched)) {
                Ok(ttl) => {
                    backoff.reset();
                    ended(true);
                    ttl
                }
                Err(error) => {
                    let keys = self.keys().len();
                    warn!(key = self.id, %error, keys, "failed to fetch a key set; the keys known before stay good");
                    self.state.lock().is_fetching = false;
                    ended(false);
                    RETRY.0 / 2 + backoff.next_wait()
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    /// Puts a fetched set in place of the one before. Gives how long it is good.
    fn take(&self, fetched: &Fetched) -> Result<Duration, FetchError> {
        let parsed = key::parse_set(self.algorithm, &self.id, &fetched.text)?;
        let is_same = {
            let mut state = self.state.lock();
            let before = std::mem::replace(&mut state.keys, Arc::new(parsed.keys));
            state.is_fetching = false;
            state.was_fetched = true;
            before.len() == state.keys.len() && before.keys().all(|kid| state.keys.contains_key(kid))
        };
        if !is_same {
            let keys = self.keys().len();
            info!(key = self.id, keys, left_out = parsed.left_out, "a key set has changed");
        }
        Ok(fetched.max_age.map_or(TTL, |max_age| max_age.clamp(MIN_TTL, MAX_TTL)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = include_str!("../../fixtures/keys/jwk.json");

    fn fetched(kids: &[&str], max_age_s: Option<u64>) -> Fetched {
        let known: serde_json::Value = serde_json::from_str(KNOWN).unwrap();
        let member = |kid: &&str| {
            let mut jwk = known["ec"].clone();
            jwk["kid"] = (*kid).into();
            jwk
        };
        let set = serde_json::json!({ "keys": kids.iter().map(member).collect::<Vec<_>>() });
        Fetched { text: set.to_string().into_bytes(), max_age: max_age_s.map(Duration::from_secs) }
    }

    #[test]
    fn unknown_kids_cause_one_fetch_in_a_cool_down() {
        let set = KeySet::new("idp", Algorithm::ES256, "https://id.example.com/keys");
        let now = Instant::now();
        assert!(set.ask(now), "the first fetch is under way");
        set.take(&fetched(&["a"], None)).unwrap();
        assert!(set.ask(now) && set.is_fetching(), "a fetch that was due does not count");
        assert!(set.ask(now), "others wait for the same one");
        set.take(&fetched(&["a"], None)).unwrap();
        assert!(!set.ask(now) && !set.is_fetching());
        assert!(!set.ask(now + COOL_DOWN - Duration::from_millis(1)));
        assert!(set.ask(now + COOL_DOWN));
    }

    #[test]
    fn a_key_is_good_from_the_set_that_brings_it_to_the_one_that_lacks_it() {
        let set = KeySet::new("idp", Algorithm::ES256, "https://id.example.com/keys");
        let kids = || {
            let mut kids: Vec<String> = set.keys().keys().cloned().collect();
            kids.sort_unstable();
            kids
        };
        for (members, expected) in [(&["a"][..], vec!["a"]), (&["a", "b"], vec!["a", "b"]), (&["b"], vec!["b"])] {
            set.take(&fetched(members, None)).unwrap();
            assert_eq!(kids(), expected);
        }
        let broken = Fetched { text: b"nonsense".to_vec(), max_age: None };
        assert!(set.take(&broken).is_err());
        assert_eq!(kids(), ["b"], "what cannot be read changes nothing");
        set.take(&fetched(&[], None)).unwrap();
        assert!(kids().is_empty(), "a set may end all its keys");
    }

    #[test]
    fn a_set_is_kept_as_long_as_its_server_says_within_reason() {
        let set = KeySet::new("idp", Algorithm::ES256, "https://id.example.com/keys");
        for (max_age_s, expected_s) in [(None, 300), (Some(0), 10), (Some(60), 60), (Some(u64::MAX), 3600)] {
            assert_eq!(set.take(&fetched(&["a"], max_age_s)).unwrap(), Duration::from_secs(expected_s));
        }
    }
}
