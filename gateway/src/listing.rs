//! Which channels there are, for everybody who asks.

use std::sync::Arc;
use std::time::Duration;

use akis_eventlog::{ChannelHead, Replica, StoreError};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long the log may take, so that an answer comes within 5 s.
const READ_WITHIN: Duration = Duration::from_millis(4500);

/// How long a list may be used again.
const AGE: Duration = Duration::from_secs(1);

/// All channels that have an event.
pub(crate) type Listed = Arc<[ChannelHead]>;

/// See the module's documentation.
pub(crate) struct Listing {
    replica: Arc<Replica>,
    /// The last list, and when it was read. One reads, and the others wait for it.
    last: Mutex<Option<(Instant, Listed)>>,
}

impl Listing {
    /// Reads what `replica` has.
    pub(crate) fn new(replica: Arc<Replica>) -> Self {
        Self { replica, last: Mutex::default() }
    }

    /// All channels, as they were within the last second.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the log is away, or takes longer than [`READ_WITHIN`].
    pub(crate) async fn channels(&self) -> Result<Listed, StoreError> {
        let reading = async {
            let mut last = self.last.lock().await;
            if let Some((read_at, channels)) = &*last
                && read_at.elapsed() < AGE
            {
                return Ok(Arc::clone(channels));
            }
            let channels: Listed = self.replica.channels().await?.into();
            *last = Some((Instant::now(), Arc::clone(&channels)));
            Ok(channels)
        };
        in_time(reading).await
    }
}

/// A read of the log for somebody who waits for an answer.
///
/// # Errors
///
/// [`StoreError`] of the read, or when it takes longer than [`READ_WITHIN`].
pub(crate) async fn in_time<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| Err(StoreError::Broken("the log did not answer in time".to_owned()));
    timeout(READ_WITHIN, read).await.unwrap_or_else(late)
}
