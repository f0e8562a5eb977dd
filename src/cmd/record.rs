//! `akis record`: what a venue sends, in the format of the protocol's section 9.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_connectors::recording::{Header, Writer};
use akis_connectors::{Content, Ports, RawFrame, Request, Settings, Stats, Venue};
use akis_service::config::VenueConfig;
use akis_service::{shutdown, telemetry};
use anyhow::{Context, anyhow};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::cli::ConfigFile;
use crate::failure::Failure;

/// Frames that wait to be written; when it is full the session reads its sockets slower.
const QUEUE: usize = 4096;

/// How often the file is flushed and progress is told.
const PROGRESS: Duration = Duration::from_secs(10);

/// How often whole books are asked for, so that a later part of the recording can be played without the first.
const BOOKS: Duration = Duration::from_secs(300);

#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// The venue: binance.
    venue: String,
    /// Where to write; a file that is there is not overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Symbols in the venue's spelling [default: those of venues.<VENUE>, or the ones of `akis dev`].
    #[arg(long, value_name = "SYMBOL", value_delimiter = ',')]
    symbols: Vec<String>,
    /// End after this long [default: when stopped by a signal].
    #[arg(long = "for", value_name = "DURATION", value_parser = super::token::duration)]
    length: Option<Duration>,
}

pub(crate) async fn run(args: RecordArgs) -> Result<(), Failure> {
    let config = args.file.load([])?;
    let Some(venue) = akis_connectors::venue(&args.venue) else {
        let known: Vec<&str> = akis_connectors::VENUES.iter().map(|venue| venue.name).collect();
        return Err(Failure::usage(format!("no venue {:?}, known are: {}", args.venue, known.join(", "))));
    };
    let configured = match venue.name {
        "binance" => config.venues.binance.as_ref(),
        "btcturk" => config.venues.btcturk.as_ref(),
        _ => config.venues.bist.as_ref(),
    };
    let settings = settings(configured, &args.symbols);
    telemetry::start(config.log_format, super::QUIET);
    let stop = shutdown::on_signals().context("cannot listen for signals")?;
    let file = File::create_new(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let header = Header {
        venue: venue.name.to_owned(),
        market: venue.market.to_owned(),
        started_at: now_ms(),
        symbols: Some(settings.symbols.clone()),
        transport: None,
        connections: std::collections::BTreeMap::new(),
    };
    let writer = Writer::create(BufWriter::new(file), &header).map_err(anyhow::Error::new)?;
    eprintln!(
        "recording {} from {} into {}; a signal ends it",
        settings.symbols.join(", "),
        venue.name,
        args.out.display()
    );
    Ok(record(venue, &settings, writer, args.length, stop).await?)
}

fn settings(configured: Option<&VenueConfig>, symbols: &[String]) -> Settings {
    let defaults = || super::dev::SYMBOLS.map(str::to_owned).to_vec();
    Settings {
        symbols: match configured {
            _ if !symbols.is_empty() => symbols.to_vec(),
            Some(configured) if !configured.symbols.is_empty() => configured.symbols.clone(),
            _ => defaults(),
        },
        kinds: configured.map(|configured| configured.kinds.clone()).unwrap_or_default(),
        ws_url: configured.and_then(|configured| configured.ws_url.clone()),
        rest_url: configured.and_then(|configured| configured.rest_url.clone()),
    }
}

/// Writes what the session yields until it is stopped, its time is over, or the disk is full.
async fn record(
    venue: &Venue,
    settings: &Settings,
    mut writer: Writer<BufWriter<File>>,
    length: Option<Duration>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (frames_in, mut frames) = mpsc::channel(QUEUE);
    let (requests, requests_out) = mpsc::channel(settings.symbols.len().max(1));
    let stats = Arc::new(Stats::default());
    let ports = Ports { frames: frames_in, requests: requests_out, stats };
    let cancel = stop.child_token();
    let session = tokio::spawn((venue.session)(settings, ports, cancel.clone()));
    let mut progress = Progress::default();
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut books = Books { due: true, ticks_left: 0 };
    let end = async {
        match length {
            Some(length) => tokio::time::sleep(length).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let written = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            () = &mut end => break Ok(()),
            _ = ticks.tick() => {
                books.on_tick();
                progress.tell();
                if let Err(error) = writer.flush() {
                    break Err(error);
                }
            }
            frame = frames.recv() => {
                let Some(frame) = frame else { break Ok(()) };
                if books.wants(&frame) {
                    for symbol in &settings.symbols {
                        // A full queue already holds this request.
                        let _ = requests.try_send(Request::Book { symbol: symbol.clone() });
                    }
                }
                progress.frames += 1;
                if let Err(error) = writer.write(&frame) {
                    break Err(error);
                }
            }
        }
    };
    cancel.cancel();
    // The session may be waiting for room in the queue.
    drop(frames);
    let flushed = writer.flush();
    progress.tell();
    session.await.context("the session broke down")??;
    written.and(flushed).map_err(|error| anyhow!(error))
}

/// When to ask for whole books: without them nobody could rebuild a book from the diffs of the recording.
struct Books {
    due: bool,
    ticks_left: u64,
}

impl Books {
    fn on_tick(&mut self) {
        self.ticks_left = self.ticks_left.saturating_sub(1);
        self.due |= self.ticks_left == 0;
    }

    /// Diffs have to flow before the book is asked for, so a request waits for the first text.
    fn wants(&mut self, frame: &RawFrame) -> bool {
        match frame.content {
            Content::Closed { .. } => self.due = true,
            Content::Text { .. } | Content::Binary { .. } if self.due => {
                self.due = false;
                self.ticks_left = BOOKS.as_secs() / PROGRESS.as_secs();
                return true;
            }
            Content::Text { .. } | Content::Binary { .. } | Content::Reply { .. } => {}
        }
        false
    }
}

#[derive(Default)]
struct Progress {
    frames: u64,
    told: u64,
}

impl Progress {
    fn tell(&mut self) {
        if self.frames > self.told {
            eprintln!("{} frames", self.frames);
            self.told = self.frames;
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
