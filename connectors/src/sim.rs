//! What all stand-ins have in common: what they play, what leads to them, and why one cannot start.

pub(crate) mod client;
pub(crate) mod listener;
pub(crate) mod pending;
pub(crate) mod player;
pub(crate) mod replies;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use self::player::Player;
use crate::recording::RecordingError;

/// What a stand-in plays.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Made up. Equal values give equal markets, shifted to the present.
    Generated {
        /// In the venue's spelling, the busiest first.
        symbols: Vec<String>,
        /// How many things happen in a second, in all symbols together.
        rate: u32,
        /// Decides everything that is random.
        seed: u64,
    },
    /// A recording, played once to whoever subscribes. It begins with the first subscription.
    Recorded {
        /// Where it is.
        file: PathBuf,
        /// How much faster than it was recorded: 1.0 is as it was.
        speed: f64,
    },
}

/// A stand-in that has its ports and its source: nothing is left to fail.
pub struct StandIn {
    /// The keys of the venue's configuration that lead to it, `ws_url` for example, with their values.
    pub addresses: Vec<(&'static str, String)>,
    /// Serves until it is cancelled, then closes every connection and waits for it to end.
    pub serving: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl StandIn {
    /// One whose WebSocket and REST are both at `address`.
    pub(crate) fn of_one_port(address: SocketAddr, serving: impl Future<Output = ()> + Send + 'static) -> Self {
        let addresses = vec![("ws_url", format!("ws://{address}")), ("rest_url", format!("http://{address}"))];
        Self { addresses, serving: Box::pin(serving) }
    }
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandIn").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Why a stand-in cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A port cannot be had.
    #[error("get a port for the stand-in")]
    Port(#[from] std::io::Error),
    /// The recording cannot be played.
    #[error("play the recording {}", file.display())]
    Recording {
        /// Which one.
        file: PathBuf,
        /// What is wrong with it.
        source: RecordingError,
    },
    /// The recording is of another venue or market.
    #[error("play the recording {}: it is of {venue} {market}, not of {expected}", file.display())]
    OtherVenue {
        /// Which one.
        file: PathBuf,
        /// Of its header.
        venue: String,
        /// Of its header.
        market: String,
        /// What the stand-in plays.
        expected: &'static str,
    },
    /// A value makes no sense.
    #[error("start the stand-in: {0}")]
    Config(String),
}

impl SimError {
    /// Whether something else should have been asked for.
    pub fn is_wrong_usage(&self) -> bool {
        match self {
            Self::Port(_) | Self::Recording { .. } => false,
            Self::OtherVenue { .. } | Self::Config(_) => true,
        }
    }
}

/// Most events a second that are generated: far more than one task can serve.
const MOST_RATE: u32 = 1_000_000;

/// Checks how many events a second are asked for.
///
/// # Errors
///
/// [`SimError::Config`].
pub(crate) fn check_rate(rate: u32) -> Result<(), SimError> {
    if rate > MOST_RATE {
        return Err(SimError::Config(format!("a rate of {rate} is beyond {MOST_RATE} events a second")));
    }
    Ok(())
}

/// Opens a recording to be played.
///
/// # Errors
///
/// [`SimError::Config`] for a speed that is none, [`SimError::Recording`].
pub(crate) fn open_recording(file: &Path, speed: f64) -> Result<Player, SimError> {
    if !(speed.is_finite() && speed > 0.0) {
        return Err(SimError::Config(format!("a speed of {speed} is not above 0")));
    }
    Player::open(file, speed).map_err(|source| SimError::Recording { file: file.to_owned(), source })
}

/// Checks that there are symbols, each once and in the venue's spelling. `kind` and `example` say what that is.
///
/// # Errors
///
/// [`SimError::Config`].
pub(crate) fn check_symbols(
    symbols: &[String],
    is_spelled: impl Fn(&str) -> bool,
    kind: &str,
    example: &str,
) -> Result<(), SimError> {
    if symbols.is_empty() {
        return Err(SimError::Config("no symbols are given".into()));
    }
    for (i, symbol) in symbols.iter().enumerate() {
        if symbol.is_empty() || !is_spelled(symbol) {
            let reason = format!("{symbol:?} is not a {kind} in the venue's spelling, like {example}");
            return Err(SimError::Config(reason));
        }
        if symbols.iter().take(i).any(|earlier| earlier == symbol) {
            return Err(SimError::Config(format!("{symbol} is given twice")));
        }
    }
    Ok(())
}
