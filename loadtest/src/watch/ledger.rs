//! What all clients of a watch were told, held against each other: plain code, without sockets.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::tally::histogram;

/// Positions that are remembered of each channel, so that what one client was told can be held against another.
const REMEMBERED: usize = 100_000;

/// Stretches of each channel that clients were told to be empty, and that are remembered.
const EMPTY_REMEMBERED: usize = 1000;

/// Mistakes that are told in words.
const EXAMPLES: usize = 20;

/// Counts and times of all clients, phase by phase.
#[derive(Debug)]
pub(crate) struct Ledger {
    channels: Vec<Known>,
    clients: Vec<Progress>,
    ended: Vec<Phase>,
    phase: Phase,
    examples: Vec<String>,
    failures: Vec<String>,
}

/// What is known of a channel from all clients together.
#[derive(Debug, Default)]
struct Known {
    name: String,
    /// Digests of events, by position.
    events: BTreeMap<u64, u64>,
    /// Stretches (above the first, up to the second) that so many clients were told to be empty.
    empty: BTreeMap<(u64, u64), u64>,
}

/// How long a client has gone without an event.
#[derive(Debug, Clone, Default)]
struct Progress {
    is_connected: bool,
    last_event: Option<Instant>,
    /// The longest pause that ended in this phase.
    longest: Duration,
}

/// What is counted. All of it rises only.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Events.
    pub(crate) deliveries: u64,
    /// Stretches that a `gap` named.
    pub(crate) gaps: u64,
    /// Stretches that a `backpressure_drop` named.
    pub(crate) drops: u64,
    /// Events that these say were dropped.
    pub(crate) dropped_events: u64,
    /// Resumptions that were answered `recovered: false`.
    pub(crate) not_recovered: u64,
    /// Events that are missing without a word, or positions where the number of events cannot be known.
    pub(crate) silent_losses: u64,
    /// Events at a position that the client had before.
    pub(crate) duplicates: u64,
    /// Other things that the protocol rules out, such as two contents at one position.
    pub(crate) wrong: u64,
    /// Connections that ended without the client's doing.
    pub(crate) cuts: u64,
    /// Connections that were replaced by a new one before they ended, because their replica was draining.
    pub(crate) replaced: u64,
    /// Attempts to connect that failed.
    pub(crate) refusals: u64,
}

#[derive(Debug)]
struct Phase {
    name: String,
    began: Instant,
    lasted: Duration,
    counts: Counts,
    /// From the moment at which a trade happened (`ts`) to the client, of those that came live, in milliseconds.
    delays_ms: Histogram<u64>,
    /// Longest pauses of the clients in ascending order, once it has ended.
    pauses: Vec<Duration>,
}

impl Phase {
    fn new(name: &str, began: Instant, delays_ms: Histogram<u64>) -> Self {
        let (name, counts, pauses) = (name.to_owned(), Counts::default(), Vec::new());
        Self { name, began, lasted: Duration::ZERO, counts, delays_ms, pauses }
    }

    fn to_json(&self) -> Value {
        let pause_ms = |share: f64| {
            let rank = (self.pauses.len() as f64 * share).ceil() as usize;
            self.pauses.get(rank.saturating_sub(1)).map_or(0, Duration::as_millis)
        };
        let mut report = self.counts.to_json();
        report["tradeDelayMs"] = delays(&self.delays_ms);
        report["name"] = json!(self.name);
        report["seconds"] = json!((self.lasted.as_secs_f64() * 10.0).round() / 10.0);
        report["longestHoleMs"] = json!(pause_ms(1.0));
        report["holeMs"] = json!({ "p50": pause_ms(0.5), "p90": pause_ms(0.9), "p99": pause_ms(0.99) });
        report
    }
}

/// What is told of delays; nothing when there were none.
fn delays(ms: &Histogram<u64>) -> Value {
    if ms.is_empty() {
        return Value::Null;
    }
    let share = |share| ms.value_at_quantile(share);
    json!({ "p50": share(0.5), "p95": share(0.95), "p99": share(0.99), "max": ms.max() })
}

impl Counts {
    fn to_json(self) -> Value {
        json!({
            "deliveries": self.deliveries,
            "gaps": self.gaps,
            "drops": self.drops,
            "droppedEvents": self.dropped_events,
            "notRecovered": self.not_recovered,
            "silentLosses": self.silent_losses,
            "duplicates": self.duplicates,
            "wrong": self.wrong,
            "cuts": self.cuts,
            "replaced": self.replaced,
            "refusals": self.refusals,
        })
    }

