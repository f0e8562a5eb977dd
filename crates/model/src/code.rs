//! Error codes and close codes: what went wrong, and whether coming back helps.

use std::fmt;

use serde::Serialize;

/// The `errorCode` of an envelope or a problem document with `ok: false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The request could not be understood.
    BadRequest,
    /// The request's `type` is not known.
    UnknownType,
    /// The text is no channel name.
    BadChannel,
    /// The token does not allow the channel.
    ChannelForbidden,
    /// The connection has as many channels as it may have.
    ChannelLimit,
    /// More requests than allowed; `retryAfterMs` tells when the next one is.
    RateLimited,
    /// The token is missing, malformed, wrongly signed or revoked.
    TokenInvalid,
    /// The token's `exp` has passed.
    TokenExpired,
    /// History cannot be read now.
    ReplayUnavailable,
    /// The channel's venue is down.
    DataUnavailable,
    /// The channel has been silent for longer than is normal for it.
    StalenessWarning,
    /// The log cannot be reached.
    UpstreamUnavailable,
    /// A fault of the server's own.
    InternalError,
}

impl ErrorCode {
    /// The code as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::UnknownType => "UNKNOWN_TYPE",
            Self::BadChannel => "BAD_CHANNEL",
            Self::ChannelForbidden => "CHANNEL_FORBIDDEN",
            Self::ChannelLimit => "CHANNEL_LIMIT",
            Self::RateLimited => "RATE_LIMITED",
            Self::TokenInvalid => "TOKEN_INVALID",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::ReplayUnavailable => "REPLAY_UNAVAILABLE",
            Self::DataUnavailable => "DATA_UNAVAILABLE",
            Self::StalenessWarning => "STALENESS_WARNING",
            Self::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the server closes a WebSocket. Source: RFC 6455 section 7.4, and section 6 of the protocol for 4xxx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// Answer to the client's own close.
    Normal,
    /// The replica is going away.
    GoingAway,
    /// Broken framing.
    Protocol,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A message larger than `messageBytes`.
    TooLarge,
    /// Too many bad requests.
    BadRequests,
    /// Token expired or invalid, and no fresh one came in time.
    Token,
    /// Silent although pinged, half a frame that never ends, or half-open.
    Silent,
    /// Too slow: could not be written to, or an `app` channel would have to be thinned.
    Slow,
    /// Kept exceeding the rate limit.
    RateLimit,
    /// The replica became full or not ready after the upgrade.
    Unavailable,
}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
            Self::BadRequests => 4400,
            Self::Token => 4401,
            Self::Silent => 4408,
            Self::Slow => 4413,
            Self::RateLimit => 4429,
            Self::Unavailable => 4503,
        }
    }

    /// The reason sent along: a few words, never more than 123 bytes.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::GoingAway => "replica going away, come back and resume",
            Self::Protocol => "broken framing",
            Self::NotUtf8 => "text is not UTF-8",
            Self::TooLarge => "message too large",
            Self::BadRequests => "too many bad requests",
            Self::Token => "token expired or invalid",
            Self::Silent => "no frame from the client",
            Self::Slow => "too slow, come back and resume",
            Self::RateLimit => "kept exceeding the rate limit",
            Self::Unavailable => "replica not ready, try again later",
        }
    }

    /// Whether a client should connect again by itself.
    pub fn may_come_back(self) -> bool {
        match self {
            Self::GoingAway | Self::Token | Self::Silent | Self::Slow | Self::RateLimit | Self::Unavailable => true,
            Self::Normal | Self::Protocol | Self::NotUtf8 | Self::TooLarge | Self::BadRequests => false,
        }
    }
}
