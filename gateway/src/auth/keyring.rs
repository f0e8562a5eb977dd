//! All keys, and which of them a token is checked with: the one that its `kid` names, and no other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_service::config::{AuthConfig, KeyConfig, KeySource};
use futures_util::future::join_all;
use jsonwebtoken::Algorithm;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::AuthError;
use super::fetch::Fetcher;
use super::head::Head;
use super::key::Key;
use super::key_set::KeySet;

/// How long a request waits for its key: somewhat longer than a fetch may take.
const WAIT_AT_MOST: Duration = Duration::from_secs(6);

/// Requests that may wait for a key at a time. Others are answered with what is known.
const MAX_WAITING: usize = 256;

/// Where keys come from.
pub(super) struct Keyring {
    secret: Option<Arc<Key>>,
    /// Keys of files, by `kid`.
    fixed: HashMap<String, Arc<Key>>,
    sets: Vec<Arc<KeySet>>,
    /// There is one when there are sets.
    fetcher: Option<Fetcher>,
    /// Grows when a set has been fetched, or could not be.
    fetches: watch::Sender<u64>,
    waiting: Semaphore,
}

impl Keyring {
    /// Reads the key files and makes the sets, which nothing is fetched for yet.
    ///
    /// # Errors
    ///
    /// All that is wrong, a line for each key.
    pub(super) fn new(config: &AuthConfig) -> Result<Self, Vec<String>> {
        let mut ring = Self {
            secret: config.secret.as_ref().map(|secret| Arc::new(Key::from_secret(secret.expose()))),
            fixed: HashMap::new(),
            sets: Vec::new(),
            fetcher: None,
            fetches: watch::Sender::new(0),
            waiting: Semaphore::new(MAX_WAITING),
        };
        let mut mistakes = Vec::new();
        for key in &config.keys {
            if let Err(mistake) = ring.add(key) {
                mistakes.push(format!("auth.keys {:?}: {mistake}", key.id));
            }
        }
        if !ring.sets.is_empty() {
            match Fetcher::new() {
                Ok(fetcher) => ring.fetcher = Some(fetcher),
                Err(error) => mistakes.push(format!("auth.keys: nothing can be fetched over https: {error}")),
            }
        }
        if mistakes.is_empty() { Ok(ring) } else { Err(mistakes) }
    }

    fn add(&mut self, config: &KeyConfig) -> Result<(), String> {
        let algorithm: Algorithm = config.alg.parse().map_err(|_| format!("alg {:?} is unknown", config.alg))?;
        match &config.source {
            KeySource::Pem(path) => {
                let shown = path.display();
                let pem =
                    std::fs::read_to_string(path).map_err(|error| format!("pem {shown} cannot be read: {error}"))?;
                let key = Key::from_pem(algorithm, &pem).map_err(|why| format!("pem {shown} {why}"))?;
                self.fixed.insert(config.id.clone(), Arc::new(key));
            }
            KeySource::Jwks(url) => self.sets.push(Arc::new(KeySet::new(&config.id, algorithm, url))),
        }
        Ok(())
    }

    /// Whether some of the keys are fetched.
    pub(super) fn has_sets(&self) -> bool {
        !self.sets.is_empty()
    }

    /// The ids of the sets.
    pub(super) fn set_ids(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().map(|set| set.id())
    }

    /// Keeps the sets fetched, until dropped; returns at once when there are none. Calls `ended` after each fetch with the id of
    /// the set and whether it succeeded.
    pub(super) async fn keep_fetched(&self, ended: impl Fn(&str, bool)) {
        let Some(fetcher) = &self.fetcher else { return };
        let ended = |id: &str, succeeded| {
            ended(id, succeeded);
            self.fetches.send_modify(|count| *count += 1);
        };
        join_all(self.sets.iter().map(|set| set.keep_fetched(fetcher, |succeeded| ended(set.id(), succeeded)))).await;
    }

    /// Whether there is any key at all.
    pub(super) fn has_keys(&self) -> bool {
        self.secret.is_some() || !self.fixed.is_empty() || self.sets.iter().any(|set| !set.keys().is_empty())
    }

