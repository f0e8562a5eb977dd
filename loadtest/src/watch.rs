//! `akis-bench watch`: clients that stay while a system around them is rolled, scaled or broken, and check every position.
//!
//! Each client resumes by itself and replaces a connection whose replica drains, as `docs/protocol.md` says. What they are
//! told is held against each other, and reported in JSON.

mod client;
mod connection;
mod follow;
mod ledger;

use std::cell::RefCell;
use std::io::{BufRead, Write, stdin, stdout};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::LocalSet;
use tokio::time::interval;

use crate::SPARE_FILES;
use crate::usage::max_open_files;
use client::{Client, until};
use connection::Url;
use follow::Follow;
use ledger::Ledger;

/// Handshakes under way at a time.
const CONNECTING: usize = 64;

/// How often to look whether everybody is subscribed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Keeps clients that check every position, while the system around them is rolled, scaled or broken.
///
/// A line `phase NAME` on stdin, or SIGUSR1, ends a phase: the report so far is printed, as one line of JSON on stdout, and the
/// next phase begins. SIGTERM, SIGINT, a line `stop` or the end of --seconds ends the watch with a last report. The exit code
/// is 1 when a client lost something without being told, got something twice, or could not go on.
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    /// Where clients connect, ws://HOST:PORT/live; more of them are taken in turn.
    #[arg(long = "url", value_name = "URL", required = true, value_delimiter = ',', value_parser = Url::parse)]
    urls: Vec<Url>,
    /// What clients show.
    #[arg(long, env = "AKIS_TOKEN", value_name = "JWT", hide_env_values = true)]
    token: String,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 100)]
    clients: usize,
    /// What each of them subscribes to.
    #[arg(long, value_name = "CHANNEL", required = true, value_delimiter = ',')]
    channels: Vec<String>,
    /// For how long [default: until it is told to stop].
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

/// Why to print a report.
enum Mark {
    /// Another phase begins.
    Phase(String),
    /// Nothing more is watched.
    Stop,
}

/// Everything that can end a phase.
struct Marks {
    lines: mpsc::Receiver<String>,
    next: Signal,
    terminate: Signal,
    interrupt: Signal,
    ends_at: Option<Instant>,
    /// Phases so far, for those that come without a name.
    phases: usize,
}

/// Runs clients until it is told to stop.
///
/// # Errors
///
/// When a client was wronged, or nothing can be watched at all.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(args: WatchArgs) -> Result<()> {
    let needed = args.clients + SPARE_FILES;
    if max_open_files()? < needed {
        bail!("{} clients need {needed} open files: ulimit -n {needed}", args.clients);
    }
    let mut marks = Marks::new(args.seconds.map(Duration::from_secs))?;
    let ledger = Rc::new(RefCell::new(Ledger::new(&args.channels, args.clients, Instant::now())?));
    let set = LocalSet::new();
    start(&set, &args, &ledger);
    set.run_until(async {
        let mut look = interval(LOOK_EVERY);
        let mut has_told = false;
        loop {
            let mark = tokio::select! {
                mark = marks.next() => mark,
                _ = look.tick(), if !has_told => {
                    has_told = ledger.borrow().connected() == args.clients;
                    if has_told {
                        eprintln!("{} clients are subscribed to {} channels", args.clients, args.channels.len());
                    }
                    continue;
                }
            };
            let name = if let Mark::Phase(name) = &mark { name } else { "" };
            ledger.borrow_mut().mark(name, Instant::now());
            writeln!(stdout(), "{}", ledger.borrow().report()).context("write to stdout")?;
            if matches!(mark, Mark::Stop) {
                return if ledger.borrow().is_clean() { Ok(()) } else { bail!("clients were wronged: see the report") };
            }
        }
    })
    .await
}

fn start(set: &LocalSet, args: &WatchArgs, ledger: &Rc<RefCell<Ledger>>) {
    let urls: Rc<[Url]> = args.urls.clone().into();
    let (token, connecting) = (Rc::from(args.token.as_str()), Rc::new(Semaphore::new(CONNECTING)));
    for number in 0..args.clients {
        let client = Client {
            number,
            urls: Rc::clone(&urls),
            token: Rc::clone(&token),
            follow: Follow::new(number, &args.channels),
            ledger: Rc::clone(ledger),
            connecting: Rc::clone(&connecting),
            attempts: number,
        };
        set.spawn_local(client.run());
    }
}

impl Marks {
    fn new(lasts: Option<Duration>) -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            lines: read_lines(),
            next: listen(SignalKind::user_defined1())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            ends_at: lasts.map(|lasts| Instant::now() + lasts),
            phases: 1,
        })
    }

    /// The next reason to print a report.
    async fn next(&mut self) -> Mark {
        loop {
            let line = tokio::select! {
                // Its end is no reason to stop.
                Some(line) = self.lines.recv() => line,
                _ = self.next.recv() => "phase".to_owned(),
                _ = self.terminate.recv() => return Mark::Stop,
                _ = self.interrupt.recv() => return Mark::Stop,
                () = until(self.ends_at) => return Mark::Stop,
            };
            match line.split_once(' ').unwrap_or((line.trim(), "")) {
                ("stop", _) => return Mark::Stop,
                ("phase", name) => {
                    self.phases += 1;
                    let name = name.trim();
                    return Mark::Phase(if name.is_empty() { self.phases.to_string() } else { name.to_owned() });
                }
                _ => eprintln!("not understood: {line:?}; say \"phase NAME\" or \"stop\""),
            }
        }
    }
}

/// Lines of stdin, read on a thread that waits when nobody takes them, and that ends with the process.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let lines = stdin().lock().lines().map_while(Result::ok);
        // An error says that nobody listens any more.
        lines.map(|line| sender.blocking_send(line)).take_while(Result::is_ok).for_each(drop);
    });
    lines
}

#[cfg(test)]
mod tests;
