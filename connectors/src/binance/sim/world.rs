//! The one task that owns everything: markets or a recording, the clients, the faults.
//!
//! What happens is decided in plain code; [`run`] only waits for commands and for time to pass.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use super::fault::{Fault, Once};
use super::generator::{Generator, STEP_MS};
use super::hub::{Client, Hub};
use super::playback::Playback;
use super::query::Target;
use super::rest::{self, Gate, Reply};
use crate::binance::market::Market as Venue;
use crate::sim::client::{ClientId, Outgoing};

/// How many symbols there may be.
const MOST_SYMBOLS: usize = 5_000;

/// What connections ask of the world.
pub(super) enum Command {
    /// A client has come.
    Join {
        id: ClientId,
        client: Client,
        /// What its address names.
        streams: Vec<String>,
    },
    /// A client sent a text frame.
    Control { id: ClientId, text: String },
    /// A client has gone.
    Leave { id: ClientId },
    /// A REST request.
    Rest { target: Target, reply: oneshot::Sender<Reply> },
    /// A fault is wanted; the answer says what is wrong with it.
    Fault { fault: Fault, reply: oneshot::Sender<Result<(), String>> },
}

/// What a world begins with, once somebody asks for something.
pub(super) enum Opening {
    Generated { venue: &'static Venue, symbols: Vec<String>, rate: u32, seed: u64 },
    Recorded(Box<Playback>),
}

/// Where frames come from.
enum Market {
    Generated(Generator),
    Recorded(Playback),
}

/// Everything there is.
struct World {
    market: Market,
    hub: Hub,
    gate: Gate,
    frozen: watch::Sender<bool>,
    frozen_until: i64,
}

impl World {
    fn new(opening: Opening, frozen: watch::Sender<bool>, now: i64) -> Self {
        let market = match opening {
            Opening::Generated { venue, symbols, rate, seed } => {
                Market::Generated(Generator::new(venue, &symbols, rate, seed, now))
            }
            Opening::Recorded(playback) => Market::Recorded(*playback),
        };
        Self { market, hub: Hub::default(), gate: Gate::default(), frozen, frozen_until: i64::MIN }
    }

    /// Whether nothing moves at `now`; connections learn of it too.
    fn is_frozen(&self, now: i64) -> bool {
        let frozen = now < self.frozen_until;
        self.frozen.send_if_modified(|known| std::mem::replace(known, frozen) != frozen);
        frozen
    }

    fn advance(&mut self, now: i64) {
        match &mut self.market {
            Market::Generated(generator) => generator.advance(now, &mut self.hub),
            Market::Recorded(playback) => playback.advance(now, &mut self.hub),
        }
    }

    fn handle(&mut self, command: Command, now: i64) {
        match command {
            Command::Join { id, client, streams } => self.hub.join(id, client, streams),
            Command::Control { id, text } => self.hub.control(id, &text),
            Command::Leave { id } => self.hub.leave(id),
            Command::Rest { target, reply } => self.rest(&target, reply, now),
            Command::Fault { fault, reply } => {
                // Who asked may be gone by now; the fault happens all the same.
                let _ = reply.send(self.fault(fault, now));
            }
        }
    }

    fn rest(&mut self, target: &Target, reply: oneshot::Sender<Reply>, now: i64) {
        let venue_time = match &self.market {
            Market::Generated(generator) => now.saturating_add(generator.clock_skew()),
            Market::Recorded(_) => now,
        };
        let answer = match (self.gate.admit(target, now), rest::common(target, venue_time)) {
            (Err(refusal), _) => Err(refusal),
            (Ok(()), Some(body)) => Ok(body),
            (Ok(()), None) => match &mut self.market {
                Market::Generated(generator) => rest::answer(target, generator),
                Market::Recorded(playback) => return playback.answer(target, reply, self.gate.used_weight()),
            },
        };
        let dripped = self.gate.drips();
        let _ = reply.send(Reply { dripped, ..Reply::new(answer, self.gate.used_weight(), now) });
    }

