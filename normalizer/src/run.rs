//! The live loop of one venue: its session, the pipeline, and the publisher that writes under a lease.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_connectors::{Content, Part, Ports, RawFrame, Request, Settings, StartError, Stats, Venue, Wall};
use akis_eventlog::{Event, Observer, Publisher, PublisherConfig, PublisherHandle, Role, Store};
use akis_model::Kind;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::feed::Turn;
use crate::mapper::{Reason, mapper};
use crate::metrics::{Metrics, VenueMetrics};
use crate::pipeline::{Pipeline, Step, TICK_MS};
use crate::spans::Spans;

/// Frames that wait to be mapped. When it is full the session reads its sockets slower.
pub(crate) const FRAMES: usize = 4_096;

/// Requests that wait for the session: the candles of a thousand symbols. It takes them in between two calls. When it is full they are
/// dropped; the mapper asks again for books and trades, and for candles of BtcTurk.
pub(crate) const REQUESTS: usize = 8_192;

/// Frames mapped between two looks at the clock. What they become is written together, so it is few enough that the first one
/// waits for some tenths of a millisecond at most.
const BATCH: usize = 64;

/// A clock that goes forward by more than this beside the time that has passed was set.
const STEP: Duration = Duration::from_secs(1);

/// How much of a frame a log line shows.
const SAMPLE_CHARS: usize = 200;

