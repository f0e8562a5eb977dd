//! The token in force: warnings before it expires, the end when it has or is revoked, and a fresh one by `auth`.

use std::time::{Duration, Instant};

use akis_model::{CloseCode, ErrorCode};
use akis_service::config::Secret;
use serde_json::{Value, json};

use super::Session;
use crate::auth::AuthError;
use crate::clock::Now;
use crate::request::Refusal;
use crate::wire::{self, RequestId};

/// How long before the end a client is warned.
const WARNINGS_MS: [i64; 2] = [60_000, 15_000];

/// How long a socket stays without a valid token, to take a fresh one.
const GRACE_MS: i64 = 10_000;

/// How long until an `auth` is tried again whose key is being fetched.
const PENDING_RETRY: Duration = Duration::from_millis(50);

/// The longest time without a look at the clock: the wall clock may be set.
const MAX_WAIT_MS: i64 = 60_000;

/// What happens next with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Warn that it expires; how many warnings were due before this one.
    Warn(usize),
    /// End all channels, because the token's time is over.
    Expire,
    /// Close.
    Close,
}

#[derive(Debug)]
pub(super) struct TokenWatch {
    expires_at_ms: i64,
    stage: Stage,
    /// Warnings whose moment had passed when the token came are told once, together.
    warn_now: bool,
    /// When the token was revoked.
    revoked_at_ms: Option<i64>,
    /// The revocations that were looked at.
    revocations_seen: u64,
    pending: Option<PendingAuth>,
}

/// An `auth` whose answer has to wait for a key. There is one at most.
#[derive(Debug)]
struct PendingAuth {
    id: Option<RequestId>,
    token: Secret,
    again_at: Instant,
}

impl TokenWatch {
    pub(super) fn new(expires_at_ms: i64, now_ms: i64) -> Self {
        let passed = WARNINGS_MS.iter().filter(|before| expires_at_ms - **before <= now_ms).count();
        let stage = if passed < WARNINGS_MS.len() { Stage::Warn(passed) } else { Stage::Expire };
        Self { expires_at_ms, stage, warn_now: passed > 0, revoked_at_ms: None, revocations_seen: 0, pending: None }
    }

    /// Why the token gives nothing any more, whatever has been said about it.
    pub(super) fn refusal(&self, now_ms: i64) -> Option<(ErrorCode, &'static str)> {
        if self.revoked_at_ms.is_some() {
            return Some((ErrorCode::TokenInvalid, "the token has been revoked"));
        }
        (now_ms >= self.expires_at_ms).then_some((ErrorCode::TokenExpired, "the token has expired"))
    }

    fn stage_at_ms(&self) -> i64 {
        match self.stage {
            Stage::Warn(n) => self.expires_at_ms.saturating_sub(WARNINGS_MS.get(n).copied().unwrap_or(0)),
            Stage::Expire => self.expires_at_ms,
            Stage::Close => self.revoked_at_ms.unwrap_or(self.expires_at_ms).saturating_add(GRACE_MS),
        }
    }

    /// When to look again.
    pub(super) fn next_at(&self, now: Now) -> Instant {
        let wait_ms = self.stage_at_ms().saturating_sub(now.unix_ms).clamp(0, MAX_WAIT_MS);
        let next_at = now.instant + Duration::from_millis(wait_ms.unsigned_abs());
        self.pending.as_ref().map_or(next_at, |pending| next_at.min(pending.again_at))
    }

    /// The stage that is due, and goes on to the next one.
    fn advance(&mut self, now_ms: i64) -> Option<Stage> {
        if now_ms < self.stage_at_ms() {
            return None;
        }
        let due = self.stage;
        self.stage = match due {
            Stage::Warn(n) if n + 1 < WARNINGS_MS.len() => Stage::Warn(n + 1),
            Stage::Warn(_) => Stage::Expire,
            Stage::Expire | Stage::Close => Stage::Close,
        };
        Some(due)
    }
}

impl Session {
    /// Does what is due with the token.
    pub(super) fn token_tick(&mut self, now: Now) {
        self.look_at_revocations(now);
        if let Some(pending) = self.token.pending.take_if(|pending| pending.again_at <= now.instant) {
            self.authenticate(pending.id.as_ref(), pending.token.expose(), now);
        }
        if std::mem::take(&mut self.token.warn_now) {
            self.tell_expiring(now);
        }
        while self.closing.is_none()
            && let Some(stage) = self.token.advance(now.unix_ms)
        {
            match stage {
                Stage::Warn(_) => self.tell_expiring(now),
                Stage::Expire => {
                    self.end_forbidden(ErrorCode::TokenExpired, now, |_, _| false);
                    self.pump(now);
                }
                Stage::Close => self.close(CloseCode::Token),
            }
        }
    }

    /// Ends all channels when the token has been revoked since the last look. The socket stays for as long as after its
    /// expiry, to take another token.
    fn look_at_revocations(&mut self, now: Now) {
        let revocations = self.surroundings.auth.revocations();
        let version = revocations.version();
        if std::mem::replace(&mut self.token.revocations_seen, version) == version || self.token.stage == Stage::Close {
            return;
        }
        if revocations.include(&self.grant, now.unix_ms) {
            self.token.revoked_at_ms = Some(now.unix_ms);
            self.token.stage = Stage::Close;
            self.token.warn_now = false;
            self.end_forbidden(ErrorCode::TokenInvalid, now, |_, _| false);
            self.pump(now);
        }
    }

    fn tell_expiring(&mut self, now: Now) {
        let data = json!({ "expiresAt": self.grant.expires_at_ms });
        self.tell(wire::system("token_expiring", now.unix_ms, &data));
    }

    /// Carries out `auth`. A token that is not accepted leaves the old one in force.
    pub(super) fn authenticate(&mut self, id: Option<&RequestId>, token: &str, now: Now) {
        if self.token.pending.is_some() {
            let refusal = Refusal::new(ErrorCode::TokenInvalid, "the auth before this one is still being looked at");
            return self.bad_request(id, &refusal, now);
        }
        let grant = match self.surroundings.auth.check(token, now.unix_ms) {
            Ok(grant) if grant.subject == self.grant.subject => grant,
            Ok(_) => {
                let refusal = Refusal::new(ErrorCode::TokenInvalid, "the token is of another sub");
                return self.bad_request(id, &refusal, now);
            }
            Err(AuthError::KeyPending) => {
                let again_at = now.instant + PENDING_RETRY;
                self.token.pending = Some(PendingAuth { id: id.cloned(), token: Secret::new(token), again_at });
                return;
            }
            // The keys are missing here: it does not count against the client.
            Err(error @ AuthError::NoKeys) => {
                return self.tell(wire::error(id, error.code(), &error.to_string(), None, now.unix_ms));
            }
            Err(error) => return self.bad_request(id, &Refusal::new(error.code(), error.to_string()), now),
        };
        self.gate.change(grant.limits.messages_per_second, grant.limits.burst, now.instant);
        self.token = TokenWatch::new(grant.expires_at_ms, now.unix_ms);
        self.grant = grant;
        let ended =
            self.end_forbidden(ErrorCode::ChannelForbidden, now, |grant, channel| grant.channels.allows(channel));
        let ended: Vec<Value> = ended.iter().map(|channel| channel.as_str().into()).collect();
        self.tell(wire::authenticated(id, self.grant.expires_at_ms, &ended, now.unix_ms));
        self.token_tick(now);
        self.pump(now);
    }
}
