//! Whether a publisher hears what it publishes, so that of two the one that does can have the lease.

use std::time::Duration;

/// By how much later another one has to have heard: as long as a call may be on its way.
pub(crate) const HEARD_LATER: Duration = Duration::from_secs(1);

/// What a publisher hears of what it publishes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hearing {
    /// That is not known yet, or has only begun: it neither claims a lease nor gives one up for it.
    #[default]
    Unknown,
    /// Data flows. The last came this long ago.
    Hears(Duration),
    /// Data should flow and does not. The last came, or was awaited, this long ago.
    Deaf(Duration),
}

impl Hearing {
    /// What it comes to when nothing has been said of it for `elapsed`.
    #[must_use]
    pub(crate) fn after(self, elapsed: Duration) -> Self {
        match self {
            Self::Unknown => Self::Unknown,
            Self::Hears(ago) => Self::Hears(ago + elapsed),
            Self::Deaf(ago) => Self::Deaf(ago + elapsed),
        }
    }
}