    /// The key to check a token with.
    ///
    /// # Errors
    ///
    /// [`AuthError::KeyPending`] while the key may be in a set that is being fetched, [`AuthError::NoKeys`] where it may be in one that
    /// never was, otherwise what is wrong with the head.
    pub(super) fn find(&self, head: &Head) -> Result<Arc<Key>, AuthError> {
        let algorithm = head.algorithm.filter(|algorithm| self.allows(*algorithm)).ok_or_else(|| self.not_allowed())?;
        let Some(kid) = &head.kid else { return self.only(head, algorithm) };
        if let Some(key) = self.fixed.get(kid).cloned().or_else(|| self.in_sets(kid, algorithm)) {
            let fits = key.algorithm() == algorithm;
            return if fits {
                Ok(key)
            } else {
                Err(invalid("the token's alg is not the one of the key that it names"))
            };
        }
        // The secret has no name that a kid could be wrong about.
        if let Some(secret) = self.secret.as_ref().filter(|secret| secret.algorithm() == algorithm) {
            return Ok(Arc::clone(secret));
        }
        // All of them are asked, not only the first that is fetched.
        let now = Instant::now();
        let pending = self.sets_for(algorithm).filter(|set| set.ask(now)).count();
        if pending > 0 { Err(AuthError::KeyPending) } else { Err(self.unknown(head, "the token's kid names no key")) }
    }

    /// Several sets may use the same `kid`; the algorithm is pinned to the set, so it tells them apart.
    fn in_sets(&self, kid: &str, algorithm: Algorithm) -> Option<Arc<Key>> {
        let found = |set: &Arc<KeySet>| set.keys().get(kid).cloned();
        self.sets_for(algorithm).find_map(found).or_else(|| self.sets.iter().find_map(found))
    }

    /// The key for a token that names none: the only one there is for the algorithm.
    fn only(&self, head: &Head, algorithm: Algorithm) -> Result<Arc<Key>, AuthError> {
        let fixed = self.secret.iter().chain(self.fixed.values()).cloned();
        let of_sets = self.sets_for(algorithm).flat_map(|set| set.keys().values().cloned().collect::<Vec<_>>());
        let mut fitting = fixed.chain(of_sets).filter(|key| key.algorithm() == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) if self.sets_for(algorithm).any(|set| set.is_fetching()) => Err(AuthError::KeyPending),
            (None, _) => Err(self.unknown(head, "there is no key to check the token with now")),
            (Some(_), Some(_)) => Err(invalid("the token has no kid, and there are several keys")),
        }
    }

    /// Why no key fits: where keys are missing that is not the token's fault.
    fn unknown(&self, head: &Head, what: &str) -> AuthError {
        if self.lacks_keys(head) { AuthError::NoKeys } else { invalid(what) }
    }

    /// Whether a token's key may be in a set that could not be fetched so far, or there is no key at all.
    pub(super) fn lacks_keys(&self, head: &Head) -> bool {
        let may_be_in = |set: &Arc<KeySet>| head.algorithm == Some(set.algorithm());
        !self.has_keys() || self.sets.iter().any(|set| may_be_in(set) && !set.was_fetched())
    }

    fn sets_for(&self, algorithm: Algorithm) -> impl Iterator<Item = &Arc<KeySet>> {
        self.sets.iter().filter(move |set| set.algorithm() == algorithm)
    }

    fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        let keys = self.secret.iter().chain(self.fixed.values()).map(|key| key.algorithm());
        keys.chain(self.sets.iter().map(|set| set.algorithm()))
    }

    fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms().any(|allowed| allowed == algorithm)
    }

    fn not_allowed(&self) -> AuthError {
        let mut names: Vec<String> = self.algorithms().map(|algorithm| format!("{algorithm:?}")).collect();
        names.sort_unstable();
        names.dedup();
        AuthError::Invalid(format!("the token's alg is not allowed, only {} is", names.join(" or ")))
    }

    /// Waits while the key of this token is being fetched. Gives up in time, and at once when too many wait already.
    pub(super) async fn settle(&self, token: &str) {
        let Ok(head) = Head::parse(token) else { return };
        let mut fetches = self.fetches.subscribe();
        let is_pending = || matches!(self.find(&head), Err(AuthError::KeyPending));
        if !is_pending() {
            return;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else { return };
        let settled = async { while is_pending() && fetches.changed().await.is_ok() {} };
        // Whoever waited in vain is told so by the check that follows.
        let _ = timeout(WAIT_AT_MOST, settled).await;
    }
}

fn invalid(what: &str) -> AuthError {
    AuthError::Invalid(what.to_owned())
}
