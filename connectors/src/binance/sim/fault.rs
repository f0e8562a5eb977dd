//! Faults on demand: what `POST /sim/fault` takes, and which of them wait to happen.

use serde::Deserialize;

/// A fault, as the body of `POST /sim/fault` names it: `{"fault":"drop_diff","symbol":"BTCUSDT"}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The next depth diff of the symbol is not sent.
    DropDiff {
        /// In the venue's spelling.
        symbol: String,
    },
    /// The next depth diff of the symbol is sent twice.
    Duplicate {
        /// In the venue's spelling.
        symbol: String,
    },
    /// The next depth diff of the symbol comes behind the one after it.
    Reorder {
        /// In the venue's spelling.
        symbol: String,
    },
    /// The next depth diff of the symbol has ids far from where they should be.
    WrongSequence {
        /// In the venue's spelling.
        symbol: String,
    },
    /// The next depth diff of the symbol also has a bid above the best ask, which is in no snapshot.
    CrossedBook {
        /// In the venue's spelling.
        symbol: String,
    },
    /// What is sent in the next while comes at its end, in order.
    Delay {
        /// How long, in milliseconds.
        ms: i64,
        /// Which symbol's frames; absent: everyone's.
        symbol: Option<String>,
    },
    /// A stream stops, until somebody asks for it anew.
    Stall {
        /// As subscriptions name it.
        stream: String,
    },
    /// Nothing is sent for a while, and what would have been is lost. Pings go on.
    Silence {
        /// How long, in milliseconds.
        ms: i64,
        /// Which symbol's frames; absent: everyone's.
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
    /// Every client gets `serverShutdown`.
    Shutdown {},
    /// The next REST requests fail.
    RestStatus {
        /// 429, 418, 500, …
        status: u16,
        /// How many requests.
        times: u32,
    },
    /// The next REST replies come byte by byte.
    SlowLoris {
        /// How many replies.
        times: u32,
    },
    /// From now on the venue's clock is off by this much: the times of events, and what `time` says. Candles stay where they are.
    ClockSkew {
        /// Milliseconds to add.
        ms: i64,
    },
    /// So many symbols more are traded, against USDT.
    NewSymbols {
        /// How many.
        count: usize,
    },
    /// A symbol is no longer traded: `exchangeInfo` has it no more, and its streams are silent.
    Delist {
        /// In the venue's spelling.
        symbol: String,
    },
}

impl Fault {
    /// The symbol that it is about.
    pub(super) fn symbol(&self) -> Option<&str> {
        match self {
            Self::DropDiff { symbol }
            | Self::Duplicate { symbol }
            | Self::Reorder { symbol }
            | Self::WrongSequence { symbol }
            | Self::CrossedBook { symbol }
            | Self::Delist { symbol } => Some(symbol),
            Self::Delay { symbol, .. } | Self::Silence { symbol, .. } => symbol.as_deref(),
            Self::Stall { .. }
            | Self::Freeze { .. }
            | Self::BadFrame { .. }
            | Self::HalfFrame {}
            | Self::Close { .. }
            | Self::Cut {}
            | Self::Shutdown {}
            | Self::RestStatus { .. }
            | Self::SlowLoris { .. }
            | Self::ClockSkew { .. }
            | Self::NewSymbols { .. } => None,
        }
    }
}

/// What happens to the next frame of a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Once {
    DropDiff,
    Duplicate,
    Reorder,
    WrongSequence,
    Cross,
}
