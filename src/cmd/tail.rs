//! `akis tail`: events of channels on stdout, one envelope a line; comes back and resumes by itself.

mod socket;
mod state;

use std::io::{ErrorKind, Write};
use std::time::Duration;

use akis_model::{Channel, MAX_SEQ};
use akis_service::backoff::Backoff;
use akis_service::{shutdown, telemetry};
use anyhow::{Context, anyhow};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::{GatewayClient, Target};
use crate::failure::{Failure, both};
use socket::{Lost, Socket};
use state::{Next, Start, State};

/// Bounds of the wait before coming back.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// How long a connection may be silent before the gateway has said how often it beats.
const FIRST_SILENCE: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    gateway: GatewayClient,
    /// Channels: binance:BTCUSDT:trades.
    #[arg(value_name = "CHANNEL", required = true)]
    channels: Vec<String>,
    /// Begin with what follows this seq; 0: with all that is kept.
    #[arg(long, value_name = "N", conflicts_with = "since", value_parser = clap::value_parser!(u64).range(..=MAX_SEQ))]
    after: Option<u64>,
    /// Begin with what happened at this time or later, milliseconds since the epoch.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=MAX_SEQ))]
    since: Option<u64>,
    /// At most one event per this many milliseconds, the newest, where the kind of the channel allows it.
    #[arg(long, value_name = "MS")]
    interval: Option<u64>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// How a connection ended, when the command goes on or is done.
enum End {
    /// Nothing more to do.
    Done,
    /// Come back, at the earliest after this; told why.
    Again(Option<Duration>, String),
}

pub(crate) async fn run(args: TailArgs) -> Result<(), Failure> {
    let target = args.gateway.target(&args.channels, &[]);
    let (channels, target) = both(channels(&args.channels), target)?;
    telemetry::start(None, super::QUIET, None);
    let stop = shutdown::on_signals().context("cannot listen for signals")?;
    let start = match (args.after, args.since) {
        (Some(after), _) => Start::After(after),
        (None, Some(since)) => Start::Since(since),
        (None, None) => Start::Live,
    };
    let mut state = State::new(channels, start, args.interval, args.count);
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        let (least, why) = match connection(&target, &mut state, &mut backoff, &stop).await? {
            End::Done => return Ok(()),
            End::Again(least, why) => (least, why),
        };
        let wait = least.unwrap_or_else(|| backoff.next_wait());
        eprintln!("{why}; coming back in {:.1} s", wait.as_secs_f64());
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// The channels by their names, or all that are none.
fn channels(names: &[String]) -> Result<Vec<Channel>, Failure> {
    let (mut channels, mut mistakes) = (Vec::new(), Vec::new());
    for name in names {
        match Channel::parse(name) {
            Ok(channel) => channels.push(channel),
            Err(error) => mistakes.push(format!("{name:?} is no channel: {error}")),
        }
    }
    if mistakes.is_empty() { Ok(channels) } else { Err(Failure::Usage(mistakes)) }
}

/// One connection from its beginning to its end.
async fn connection(
    target: &Target,
    state: &mut State,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> Result<End, Failure> {
    let connected = tokio::select! {
        connected = Socket::connect(target) => connected,
        () = stop.cancelled() => return Ok(End::Done),
    };
    let mut socket = match connected {
        Ok(socket) => socket,
        Err(lost) => return ended(lost),
    };
    let mut timers = Timers::default();
    let mut requests = state.connected();
    loop {
        for request in requests.drain(..) {
            if let Err(lost) = socket.send(request).await {
                return ended(lost);
            }
        }
        let silence = state.heartbeat().map_or(FIRST_SILENCE, |heartbeat| heartbeat * 3 + Duration::from_secs(2));
        let text = tokio::select! {
            read = timeout(silence, socket.text()) => match read {
                Ok(Ok(text)) => text,
                Ok(Err(lost)) => return ended(lost),
                Err(_) => return Ok(End::Again(None, "the connection has gone silent".to_owned())),
            },
            () = until(timers.ask_at) => {
                timers.ask_at = None;
                requests = state.unanswered();
                continue;
            }
            () = until(timers.leave_at) => {
                socket.close().await;
                return Ok(End::Again(Some(Duration::ZERO), "the replica is going away".to_owned()));
            }
            () = stop.cancelled() => {
                socket.close().await;
                return Ok(End::Done);
            }
        };
        if let Some(end) = take(&text, state, backoff, &mut timers)? {
            socket.close().await;
            return Ok(end);
        }
    }
}

/// What a connection waits for beside the next message.
#[derive(Default)]
struct Timers {
    /// When to ask again for channels whose history could not be read.
    ask_at: Option<Instant>,
    /// When to leave a replica that drains.
    leave_at: Option<Instant>,
}

/// Shows a message and does what it says; an end when it was the last one.
fn take(text: &str, state: &mut State, backoff: &mut Backoff, timers: &mut Timers) -> Result<Option<End>, Failure> {
    let heard = state.on_text(text);
    if let Some(words) = heard.say {
        eprintln!("{words}");
    }
    if heard.print && !print(text)? {
        return Ok(Some(End::Done));
    }
    match heard.next {
        Next::Listen => {}
        Next::Healthy => backoff.reset(),
        Next::AskAgain => timers.ask_at = timers.ask_at.or_else(|| Some(Instant::now() + backoff.next_wait())),
        Next::LeaveIn(wait) => timers.leave_at = Some(Instant::now() + wait),
        Next::Done => return Ok(Some(End::Done)),
        Next::Fail(reason) => return Err(anyhow!(reason).into()),
    }
    Ok(None)
}

fn ended(lost: Lost) -> Result<End, Failure> {
    match lost {
        Lost::ComeBack { least, why } => Ok(End::Again(least, why)),
        Lost::ForGood(why) => Err(anyhow!(why).into()),
    }
}

/// Waits for a moment that may not have been set, which never comes.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Prints a line; false when nobody reads any more.
fn print(line: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow!(error).context("cannot write to stdout").into()),
    }
}
