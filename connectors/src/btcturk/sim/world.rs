//! The one task that owns everything: pairs or a recording, the clients, the faults.
//!
//! What happens is decided in plain code; [`run`] only waits for commands and for time to pass.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use super::clients::{Client, Clients, Join, understand};
use super::fault::{Fault, Once};
use super::frames;
use super::pair::{Pair, Trade};
use super::playback::{Asker, Playback};
use super::rest::{self, Gate, Reply};
use super::window::{Change, Difference, Window};
use crate::sim::client::{ClientId, Outgoing};

/// The length of a step.
const STEP_MS: i64 = 10;

/// How often books and tickers go out: what was measured at the venue.
const BATCH_MS: i64 = 764;

/// Falling behind by more than this (a suspended machine) is not made up for.
const MOST_LAG_MS: i64 = 5_000;

/// Most pairs that can be traded.
const MOST_PAIRS: usize = 5_000;

/// The resolutions of candles that are served, and their minutes. Those of a week and of a month are not.
pub(super) const RESOLUTIONS: [(&str, i64); 7] =
    [("1", 1), ("5", 5), ("15", 15), ("30", 30), ("60", 60), ("240", 240), ("1D", 1_440)];

/// What connections ask of the world.
pub(super) enum Command {
    /// A client has come.
    Add { id: ClientId, client: Client },
    /// A client sent a text frame.
    Text { id: ClientId, text: String },
    /// A client has gone.
    Leave { id: ClientId },
    /// A REST request: path and query.
    Rest { target: String, reply: oneshot::Sender<Reply> },
    /// A fault is wanted; the answer says what is wrong with it.
    Fault { fault: Fault, reply: oneshot::Sender<Result<(), String>> },
}

/// Where frames come from.
pub(super) enum Market {
    Generated(Generated),
    Recorded(Box<Playback>),
}

/// Made-up pairs and the time in them.
pub(super) struct Generated {
    pairs: Vec<Listing>,
    by_symbol: BTreeMap<String, usize>,
    /// Sums of the weights up to each pair.
    weights: Vec<u64>,
    rng: Rng,
    seed: u64,
    rate: u32,
    /// Events that are due, in thousandths.
    credit: u64,
    step: i64,
    base: i64,
    /// By how much the venue's clock is off.
    pub(super) skew: i64,
}

/// A pair with what was told of its book.
pub(super) struct Listing {
    pair: Pair,
    told: Window,
    is_delisted: bool,
}

impl Market {
    /// Pairs of these names, at least one, at the moment `now`.
    pub(super) fn generated(symbols: &[String], rate: u32, seed: u64, now: i64) -> Self {
        let mut generated = Generated {
            pairs: Vec::new(),
            by_symbol: BTreeMap::new(),
            weights: Vec::new(),
            rng: Rng::with_seed(seed),
            seed,
            rate,
            credit: 0,
            step: 0,
            base: now,
            skew: 0,
        };
        symbols.iter().for_each(|symbol| generated.list(symbol));
        Self::Generated(generated)
    }
}

impl Generated {
    /// The moment of the last step.
    pub(super) fn now(&self) -> i64 {
        self.base + self.step * STEP_MS
    }

    /// The pairs that are listed, the busiest first.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(|listing| !listing.is_delisted).map(|listing| &listing.pair)
    }

    pub(super) fn pair(&self, symbol: &str) -> Option<&Pair> {
        self.listing(symbol).map(|listing| &listing.pair)
    }

    fn listing(&self, symbol: &str) -> Option<&Listing> {
        let found = self.by_symbol.get(symbol).and_then(|&at| self.pairs.get(at));
        found.filter(|listing| !listing.is_delisted)
    }

    fn list(&mut self, symbol: &str) {
        if self.by_symbol.contains_key(symbol) {
            return;
        }
        let pair = Pair::new(symbol, self.seed, self.now());
        // The first pairs are the busiest.
        let weight = 10_000 / (1 + self.pairs.len() as u64 / 2);
        self.weights.push(self.weights.last().copied().unwrap_or(0) + weight.max(1));
        self.by_symbol.insert(symbol.to_owned(), self.pairs.len());
        self.pairs.push(Listing { told: pair.window(), pair, is_delisted: false });
    }

    fn advance(&mut self, now: i64, clients: &mut Clients) {
        let lag = now - self.now();
        if lag > MOST_LAG_MS {
            self.base += lag;
        }
        while self.now() + STEP_MS <= now {
            self.step += 1;
            clients.now = self.now();
            clients.release();
            self.take_step(clients);
        }
    }

    fn take_step(&mut self, clients: &mut Clients) {
        let now = self.now();
        self.credit += u64::from(self.rate) * STEP_MS as u64;
        for _ in 0..self.credit / 1_000 {
            let total = self.weights.last().copied().unwrap_or(1);
            let drawn = self.rng.u64(0..total);
            let chosen = self.weights.partition_point(|&sum| sum <= drawn);
            if let Some(listing) = self.pairs.get_mut(chosen).filter(|listing| !listing.is_delisted)
                && let Some(trade) = listing.pair.act(now)
            {
                listing.tell_trade(&trade, self.skew, clients);
            }
        }
        self.credit %= 1_000;
        // Pairs take turns, so that frames do not all come in one burst.
        let batch = BATCH_MS / STEP_MS;
        for (i, listing) in self.pairs.iter_mut().enumerate() {
            if (self.step + i as i64) % batch == 0 && !listing.is_delisted {
                listing.tell_batch(now, clients);
            }
        }
        if self.step % batch == 0 {
            clients.publish("ticker", "all", "", || frames::tickers(self.pairs(), now));
        }
    }
}

