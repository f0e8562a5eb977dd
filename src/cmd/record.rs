//! `akis record`: what a venue sends, in the format of the protocol's section 9.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_connectors::recording::{Header, Writer};
use akis_connectors::{Progress, Settings, Venue};
use akis_service::{shutdown, telemetry};
use anyhow::{Context, anyhow};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::normalizer;
use crate::cli::ConfigFile;
use crate::failure::Failure;

/// Frames that wait to be written; when it is full the session reads its sockets slower.
const QUEUE: usize = 4096;

#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Which venue.
    #[arg(value_parser = super::venue)]
    venue: &'static Venue,
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
    let venue = args.venue;
    let mut settings = config.venues.get(venue.name).map(normalizer::settings).unwrap_or_default();
    if !args.symbols.is_empty() {
        settings.symbols = args.symbols;
    } else if settings.symbols.is_empty() {
        settings.symbols = (venue.symbols)(super::dev::SYMBOLS);
    }
    let wrong = normalizer::wrong(venue, &settings, true);
    if !wrong.is_empty() {
        return Err(Failure::Usage(wrong));
    }
    telemetry::start(config.log_format, super::QUIET, None);
    let stop = shutdown::on_signals().context("cannot listen for signals")?;
    let file = File::create_new(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let writer = Writer::create(BufWriter::new(file), &header(venue, &settings)).map_err(anyhow::Error::new)?;
    eprintln!(
        "recording {} from {} into {}; a signal ends it",
        settings.symbols.join(", "),
        venue.name,
        args.out.display()
    );
    let (sender, frames) = mpsc::channel(QUEUE);
    let end = stop.child_token();
    let observing = async {
        let observed = akis_normalizer::observe(venue, settings, sender, end.clone());
        match args.length {
            Some(length) => {
                tokio::pin!(observed);
                match timeout(length, &mut observed).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        end.cancel();
                        observed.await
                    }
                }
            }
            None => observed.await,
        }
    };
    let writing = akis_connectors::record(frames, writer, tell);
    let (observed, written) = Box::pin(async { tokio::join!(observing, writing) }).await;
    let progress = written.map_err(|error| anyhow!(error).context("cannot write the recording"))?;
    if progress.frames == 0 {
        // The next attempt would not overwrite it.
        std::fs::remove_file(&args.out).with_context(|| format!("cannot remove the empty {}", args.out.display()))?;
    }
    observed.context("the session broke down")?;
    if progress.frames == 0 {
        return Err(anyhow!("nothing was recorded: {} was not reached, or said nothing", venue.name).into());
    }
    Ok(())
}

fn header(venue: &Venue, settings: &Settings) -> Header {
    let (name, market) = venue.recorded_as;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Header {
        venue: name.to_owned(),
        market: market.to_owned(),
        started_at: i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX),
        symbols: Some(settings.symbols.clone()),
        transport: None,
        connections: BTreeMap::new(),
    }
}

fn tell(progress: Progress) {
    if progress.new > 0 {
        eprintln!("{} frames", progress.frames);
    }
}
