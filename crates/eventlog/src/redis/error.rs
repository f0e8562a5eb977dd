//! What can go wrong with Redis, sorted by what a caller does about it.

use fred::error::{Error, ErrorKind};

use crate::store::{StoreError, Unavailable};

/// The codes with which Redis says "not now", each counted under its own name.
const CODES: [&str; 17] = [
    "LOADING",
    "READONLY",
    "MISCONF",
    "OOM",
    "BUSY",
    "NOREPLICAS",
    "NOPERM",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "NOGROUP",
    "UNBLOCKED",
    "NOAUTH",
    "WRONGPASS",
    "MASTERDOWN",
    "BUSYGROUP",
];

/// The kinds that a person has to do something about, so that trying again at the start is of no use.
const PERMANENT: [&str; 3] = ["NOAUTH", "WRONGPASS", "NOPERM"];

/// Why a log in Redis cannot be used. Each message says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none. The message never holds the URL, which may have a password.
    #[error("the Redis URL is not valid ({0}); use redis://, rediss://, redis-cluster:// or redis-sentinel://")]
    Url(String),
    /// The server is too old.
    #[error("Redis {0} is too old: use Redis 7.0 or newer, or Valkey")]
    Version(String),
    /// The server may throw away parts of the log.
    #[error("Redis evicts keys (maxmemory-policy is {0}): set maxmemory-policy to noeviction")]
    Eviction(String),
    /// The log was made with another number of partitions.
    #[error(
        "the log in Redis has {stored} partitions and this process is configured for {configured}: set it to {stored}, or use another prefix"
    )]
    Partitions {
        /// As stored in Redis.
        stored: String,
        /// As asked for.
        configured: u16,
    },
    /// The server cannot be reached, or not be used now.
    #[error("Redis cannot be used: {0}")]
    Unavailable(Unavailable),
}

impl ConnectError {
    /// Whether the same call may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(unavailable) => !PERMANENT.contains(&unavailable.kind),
            Self::Url(_) | Self::Version(_) | Self::Eviction(_) | Self::Partitions { .. } => false,
        }
    }
}

/// What an error of the client means.
pub(super) fn from_client(error: &Error) -> Unavailable {
    let by_kind = match error.kind() {
        ErrorKind::Timeout => "timeout",
        ErrorKind::IO
        | ErrorKind::Tls
        | ErrorKind::Routing
        | ErrorKind::Canceled
        | ErrorKind::Sentinel
        | ErrorKind::Backpressure => "io",
        _ => "other",
    };
    Unavailable { kind: code(error.details()).unwrap_or(by_kind), message: error.details().to_owned() }
}

/// What an error reply of the server means.
pub(super) fn from_reply(message: &str) -> Unavailable {
    Unavailable { kind: code(message).unwrap_or("other"), message: message.to_owned() }
}

/// The code that `message` begins with, when it is a known one.
fn code(message: &str) -> Option<&'static str> {
    let word = message.split_whitespace().next()?;
    CODES.into_iter().find(|code| *code == word)
}

/// An answer that does not have the shape it should.
pub(super) fn broken(what: &str) -> StoreError {
    StoreError::Broken(what.to_owned())
}

impl From<Unavailable> for StoreError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl From<StoreError> for ConnectError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(unavailable) => Self::Unavailable(unavailable),
            other => Self::Unavailable(Unavailable { kind: "other", message: other.to_string() }),
        }
    }
}

impl From<Unavailable> for ConnectError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_their_code() {
        for (message, kind) in [
            ("OOM command not allowed when used memory > 'maxmemory'. script: 1, on @user_script:5.", "OOM"),
            ("READONLY You can't write against a read only replica.", "READONLY"),
            ("UNBLOCKED the stream key no longer exists", "UNBLOCKED"),
            ("ERR something else", "other"),
            ("", "other"),
        ] {
            assert_eq!(from_reply(message).kind, kind, "{message}");
        }
        assert_eq!(from_client(&Error::new(ErrorKind::Timeout, "Request timed out.")).kind, "timeout");
        assert_eq!(from_client(&Error::new(ErrorKind::IO, "Connection closed.")).kind, "io");
        assert_eq!(from_client(&Error::new(ErrorKind::Unknown, "LOADING Redis is loading")).kind, "LOADING");
    }

    #[test]
    fn a_wrong_password_is_not_tried_again() {
        assert!(ConnectError::from(from_reply("LOADING Redis is loading")).is_retryable());
        assert!(!ConnectError::from(from_reply("WRONGPASS invalid username-password pair")).is_retryable());
        assert!(!ConnectError::Version("6.2.0".to_owned()).is_retryable());
    }
}