    fn add(&mut self, other: &Self) {
        self.deliveries += other.deliveries;
        self.gaps += other.gaps;
        self.drops += other.drops;
        self.dropped_events += other.dropped_events;
        self.not_recovered += other.not_recovered;
        self.silent_losses += other.silent_losses;
        self.duplicates += other.duplicates;
        self.wrong += other.wrong;
        self.cuts += other.cuts;
        self.replaced += other.replaced;
        self.refusals += other.refusals;
    }
}

impl Ledger {
    /// Of so many clients that follow these channels. The first phase is called `start`.
    ///
    /// # Errors
    ///
    /// None that can happen: the precision is one that histograms have.
    pub(crate) fn new(channels: &[String], clients: usize, now: Instant) -> Result<Self> {
        let channels = channels.iter().map(|name| Known { name: name.clone(), ..Known::default() }).collect();
        let clients = vec![Progress::default(); clients];
        let phase = Phase::new("start", now, histogram()?);
        Ok(Self { channels, clients, ended: Vec::new(), phase, examples: Vec::new(), failures: Vec::new() })
    }

    /// The counts of the present phase, to add to.
    pub(crate) fn counts(&mut self) -> &mut Counts {
        &mut self.phase.counts
    }

    /// A client was given an event.
    pub(crate) fn event(&mut self, client: usize, channel: usize, seq: u64, text: &[u8], now: Instant) {
        self.phase.counts.deliveries += 1;
        let progress = &mut self.clients[client];
        if let Some(last) = progress.last_event.replace(now) {
            progress.longest = progress.longest.max(now.saturating_duration_since(last));
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let digest = hasher.finish();
        let known = &mut self.channels[channel];
        match known.events.insert(seq, digest) {
            Some(before) if before == digest => {}
            Some(_) => self.wrong(client, channel, format!("has another content at {seq} than before")),
            None => {
                if known.events.len() > REMEMBERED {
                    known.events.pop_first();
                }
                let hidden = known.empty.iter().filter(|((after, to), _)| *after < seq && seq <= *to);
                let hidden: u64 = hidden.map(|(_, clients)| clients).sum();
                if hidden > 0 {
                    self.lost(
                        client,
                        channel,
                        hidden,
                        format!("{seq} exists, and clients were told that nothing does"),
                    );
                }
            }
        }
    }

    /// A trade that came live had happened so long before.
    pub(crate) fn delay(&mut self, ms: u64) {
        self.phase.delays_ms.saturating_record(ms);
    }

    /// A client was told that no event lies above `after` and up to `to`.
    pub(crate) fn empty(&mut self, client: usize, channel: usize, after: u64, to: u64) {
        if to <= after {
            return;
        }
        let known = &mut self.channels[channel];
        let hidden = known.events.range(after + 1..=to).count() as u64;
        *known.empty.entry((after, to)).or_default() += 1;
        if known.empty.len() > EMPTY_REMEMBERED {
            known.empty.pop_first();
        }
        if hidden > 0 {
            self.lost(client, channel, hidden, format!("{hidden} events between {after} and {to} are hidden"));
        }
    }

    /// A client misses events and was not told.
    pub(crate) fn lost(&mut self, client: usize, channel: usize, events: u64, why: String) {
        self.phase.counts.silent_losses += events;
        self.example(client, channel, &why);
    }

    /// A client was given an event again.
    pub(crate) fn duplicate(&mut self, client: usize, channel: usize, why: String) {
        self.phase.counts.duplicates += 1;
        self.example(client, channel, &why);
    }

    /// A client was told something that may not be.
    pub(crate) fn wrong(&mut self, client: usize, channel: usize, why: String) {
        self.phase.counts.wrong += 1;
        self.example(client, channel, &why);
    }

    /// A client has, or no longer has, a connection on which it is subscribed to everything.
    pub(crate) fn set_connected(&mut self, client: usize, is_connected: bool) {
        self.clients[client].is_connected = is_connected;
    }

    /// A client ended for good.
    pub(crate) fn fail(&mut self, client: usize, why: &str) {
        self.failures.push(format!("client {client}: {why}"));
    }

    /// Clients that are subscribed to everything now.
    pub(crate) fn connected(&self) -> usize {
        self.clients.iter().filter(|client| client.is_connected).count()
    }

    /// Whether nobody was wronged: no silent loss, no duplicate, nothing that the protocol rules out, no client that
    /// had to end.
    pub(crate) fn is_clean(&self) -> bool {
        let total = self.total();
        total.silent_losses + total.duplicates + total.wrong == 0 && self.failures.is_empty()
    }

    /// Ends the present phase and begins the next one.
    pub(crate) fn mark(&mut self, next: &str, now: Instant) {
        self.phase.lasted = now.saturating_duration_since(self.phase.began);
        let mut pauses: Vec<Duration> = self.clients.iter_mut().map(|client| client.take_pause(now)).collect();
        pauses.sort();
        self.phase.pauses = pauses;
        let mut delays_ms = self.phase.delays_ms.clone();
        delays_ms.reset();
        self.ended.push(std::mem::replace(&mut self.phase, Phase::new(next, now, delays_ms)));
    }

    /// Everything up to the last mark.
    pub(crate) fn report(&self) -> Value {
        let longest = self.ended.iter().filter_map(|phase| phase.pauses.last()).max();
        let mut total = self.total().to_json();
        let mut delays_ms = self.phase.delays_ms.clone();
        self.ended.iter().for_each(|phase| delays_ms += &phase.delays_ms);
        total["tradeDelayMs"] = delays(&delays_ms);
        total["longestHoleMs"] = json!(longest.map_or(0, Duration::as_millis));
        json!({
            "clients": self.clients.len(),
            "connected": self.connected(),
            "total": total,
            "phases": self.ended.iter().map(Phase::to_json).collect::<Vec<_>>(),
            "examples": self.examples,
            "failures": self.failures,
        })
    }

    fn total(&self) -> Counts {
        let mut total = self.phase.counts;
        self.ended.iter().for_each(|phase| total.add(&phase.counts));
        total
    }

    fn example(&mut self, client: usize, channel: usize, why: &str) {
        if self.examples.len() < EXAMPLES {
            let channel = self.channels.get(channel).map_or("", |known| &known.name);
            self.examples.push(format!("client {client}, {channel}, phase {}: {why}", self.phase.name));
        }
    }
}

impl Progress {
    /// The longest pause of the phase that ends, one that still lasts included. It counts in full where it ends, too.
    fn take_pause(&mut self, now: Instant) -> Duration {
        let present = self.last_event.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        std::mem::take(&mut self.longest).max(present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> (Ledger, Instant) {
        let now = Instant::now();
        (Ledger::new(&["job:1".to_owned()], 2, now).unwrap(), now)
    }

    #[test]
    fn what_one_client_saw_shows_what_another_was_not_told() {
        let (mut ledger, now) = ledger();
        ledger.event(0, 0, 5, b"five", now);
        ledger.empty(1, 0, 4, 4);
        assert!(ledger.is_clean(), "nothing was said of any position");
        ledger.empty(1, 0, 4, 9);
        assert_eq!(ledger.total().silent_losses, 1, "5 lies there");
        ledger.event(0, 0, 7, b"seven", now);
        assert_eq!(ledger.total().silent_losses, 2, "also when the other client is told later");
        ledger.event(0, 0, 10, b"ten", now);
        ledger.event(1, 0, 10, b"ten", now);
        assert_eq!((ledger.total().silent_losses, ledger.total().wrong), (2, 0));
        ledger.event(1, 0, 7, b"something else", now);
        assert_eq!(ledger.total().wrong, 1);
        assert!(!ledger.is_clean());
    }

    #[test]
    fn pauses_are_told_of_each_phase_and_the_one_that_lasts_too() {
        let (mut ledger, start) = ledger();
        let at = |ms: u64| start + Duration::from_millis(ms);
        ledger.event(0, 0, 1, b"", at(1000));
        ledger.event(0, 0, 2, b"", at(1300));
        ledger.event(1, 0, 2, b"", at(1300));
        ledger.mark("roll", at(1500));
        ledger.event(0, 0, 3, b"", at(2500));
        ledger.event(0, 0, 4, b"", at(2510));
        ledger.mark("end", at(2600));
        let report = ledger.report();
        let longest: Vec<_> =
            report["phases"].as_array().unwrap().iter().map(|phase| &phase["longestHoleMs"]).collect();
        assert_eq!(longest, [300, 1300], "before the first event there is no hole, and client 1 still waits");
        assert_eq!(report["phases"][1]["holeMs"]["p50"], 1200);
        assert_eq!(report["phases"][1]["name"], "roll");
        assert_eq!(report["total"]["deliveries"], 5);
    }
}
