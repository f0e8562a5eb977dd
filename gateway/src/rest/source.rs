//! Where answers come from: memory or the log, one read for all who ask the same.

use std::sync::Arc;

use akis_eventlog::{Excerpt, From, JoinError, Joined, StoreError, StoredCandle};
use akis_model::{Channel, ErrorCode};
use tokio::sync::Semaphore;

use super::shared::Shared;
use crate::context::Context;
use crate::listing::{Listed, in_time};
use crate::problem::Problem;

/// Reads of the log at a time.
const READS: usize = 32;

/// Seconds after which a client may try again when the log is away.
const RETRY_AFTER_S: u64 = 1;

/// What a read gave, for all who asked.
type Read<T> = Result<Arc<T>, StoreError>;

/// Reads for all requests. See the module's documentation.
pub(crate) struct Source {
    context: Arc<Context>,
    excerpts: Shared<(Channel, Start, usize), Read<Excerpt>>,
    candles: Shared<(Channel, Option<u64>, usize), Read<[StoredCandle]>>,
    reads: Semaphore,
}

/// Where an excerpt begins; [`From`] as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Start {
    /// As far back as the limit reaches.
    Newest,
    /// Above a position.
    After(akis_model::Seq),
    /// At a time, milliseconds since the epoch.
    Since(i64),
}

impl Start {
    fn from(self) -> From {
        match self {
            Self::Newest => From::Live { snapshot: true },
            Self::After(after) => From::After(after),
            Self::Since(ts_ms) => From::Since(ts_ms),
        }
    }
}

impl Source {
    /// Reads what `context` has.
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, excerpts: Shared::new(), candles: Shared::new(), reads: Semaphore::new(READS) }
    }

    /// The latest envelope of a channel. Those of venues are answered from memory, where there is one; those of applications
    /// from the log, whatever their kind, so that a publisher finds what it was told is there.
    pub(super) async fn latest(&self, channel: &Channel) -> Result<Option<String>, Problem> {
        if channel.is_venue()
            && let Ok(joined) = self.join(channel, Start::Newest).await
            && !joined.events.is_empty()
        {
            return Ok(envelopes(&joined).pop());
        }
        let excerpt = self.excerpt(channel, Start::Newest, 1).await?;
        Ok(excerpt.events.last().map(|(_, envelope)| envelope.clone()))
    }

    /// Part of a channel's history; what memory has of it while the log is away.
    pub(super) async fn excerpt(&self, channel: &Channel, start: Start, limit: usize) -> Result<Arc<Excerpt>, Problem> {
        let read = self.read(async { self.context.replica.excerpt(channel, start.from(), limit).await.map(Arc::new) });
        match self.excerpts.get((channel.clone(), start, limit), read).await {
            Ok(excerpt) => Ok(excerpt),
            Err(error) => {
                let joined = self.join(channel, start).await.map_err(|_| away(&error))?;
                let mut events: Vec<_> = joined.events.iter().map(|event| event.seq).zip(envelopes(&joined)).collect();
                events.truncate(limit);
                Ok(Arc::new(Excerpt { events, oldest: joined.oldest, recovered: joined.recovered }))
            }
        }
    }

    /// Closed candles, in order.
    pub(super) async fn candles(
        &self,
        channel: &Channel,
        before_ms: Option<u64>,
        limit: usize,
    ) -> Result<Arc<[StoredCandle]>, Problem> {
        let read = self.read(async { self.context.replica.candles(channel, before_ms, limit).await.map(Arc::from) });
        self.candles.get((channel.clone(), before_ms, limit), read).await.map_err(|error| away(&error))
    }

    /// All channels, as they were within the last second.
    pub(super) async fn channels(&self) -> Result<Listed, Problem> {
        self.context.listing.channels().await.map_err(|error| away(&error))
    }

    /// One of the reads that may be under way.
    async fn read<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let reading = async {
            let _permit = self.reads.acquire().await.map_err(|_| StoreError::Broken("reads are closed".to_owned()))?;
            read.await
        };
        in_time(reading).await
    }

    /// What a subscriber would be given first.
    async fn join(&self, channel: &Channel, start: Start) -> Result<Joined, JoinError> {
        let _visit = Visit { context: &self.context, channel };
        let mut given = None;
        self.context.replica.join(channel, start.from(), |joined| given = Some(joined)).await?;
        given.ok_or_else(|| JoinError::Unavailable(StoreError::Broken("a join gave nothing".to_owned())))
    }
}

/// A join of somebody who does not stay: the log must not take the channel for a subscribed one afterwards.
struct Visit<'a> {
    context: &'a Context,
    channel: &'a Channel,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.context.hub.check_unused(self.channel, || self.context.replica.leave(self.channel));
    }
}

fn envelopes(joined: &Joined) -> Vec<String> {
    let text = |event: &Arc<akis_eventlog::LogEvent>| String::from_utf8_lossy(&event.envelope).into_owned();
    joined.events.iter().map(text).collect()
}

fn away(error: &StoreError) -> Problem {
    tracing::debug!(%error, "failed to read the log for a request");
    Problem::unavailable(ErrorCode::ReplayUnavailable, "history cannot be read now", RETRY_AFTER_S)
}