/// Why a venue could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No mapper for the venue.
    #[error("no mapper for the venue \"{0}\"")]
    NoMapper(&'static str),
    /// The session could not begin.
    #[error("start the session")]
    Session(#[from] StartError),
    /// The session or the publisher broke down.
    #[error("a task of the venue broke down")]
    Broken(#[from] JoinError),
}

/// Runs a venue until `cancel`: then what the throttles hold is published, and the lease given back.
///
/// A standby keeps its session warm; what it offers is dropped by its publisher. `warm` is cancelled once it could take
/// over, or has the lease already: the venue's data has come for some seconds and its books are there, or it has not come for too long.
///
/// # Errors
///
/// [`RunError::NoMapper`] and [`RunError::Session`] at the start, [`RunError::Broken`] when a task panicked.
pub async fn run(
    venue: &'static Venue,
    settings: Settings,
    store: Arc<dyn Store>,
    metrics: Metrics,
    warm: CancellationToken,
    cancel: CancellationToken,
) -> Result<(), RunError> {
    let mut mapper = mapper(venue.recorded_as).ok_or(RunError::NoMapper(venue.name))?;
    mapper.configure(&settings.own);
    let mut pipeline = Pipeline::new(mapper, true);
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|&kind| settings.wants(kind)).collect();
    pipeline.admit(Some(&settings.symbols), settings.part, &kinds);

    let stop_publisher = CancellationToken::new();
    let lease = lease(venue.name, settings.part);
    let observer = Some(Arc::new(metrics.written(venue.name)) as Arc<dyn Observer>);
    let publisher = PublisherConfig { observer, ..PublisherConfig::new(&lease) };
    let (publisher, writing) = Publisher::start(store, publisher, stop_publisher.clone());
    pipeline.channels().iter().for_each(|channel| publisher.declare(channel));

    let session_cancel = cancel.child_token();
    let (frames_in, frames) = mpsc::channel(FRAMES);
    let (requests, requests_out) = mpsc::channel(REQUESTS);
    let stats = Arc::new(Stats::default());
    let ports = Ports { frames: frames_in, requests: requests_out, stats: Arc::clone(&stats) };
    let session = tokio::spawn((venue.session)(&settings, ports, session_cancel.clone()));
    info!(venue = venue.name, symbols = settings.symbols.len(), "venue started");

    let spans = Spans::new(venue.name, metrics.tracer.clone());
    let metrics = metrics.of(venue.name, &lease);
    let shell = Shell {
        venue: venue.name,
        pipeline,
        publisher,
        requests,
        metrics,
        stats,
        told: BTreeSet::new(),
        events: Vec::new(),
        spans,
        is_active: false,
        warm,
        wall: Wall::default(),
    };
    shell.run(frames, &cancel).await;

    session_cancel.cancel();
    let ended = session.await;
    stop_publisher.cancel();
    writing.await?;
    Ok(ended??)
}

/// What is leased: a venue, or a part of it. Parts of different splits are different: never run two splits at once.
fn lease(venue: &str, part: Option<Part>) -> String {
    match part {
        None => venue.to_owned(),
        Some(Part { number, of }) => format!("{venue}.{number}of{of}"),
    }
}

struct Shell {
    venue: &'static str,
    pipeline: Pipeline,
    publisher: PublisherHandle,
    requests: mpsc::Sender<Request>,
    metrics: VenueMetrics,
    stats: Arc<Stats>,
    /// Reasons that a log line has been written for.
    told: BTreeSet<Reason>,
    /// To be published, in this order; emptied with each batch of frames.
    events: Vec<Event>,
    spans: Spans,
    /// Whether this process publishes: nobody follows what a standby drops.
    is_active: bool,
    /// See [`run`].
    warm: CancellationToken,
    wall: Wall,
}

impl Shell {
    /// Until `cancel`, or until the session has ended.
    async fn run(mut self, mut frames: mpsc::Receiver<RawFrame>, cancel: &CancellationToken) {
        let mut ticks = ticks();
        let mut batch = Vec::with_capacity(BATCH);
        let mut role = self.publisher.role();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Ok(()) = role.changed() => {
                    let role = *role.borrow_and_update();
                    self.on_role(role);
                }
                _ = ticks.tick() => self.on_tick(),
                read = frames.recv_many(&mut batch, BATCH) => {
                    if read == 0 {
                        break;
                    }
                    batch.drain(..).for_each(|frame| self.on_frame(&frame));
                }
            }
            self.publisher.offer_all(self.events.drain(..));
        }
        let mut step = Step::default();
        self.pipeline.finish(&mut step);
        self.take(step, None);
        self.publisher.offer_all(self.events);
    }

    fn on_role(&mut self, role: Role) {
        self.is_active = role == Role::Active;
        self.metrics.set_active(self.is_active);
        let mut step = Step::default();
        self.pipeline.set_active(self.is_active, &mut step);
        self.take(step, None);
        if self.is_active {
            self.backfill();
        }
    }

    /// Whoever takes over cannot know which candles its predecessor has kept, and behind a state a channel's value is told again.
    fn backfill(&mut self) {
        let mut step = Step::default();
        self.pipeline.backfill(&mut step);
        self.take(step, None);
    }

    /// Says once that it could take over. Asked with ticks and not with frames: the mapper looks at all of its symbols.
    fn judge(&self) {
        let is_news = !self.warm.is_cancelled() && self.pipeline.is_judged();
        if is_news && (self.is_active || self.pipeline.is_warm()) {
            self.warm.cancel();
        }
    }

    fn on_tick(&mut self) {
        let mut step = Step::default();
        let (now_ms, stepped) = self.wall.now_and_step();
        if stepped > STEP {
            warn!(venue = self.venue, by_ms = stepped.as_millis(), "this machine's clock was set forward");
            self.pipeline.on_clock_set(i64::try_from(stepped.as_millis()).unwrap_or(i64::MAX), now_ms);
        }
        self.pipeline.on_tick(now_ms, &mut step);
        self.publisher.set_hearing(self.pipeline.hearing(now_ms));
        self.take(step, None);
        self.judge();
        self.metrics.set_up(self.pipeline.is_up());
        self.metrics.refresh(&self.stats, self.publisher.counts());
        let since = self.pipeline.connected_since();
        self.metrics.set_connection_age(since.map(|since| now_ms.saturating_sub(since)));
    }

    fn on_frame(&mut self, frame: &RawFrame) {
        let mut step = Step::default();
        self.pipeline.on_frame(frame, &mut step);
        self.metrics.on_frame(frame);
        let is_back = step.turn == Some(Turn::Up);
        self.take(step, Some(frame));
        if is_back && self.is_active {
            self.backfill();
        }
    }

    fn take(&mut self, step: Step, frame: Option<&RawFrame>) {
        let now_ms = now_ms();
        self.metrics.on_step(&step, now_ms);
        match step.turn {
            Some(Turn::Up) => info!(venue = self.venue, "data flows again"),
            Some(Turn::Down { reason, .. }) => warn!(venue = self.venue, reason, "the venue is down"),
            None => {}
        }
        for reason in step.skipped {
            if !reason.is_expected() && self.told.insert(reason) {
                let sample = frame.map_or_else(String::new, sample);
                warn!(venue = self.venue, reason = reason.as_str(), sample, "skipped; further ones are only counted");
            }
        }
        if !step.states.is_empty() {
            self.publisher.offer_states(step.states);
        }
        for event in step.events {
            self.metrics.on_event(&event);
            self.events.push(if self.is_active { self.spans.begin(event, now_ms) } else { event });
        }
        for (channel, candles) in step.history {
            self.publisher.keep_candles(&channel, candles);
        }
        for request in step.requests {
            // Full or ended: see [`REQUESTS`].
            let _ = self.requests.try_send(request);
        }
    }
}

/// The clock of pipelines and mappers.
pub(crate) fn ticks() -> Interval {
    let mut ticks = interval(Duration::from_millis(TICK_MS.unsigned_abs()));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The beginning of a frame, for the log.
fn sample(frame: &RawFrame) -> String {
    match &frame.content {
        Content::Text { text, .. } => text.chars().take(SAMPLE_CHARS).collect(),
        Content::Binary { bytes, .. } => format!("{} bytes", bytes.len()),
        Content::Reply { target, status, body } => {
            format!("{target} {status} {}", body.chars().take(SAMPLE_CHARS).collect::<String>())
        }
        Content::Closed { code, .. } => format!("closed {code}"),
    }
}

/// Milliseconds since the epoch by this machine's clock, as it is set.
pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
