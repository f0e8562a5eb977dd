//! What is particular to a venue's connection: data and one hook. Everything else is shared.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use akis_service::backoff::Backoff;

use crate::attempts::Attempts;

/// Makes the messages that ask anew for some streams.
pub(crate) type Again = fn(&[&str]) -> Vec<String>;

/// What to say on a connection and what to expect of it.
#[derive(Debug, Clone)]
pub(crate) struct Dialog {
    /// For the log.
    pub(crate) venue: &'static str,
    /// Where to connect to.
    pub(crate) url: String,
    /// What to send once connected, in this order.
    pub(crate) messages: Vec<String>,
    /// At least so long between two of them.
    pub(crate) pace: Duration,
    /// The streams asked for, as the venue names them in its data.
    pub(crate) streams: Vec<String>,
    /// After so long from each of them some data should have come.
    pub(crate) first_data: Duration,
    /// Without any frame for so long, pings included, the connection is dead.
    pub(crate) silence: Duration,
    /// After so long another connection takes its place.
    pub(crate) lifetime: Duration,
    /// How long to wait after connections that failed.
    pub(crate) backoff: Backoff,
    /// Shared with the other dialogs that lead to the same address.
    pub(crate) attempts: Arc<Attempts>,
    /// The messages that ask anew for streams that have stopped while others go on. `None`: the venue has no such, or it is
    /// left to the mapper.
    pub(crate) again: Option<Again>,
    /// Looks at a text frame just closely enough to tell what it is.
    pub(crate) read: fn(&str) -> Reading<'_>,
}

/// What a text frame is to the connection that it came in on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading<'a> {
    /// Data of this stream.
    Data(Cow<'a, str>),
    /// The venue did not accept a request.
    Refusal,
    /// The venue is about to end the connection.
    Leaving,
    /// Anything else.
    Other,
}