impl Listing {
    fn tell_trade(&self, trade: &Trade, skew: i64, clients: &mut Clients) {
        let symbol = &self.pair.symbol;
        let copies = if clients.faults.take(Once::DuplicateTrade, symbol) { 2 } else { 1 };
        let is_dropped = clients.faults.take(Once::DropTrade, symbol);
        for _ in (0..copies).filter(|_| !is_dropped) {
            clients.publish("trade", symbol, symbol, || frames::trade(&self.pair, trade, skew));
        }
        for (resolution, minutes) in RESOLUTIONS {
            let event = format!("{symbol}_{resolution}");
            if clients.readers("tradeview", &event).is_empty() {
                continue;
            }
            let length = minutes * super::pair::MINUTE_MS;
            let open_time = trade.time - trade.time.rem_euclid(length);
            if let Some(candle) = self.pair.candles(minutes, open_time, open_time).first() {
                clients.publish("tradeview", &event, symbol, || frames::candle(&self.pair, resolution, candle, skew));
            }
        }
    }

    fn tell_batch(&mut self, now: i64, clients: &mut Clients) {
        let symbol = self.pair.symbol.clone();
        // Repeated whether or not anything has changed.
        if let Some(ticker) = frames::ticker(&self.pair, now) {
            clients.publish("ticker", &symbol, &symbol, || ticker);
        }
        let window = self.pair.window();
        let mut difference = Difference::between(&self.told, &window);
        if difference.is_empty() {
            return;
        }
        if clients.faults.take(Once::Cross, &symbol) {
            let [_, (ask, lots)] = self.pair.best();
            difference.bids.push((Change::New, (ask + ask / 100 + 1, lots)));
        }
        clients.publish_difference(&symbol, |number| frames::difference(&self.pair, number, &difference));
        for id in clients.readers("orderbook", &symbol) {
            let number = clients.number(id, "orderbook", &symbol) + 1;
            clients.set_number(id, "orderbook", &symbol, number);
            clients.send(id, &symbol, Outgoing::Text(frames::whole(&self.pair, "orderbook", number, &window).into()));
        }
        self.told = window;
    }

    /// What a client hears right after it has joined.
    fn tell_newcomer(&self, id: ClientId, channel: &str, skew: i64, clients: &mut Clients) {
        let symbol = &self.pair.symbol;
        let text = match channel {
            "obdiff" | "orderbook" => {
                frames::whole(&self.pair, channel, clients.number(id, channel, symbol), &self.told)
            }
            "trade" => frames::trades(&self.pair, skew),
            _ => return,
        };
        clients.send(id, symbol, Outgoing::Text(text.into()));
    }
}

/// Everything there is.
pub(super) struct World {
    market: Market,
    clients: Clients,
    gate: Gate,
    /// Tells the connections to stand still.
    frozen: watch::Sender<bool>,
    frozen_until: i64,
}

impl World {
    pub(super) fn new(market: Market, seed: u64, frozen: watch::Sender<bool>) -> Self {
        Self { market, clients: Clients::new(seed), gate: Gate::default(), frozen, frozen_until: i64::MIN }
    }

    /// Whether everything stands still at `now`. Tells the connections when that changes.
    fn is_frozen(&self, now: i64) -> bool {
        let frozen = now < self.frozen_until;
        self.frozen.send_if_modified(|known| std::mem::replace(known, frozen) != frozen);
        frozen
    }

    fn advance(&mut self, now: i64) {
        match &mut self.market {
            Market::Generated(generated) => generated.advance(now, &mut self.clients),
            Market::Recorded(playback) => {
                self.clients.now = now;
                self.clients.release();
                playback.advance(now, &mut self.clients);
            }
        }
    }

