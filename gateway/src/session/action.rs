//! What a session wants done outside.

use std::time::{Duration, Instant};

use akis_eventlog::From;
use akis_model::Channel;

#[cfg(doc)]
use super::Session;

/// Something to be done with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ActionKind {
    /// Register for the channel's notices, then join it and hand the result to [`Session::on_joined`] with this token.
    Join {
        /// Where to begin.
        from: From,
        /// Names this join.
        token: u64,
    },
    /// From now on the channel's events come as [`Session::on_newest`], one per interval; or, without an interval, as they come.
    Pace {
        /// The interval.
        interval: Option<Duration>,
        /// Nothing is to come before this.
        ready_at: Instant,
    },
    /// The channel's notices are no longer wanted.
    Leave,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// With a channel.
    Channel {
        /// The channel.
        channel: Channel,
        /// Its number in the session: names it to [`Session::on_run`] and [`Session::on_notice`] from the join until it is left.
        slot: u32,
        /// What to do.
        kind: ActionKind,
    },
    /// Find out which channels there are, and hand the result to [`Session::on_listed`] with this token.
    List {
        /// Names this request.
        token: u64,
    },
}
