//! Faults on demand: what `POST /sim/fault` takes, and which of them wait to happen.

use std::collections::{HashMap, HashSet};

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
    /// The next depth diff of the symbol also has a bid above the best ask, which is in no snapshot.
    CrossedBook {
        /// In the venue's spelling.
        symbol: String,
    },
    /// Nothing is sent for a while, and what would have been is lost.
    Silence {
        /// How long, in milliseconds.
        ms: i64,
        /// Which symbol's frames; absent: everyone's.
        symbol: Option<String>,
    },
    /// Every client gets this text as a frame.
    BadFrame {
        /// As it is sent.
        text: String,
    },
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
}

impl Fault {
    /// The symbol that it is about.
    pub(super) fn symbol(&self) -> Option<&str> {
        match self {
            Self::DropDiff { symbol } | Self::Duplicate { symbol } | Self::CrossedBook { symbol } => Some(symbol),
            Self::Silence { symbol, .. } => symbol.as_deref(),
            Self::BadFrame { .. } | Self::Close { .. } | Self::Cut {} | Self::Shutdown {} | Self::RestStatus { .. } => {
                None
            }
        }
    }
}

/// The faults that wait for a frame of their symbol.
#[derive(Debug, Default)]
pub(super) struct Pending {
    drop_diff: HashSet<String>,
    duplicate: HashSet<String>,
    crossed: HashSet<String>,
    silent_until: i64,
    silent_symbols: HashMap<String, i64>,
}

impl Pending {
    pub(super) fn drop_diff(&mut self, symbol: String) {
        self.drop_diff.insert(symbol);
    }

    pub(super) fn duplicate(&mut self, symbol: String) {
        self.duplicate.insert(symbol);
    }

    pub(super) fn cross(&mut self, symbol: String) {
        self.crossed.insert(symbol);
    }

    pub(super) fn silence(&mut self, until: i64, symbol: Option<String>) {
        match symbol {
            Some(symbol) => {
                self.silent_symbols.insert(symbol, until);
            }
            None => self.silent_until = until,
        }
    }

    /// Whether the next diff of the symbol has to be crossed; it is asked for once.
    pub(super) fn take_crossed(&mut self, symbol: &str) -> bool {
        self.crossed.remove(symbol)
    }

    /// How often a frame that has readers is sent: not at all, once, or twice.
    pub(super) fn copies(&mut self, symbol: &str, is_diff: bool, now: i64) -> usize {
        let silent = |until: Option<&i64>| until.is_some_and(|&until| now < until);
        if silent(Some(&self.silent_until)) || silent(self.silent_symbols.get(symbol)) {
            return 0;
        }
        if is_diff && self.drop_diff.remove(symbol) {
            return 0;
        }
        if is_diff && self.duplicate.remove(symbol) { 2 } else { 1 }
    }
}
