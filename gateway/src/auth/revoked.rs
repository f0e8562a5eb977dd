//! Tokens that are no longer to be believed, by `jti` or `sub`, each until a moment.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::Grant;

/// The channel on which revocations are told to all replicas.
pub(crate) const REVOKE_CHANNEL: &str = "akis:control:revoke";

/// The event that is one.
const REVOKE_EVENT: &str = "revoke";

/// Bytes of names that are remembered, their bookkeeping included. When there is no more room, what would be forgotten first by itself
/// gives way.
const MAX_BYTES: usize = 16 << 20;

/// What one name takes besides its own bytes, about.
const ENTRY_BYTES: usize = 64;

/// What a revocation names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Named {
    /// One token.
    Jti(Box<str>),
    /// Every token of a subject.
    Sub(Box<str>),
}

impl Named {
    fn bytes(&self) -> usize {
        let (Self::Jti(name) | Self::Sub(name)) = self;
        name.len() + ENTRY_BYTES
    }
}

/// One revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revocation {
    named: Named,
    /// When it is over, in milliseconds since the epoch: by then the tokens have expired by themselves.
    until_ms: i64,
}

#[derive(Deserialize)]
struct Fields {
    jti: Option<String>,
    sub: Option<String>,
    until: Option<i64>,
}

impl Revocation {
    /// Reads an event of the channel; `None` for an event that is no revocation.
    ///
    /// # Errors
    ///
    /// Says what a revocation lacks.
    pub(crate) fn parse(event: &str, data: &str) -> Option<Result<Self, &'static str>> {
        (event == REVOKE_EVENT).then(|| Self::from_data(data))
    }

    fn from_data(data: &str) -> Result<Self, &'static str> {
        let fields: Fields =
            serde_json::from_str(data).map_err(|_| "revoke has jti or sub, a text, and until, milliseconds")?;
        let named = match (fields.jti, fields.sub) {
            (Some(jti), None) => Named::Jti(jti.into()),
            (None, Some(sub)) => Named::Sub(sub.into()),
            _ => return Err("revoke names exactly one of jti and sub"),
        };
        let until_ms = fields.until.ok_or("revoke says until when, in milliseconds since the epoch")?;
        Ok(Self { named, until_ms })
    }
}

#[derive(Default)]
struct State {
    until_ms: HashMap<Named, i64>,
    bytes: usize,
}

/// What is revoked now. Shared by everything that checks tokens.
pub(crate) struct Revocations {
    state: Mutex<State>,
    /// Grows with every revocation, so that whoever holds a grant knows when to look again.
    version: watch::Sender<u64>,
}

impl Default for Revocations {
    fn default() -> Self {
        Self { state: Mutex::default(), version: watch::Sender::new(0) }
    }
}

impl Revocations {
    /// Adds one. Gives how many others had to give way for it.
    pub(crate) fn add(&self, revocation: Revocation, now_ms: i64) -> usize {
        let Revocation { named, until_ms } = revocation;
        if until_ms <= now_ms {
            return 0;
        }
        let mut state = self.state.lock();
        let bytes = named.bytes();
        let known = state.until_ms.entry(named).or_insert(i64::MIN);
        let is_new = *known == i64::MIN;
        *known = until_ms.max(*known);
        if is_new {
            state.bytes += bytes;
        }
        let pushed_out = state.make_room(now_ms);
        drop(state);
        self.version.send_modify(|version| *version += 1);
        pushed_out
    }

    /// Whether one of them names this token.
    pub(crate) fn include(&self, grant: &Grant, now_ms: i64) -> bool {
        let state = self.state.lock();
        // Nearly always empty, and asked for every handshake.
        if state.until_ms.is_empty() {
            return false;
        }
        let holds = |named: Named| state.until_ms.get(&named).is_some_and(|until_ms| *until_ms > now_ms);
        holds(Named::Sub(grant.subject.as_ref().into()))
            || grant.jti.as_ref().is_some_and(|jti| holds(Named::Jti(jti.as_ref().into())))
    }

    /// Forgets what is over. Gives how many are left.
    pub(super) fn forget_past(&self, now_ms: i64) -> usize {
        let mut state = self.state.lock();
        state.forget_past(now_ms);
        state.until_ms.len()
    }

    /// Tells when there are new ones.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// How many there have been.
    pub(crate) fn version(&self) -> u64 {
        *self.version.borrow()
    }
}

impl State {
    fn forget_past(&mut self, now_ms: i64) {
        self.until_ms.retain(|_, until_ms| *until_ms > now_ms);
        self.bytes = self.until_ms.keys().map(Named::bytes).sum();
    }

    /// Keeps within [`MAX_BYTES`]; gives how many were pushed out before their time.
    fn make_room(&mut self, now_ms: i64) -> usize {
        if self.bytes <= MAX_BYTES {
            return 0;
        }
        self.forget_past(now_ms);
        let mut by_end: Vec<(i64, Named)> =
            self.until_ms.iter().map(|(named, until_ms)| (*until_ms, named.clone())).collect();
        by_end.sort_unstable_by_key(|(until_ms, _)| *until_ms);
        let before = self.until_ms.len();
        for (_, named) in by_end {
            // Some air, so that the next one need not look through all of them again.
            if self.bytes <= MAX_BYTES / 8 * 7 {
                break;
            }
            self.bytes -= named.bytes();
            self.until_ms.remove(&named);
        }
        before - self.until_ms.len()
    }
}

/// Checks an event before it is published: on the reserved channel a revocation that nobody would understand is refused, not ignored.
///
/// # Errors
///
/// Says what it lacks.
pub(crate) fn check_event(channel: &str, event: &str, data: &str) -> Result<(), &'static str> {
    if channel != REVOKE_CHANNEL {
        return Ok(());
    }
    Revocation::parse(event, data).transpose().map(|_| ())
}

/// The event and the data of an entry of the log.
pub(super) fn parse_entry(body: &[u8]) -> Option<Result<Revocation, &'static str>> {
    #[derive(Deserialize)]
    struct Entry {
        event: String,
        data: Value,
    }
    let whole = [b"{".as_slice(), body].concat();
    match serde_json::from_slice::<Entry>(&whole) {
        Ok(entry) => Revocation::parse(&entry.event, &entry.data.to_string()),
        Err(_) => Some(Err("it is no event")),
    }
}
