//! Faults on demand: what `POST /sim/fault` takes, and which of them wait to happen.

use serde::Deserialize;

/// A fault, as the body of `POST /sim/fault` names it: `{"fault":"drop_diff","symbol":"BTCTRY"}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The next `432` of the pair is not sent; its `CS` is used up.
    DropDiff {
        /// In the venue's spelling.
        symbol: String,
    },
    /// The next `422` of the pair is not sent.
    DropTrade {
        /// In the venue's spelling.
        symbol: String,
    },
    /// The next `432` and the next `422` of the pair are sent twice.
    Duplicate {
        /// In the venue's spelling.
        symbol: String,
    },
    /// The next `432` of the pair comes behind the one after it.
    Reorder {
        /// In the venue's spelling.
        symbol: String,
    },
    /// The next `432` of the pair has a `CS` far from where it should be.
    WrongSequence {
        /// In the venue's spelling.
        symbol: String,
    },
    /// The next `432` of the pair also has a bid above the best ask.
    CrossedBook {
        /// In the venue's spelling.
        symbol: String,
    },
    /// What is sent in the next while comes at its end, in order.
    Delay {
        /// How long, in milliseconds.
        ms: i64,
        /// Which pair's frames; absent: everyone's.
        symbol: Option<String>,
    },
    /// Nothing is sent for a while, and what would have been is lost. Pings go on.
    Silence {
        /// How long, in milliseconds.
        ms: i64,
        /// Which pair's frames; absent: everyone's.
        symbol: Option<String>,
    },
    /// Nothing moves for a while, pings and REST included; sockets stay open and nothing is lost.
    Freeze {
        /// How long, in milliseconds.
        ms: i64,
    },
    /// Every client gets this text as a frame.
    BadFrame {
        /// As it is sent.
        text: String,
    },
    /// Every client gets the first half of a frame, then its connection is reset.
    HalfFrame {},
    /// Every connection is closed in order.
    Close {
        /// The close code.
        code: u16,
        /// The reason, empty when absent.
        #[serde(default)]
        reason: String,
    },
    /// Every connection is reset without a close.
    Cut {},
    /// The next REST requests fail.
    RestStatus {
        /// 429, 500, …
        status: u16,
        /// How many requests.
        times: u32,
    },
    /// The next REST replies come byte by byte.
    SlowLoris {
        /// How many replies.
        times: u32,
    },
    /// From now on the venue's clock is off by this much.
    ClockSkew {
        /// Milliseconds to add.
        ms: i64,
    },
    /// The pair is no longer listed: nothing is told of it any more.
    Delist {
        /// In the venue's spelling.
        symbol: String,
    },
    /// So many pairs more are traded.
    NewSymbols {
        /// How many.
        count: usize,
    },
}

impl Fault {
    /// The pair that it is about.
    pub(super) fn symbol(&self) -> Option<&str> {
        match self {
            Self::DropDiff { symbol }
            | Self::DropTrade { symbol }
            | Self::Duplicate { symbol }
            | Self::Reorder { symbol }
            | Self::WrongSequence { symbol }
            | Self::CrossedBook { symbol }
            | Self::Delist { symbol } => Some(symbol),
            Self::Delay { symbol, .. } | Self::Silence { symbol, .. } => symbol.as_deref(),
            Self::Freeze { .. }
            | Self::BadFrame { .. }
            | Self::HalfFrame {}
            | Self::Close { .. }
            | Self::Cut {}
            | Self::RestStatus { .. }
            | Self::SlowLoris { .. }
            | Self::ClockSkew { .. }
            | Self::NewSymbols { .. } => None,
        }
    }
}

/// What happens to the next frame of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Once {
    DropDiff,
    DropTrade,
    DuplicateDiff,
    DuplicateTrade,
    Reorder,
    WrongSequence,
    Cross,
}
