//! What all stand-ins have in common: what they play, what leads to them, and why one cannot start.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

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

/// A stand-in that has its ports.
pub struct StandIn {
    /// The keys of the venue's configuration that lead to it, `ws_url` for example, with their values.
    pub addresses: Vec<(&'static str, String)>,
    /// Serves until it is cancelled, then closes every connection and waits for it to end.
    pub serving: Pin<Box<dyn Future<Output = Result<(), SimError>> + Send>>,
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