    fn handle(&mut self, command: Command, now: i64) {
        match command {
            Command::Add { id, client } => self.clients.add(id, client),
            Command::Text { id, text } => {
                if let Some(asked) = understand(&text) {
                    self.join(id, &asked, now);
                }
            }
            Command::Leave { id } => self.clients.leave(id),
            Command::Rest { target, reply } => {
                let asker = Asker { reply, dripped: self.gate.drips() };
                match (self.gate.admit(&target, now), &mut self.market) {
                    (Err(refusal), _) => asker.answer(Err(refusal)),
                    (Ok(()), Market::Generated(generated)) => asker.answer(rest::answer(&target, generated)),
                    (Ok(()), Market::Recorded(playback)) => playback.answer(&target, asker),
                }
            }
            Command::Fault { fault, reply } => {
                // Who asked may be gone by now; the fault happens all the same.
                let _ = reply.send(self.fault(fault, now));
            }
        }
    }

    fn join(&mut self, id: ClientId, asked: &Join, now: i64) {
        if !self.clients.carry_out(id, asked) {
            return;
        }
        match &mut self.market {
            Market::Generated(generated) => {
                if let Some(listing) = generated.listing(&asked.event) {
                    listing.tell_newcomer(id, &asked.channel, generated.skew, &mut self.clients);
                }
            }
            Market::Recorded(playback) => playback.welcome(id, asked, now, &mut self.clients),
        }
    }

    fn fault(&mut self, fault: Fault, now: i64) -> Result<(), String> {
        if let Some(symbol) = fault.symbol()
            && !self.has(symbol)
        {
            return Err(format!("there is no pair {symbol}"));
        }
        let faults = &mut self.clients.faults;
        match fault {
            Fault::DropDiff { symbol } => faults.once(Once::DropDiff, symbol),
            Fault::DropTrade { symbol } => faults.once(Once::DropTrade, symbol),
            Fault::Duplicate { symbol } => {
                faults.once(Once::DuplicateDiff, symbol.clone());
                faults.once(Once::DuplicateTrade, symbol);
            }
            Fault::Reorder { symbol } => faults.once(Once::Reorder, symbol),
            Fault::WrongSequence { symbol } => faults.once(Once::WrongSequence, symbol),
            Fault::CrossedBook { symbol } => faults.once(Once::Cross, symbol),
            Fault::Delay { ms, symbol } => faults.delay(now.saturating_add(ms), symbol),
            Fault::Silence { ms, symbol } => faults.silence(now.saturating_add(ms), symbol),
            Fault::Freeze { ms } => self.frozen_until = now.saturating_add(ms),
            Fault::BadFrame { text } => self.clients.send_all(&Outgoing::Text(text.into())),
            Fault::HalfFrame {} => self.clients.send_all(&Outgoing::Half(frames::VERSION.into())),
            Fault::Close { code, .. } if !CloseCode::from(code).is_allowed() => {
                return Err(format!("a close frame cannot carry {code}"));
            }
            Fault::Close { code, reason } if reason.len() <= 123 => {
                self.clients.send_all(&Outgoing::Close(code, reason));
            }
            Fault::Close { .. } => return Err("the reason has more than 123 bytes".into()),
            Fault::Cut {} => self.clients.cut_all(),
            Fault::RestStatus { status, .. } if !(400..=599).contains(&status) => {
                return Err(format!("{status} is not the status of a failure"));
            }
            Fault::RestStatus { status, times } => self.gate.fail(status, times),
            Fault::SlowLoris { times } => self.gate.drip(times),
            Fault::ClockSkew { ms } => self.generated()?.skew = ms,
            Fault::Delist { symbol } => {
                let generated = self.generated()?;
                let delisted = generated.pairs.iter_mut().filter(|listing| listing.pair.symbol == symbol);
                delisted.for_each(|listing| listing.is_delisted = true);
            }
            Fault::NewSymbols { count } => {
                let generated = self.generated()?;
                let known = generated.pairs.len();
                if known + count > MOST_PAIRS {
                    return Err(format!("more than {MOST_PAIRS} pairs are too many"));
                }
                (0..count).for_each(|n| generated.list(&format!("NEW{}TRY", known + n)));
            }
        }
        Ok(())
    }

    fn generated(&mut self) -> Result<&mut Generated, String> {
        match &mut self.market {
            Market::Generated(generated) => Ok(generated),
            Market::Recorded(_) => Err("a recording is played as it is".into()),
        }
    }

    fn has(&self, symbol: &str) -> bool {
        match &self.market {
            Market::Generated(generated) => generated.by_symbol.contains_key(symbol),
            Market::Recorded(playback) => playback.has(symbol),
        }
    }
}

/// Lets time pass and carries out commands until it is cancelled. `start` is the present, in milliseconds.
pub(super) async fn run(
    mut world: World,
    start: i64,
    mut commands: mpsc::Receiver<Command>,
    cancel: CancellationToken,
) {
    // The clock may be set while this runs; time here only goes forward.
    let started = Instant::now();
    let now = || start + i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX - start);
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