    fn fault(&mut self, fault: Fault, now: i64) -> Result<(), String> {
        if let Some(symbol) = fault.symbol()
            && !self.has(symbol)
        {
            return Err(format!("there is no symbol {symbol}"));
        }
        let faults = &mut self.hub.faults;
        match fault {
            Fault::DropDiff { symbol } => faults.once(Once::DropDiff, symbol),
            Fault::Duplicate { symbol } => faults.once(Once::Duplicate, symbol),
            Fault::Reorder { symbol } => faults.once(Once::Reorder, symbol),
            Fault::WrongSequence { symbol } => {
                self.generated()?;
                self.hub.faults.once(Once::WrongSequence, symbol);
            }
            Fault::CrossedBook { symbol } => {
                self.generated()?;
                self.hub.faults.once(Once::Cross, symbol);
            }
            Fault::Delay { ms, symbol } => faults.delay(now.saturating_add(ms), symbol),
            Fault::Stall { stream } => self.hub.stall(stream),
            Fault::Silence { ms, symbol } => faults.silence(now.saturating_add(ms), symbol),
            Fault::Freeze { ms } => self.frozen_until = now.saturating_add(ms),
            Fault::BadFrame { text } => self.hub.send_all(|_| Outgoing::Text(text.as_str().into())),
            Fault::HalfFrame {} => {
                self.hub.send_all(|_| Outgoing::Half(r#"{"stream":"btcusdt@aggTrade","data":{"#.into()))
            }
            Fault::Close { code, .. } if !CloseCode::from(code).is_allowed() => {
                return Err(format!("a close frame cannot carry {code}"));
            }
            Fault::Close { code, reason } if reason.len() <= 123 => {
                self.hub.send_all(|_| Outgoing::Close(code, reason.clone()));
            }
            Fault::Close { .. } => return Err("the reason has more than 123 bytes".into()),
            Fault::Cut {} => self.hub.cut_all(),
            Fault::Shutdown {} => self.hub.send_all(|client| shutdown_notice(client.combined, now)),
            Fault::RestStatus { status, .. } if !(400..=599).contains(&status) => {
                return Err(format!("{status} is not the status of a failure"));
            }
            Fault::RestStatus { status, times } => self.gate.fail(status, times),
            Fault::SlowLoris { times } => self.gate.drip(times),
            Fault::ClockSkew { ms } => self.generated()?.skew_clock(ms),
            Fault::NewSymbols { count } => {
                let generated = self.generated()?;
                let known = generated.listings().len();
                if known.saturating_add(count) > MOST_SYMBOLS {
                    return Err(format!("more than {MOST_SYMBOLS} symbols are too many"));
                }
                (known..known + count).for_each(|number| generated.list(&format!("NEW{number}USDT")));
            }
            Fault::Delist { symbol } => self.generated()?.delist(&symbol),
        }
        Ok(())
    }

    fn generated(&mut self) -> Result<&mut Generator, String> {
        match &mut self.market {
            Market::Generated(generator) => Ok(generator),
            Market::Recorded(_) => Err("a recording is played as it is".into()),
        }
    }

    fn has(&self, symbol: &str) -> bool {
        match &self.market {
            Market::Generated(generator) => generator.has(symbol),
            Market::Recorded(playback) => playback.has(symbol),
        }
    }
}

fn shutdown_notice(combined: bool, now: i64) -> Outgoing {
    let data = format!(r#"{{"e":"serverShutdown","E":{now}}}"#);
    let text = if combined { format!(r#"{{"stream":"!serverShutdown","data":{data}}}"#) } else { data };
    Outgoing::Text(text.into())
}

/// Waits for a first command, then lets time pass and carries out commands until it is cancelled. `start` is the present, in milliseconds.
/// `frozen` is told while nothing is to move.
pub(super) async fn run(
    opening: Opening,
    frozen: watch::Sender<bool>,
    start: i64,
    mut commands: mpsc::Receiver<Command>,
    cancel: CancellationToken,
) {
    // The clock may be set while this runs; time here only goes forward.
    let started = Instant::now();
    let now = || start + i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX - start);
    let first = tokio::select! {
        () = cancel.cancelled() => return,
        first = commands.recv() => first,
    };
    let Some(first) = first else { return };
    let mut world = World::new(opening, frozen, now());
    world.handle(first, now());
    let mut ticks = tokio::time::interval(Duration::from_millis(STEP_MS.unsigned_abs()));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let frozen = world.is_frozen(now());
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => if !frozen { world.advance(now()) },
            command = commands.recv(), if !frozen => match command {
                Some(command) => world.handle(command, now()),
                None => return,
            },
        }
    }
}
