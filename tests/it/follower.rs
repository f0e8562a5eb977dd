//! Clients that follow channels wherever they can, and publishers that do not give up: what a user's program does.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use akis_testkit::{Envelope, LiveClient, Report, check_channel, wait_until};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::system::{Door, SOON};

/// Between two events of a publisher.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);

/// Between two attempts to connect.
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// What a gateway says of a channel.
const OWN_EVENTS: [&str; 6] = ["subscribed", "unsubscribed", "subscribe_error", "term", "gap", "backpressure_drop"];

/// Whether it is an event of its channel, and not something that the gateway says of it.
pub(crate) fn is_event(envelope: &Envelope) -> bool {
    !OWN_EVENTS.contains(&envelope.event())
}

/// What a follower was told.
#[derive(Default)]
pub(crate) struct Record {
    /// The envelopes of each of its connections, in order.
    pub(crate) connections: Vec<Vec<Envelope>>,
    /// How its connections ended, those that it did not end itself.
    pub(crate) closes: Vec<u16>,
    /// How often it left a connection for another one because it was told to.
    pub(crate) moves: usize,
    /// When each event came.
    heard: Vec<Instant>,
    /// Each `upstream` and when it came: true when the log could be reached again.
    pub(crate) upstream: Vec<(Instant, bool)>,
    /// Where to resume, by channel.
    positions: BTreeMap<String, u64>,
}

impl Record {
    /// All envelopes of a channel, whatever the connection.
    pub(crate) fn of<'a>(&'a self, channel: &'a str) -> impl Iterator<Item = &'a Envelope> {
        self.connections.iter().flatten().filter(move |envelope| envelope.channel() == channel)
    }

    /// The events of a channel that were delivered, by position.
    pub(crate) fn events<'a>(&'a self, channel: &'a str) -> impl Iterator<Item = (u64, Value)> {
        let events = self.of(channel).filter(|envelope| is_event(envelope));
        events.map(|envelope| (envelope.seq(), envelope.0.clone()))
    }

    /// Checks what it was told of a channel.
    pub(crate) fn check(&self, channel: &str, history: &BTreeMap<u64, Value>) -> Report {
        let connections: Vec<_> = self.connections.iter().map(Vec::as_slice).collect();
        check_channel(channel, &connections, history)
    }

    /// Whether the channel was delivered, or told of, up to this position.
    pub(crate) fn has_reached(&self, channel: &str, seq: u64) -> bool {
        self.positions.get(channel).is_some_and(|position| *position >= seq)
    }

    /// The longest time between two events of whatever channels, the second of which came after `since`.
    pub(crate) fn longest_hole(&self, since: Instant) -> Duration {
        let pairs = self.heard.windows(2).filter(|pair| pair[1] > since);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    fn take(&mut self, envelope: Envelope) {
        if is_event(&envelope) && envelope.channel() != "system" {
            self.heard.push(Instant::now());
        }
        if envelope.event() == "upstream" {
            self.upstream.push((Instant::now(), envelope.0["ok"] == true));
        }
        if envelope.channel() != "system" && !matches!(envelope.event(), "unsubscribed" | "subscribe_error") {
            self.positions.insert(envelope.channel().to_owned(), envelope.seq());
        }
        self.connections.last_mut().unwrap().push(envelope);
    }
}

/// A client that begins with all that is kept, and resumes at the next door when its connection ends.
pub(crate) struct Follower {
    record: Arc<Mutex<Record>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Follower {
    /// Starts one. It tries the doors in their order.
    pub(crate) fn start(doors: Vec<Door>, token: String, channels: &[&str]) -> Self {
        Self::start_as(Manner::Stays, doors, token, channels)
    }

    /// Starts one that leaves a replica which drains when it is told to, once its next connection is open.
    pub(crate) fn start_moving(doors: Vec<Door>, token: String, channels: &[&str]) -> Self {
        Self::start_as(Manner::Moves, doors, token, channels)
    }

    fn start_as(manner: Manner, doors: Vec<Door>, token: String, channels: &[&str]) -> Self {
        let (record, stop) = (Arc::<Mutex<Record>>::default(), CancellationToken::new());
        let channels = channels.iter().map(|&channel| channel.to_owned()).collect();
        let task = tokio::spawn(follow(manner, doors, token, channels, Arc::clone(&record), stop.clone()));
        Self { record, stop, task }
    }

    /// Whether what it was told so far is as asked.
    pub(crate) fn has(&self, wanted: impl Fn(&Record) -> bool) -> bool {
        wanted(&self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends it, and gives what it was told.
    pub(crate) async fn finish(self) -> Record {
        self.stop.cancel();
        self.task.await.unwrap();
        std::mem::take(&mut self.record.lock().unwrap())
    }
}

/// Waits until all of them were told what is wanted.
pub(crate) async fn wait_for_all(followers: &[Follower], what: &str, wanted: impl Fn(&Record) -> bool) {
    wait_until(SOON, what, async || {
        let broken = followers.iter().any(|follower| follower.task.is_finished());
        broken || followers.iter().all(|follower| follower.has(&wanted))
    })
    .await
    .unwrap();
}

/// Ends all of them, and gives what they were told.
pub(crate) async fn finish_all(followers: Vec<Follower>) -> Vec<Record> {
    let mut records = Vec::new();
    for follower in followers {
        records.push(follower.finish().await);
    }
    records
}

/// What a client does when its replica drains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Waits to be closed.
    Stays,
    /// Leaves at the moment that it was told.
    Moves,
}

async fn follow(
    manner: Manner,
    doors: Vec<Door>,
    token: String,
    channels: Vec<String>,
    record: Arc<Mutex<Record>>,
    stop: CancellationToken,
) {
    let mut doors = doors.iter().cycle();
    let mut replacement = None;
    while !stop.is_cancelled() {
        let mut client = match replacement.take() {
            Some(client) => client,
            None => connect(&mut doors, &token).await,
        };
        let request = {
            let mut record = record.lock().unwrap();
            record.connections.push(Vec::new());
            subscription(&channels, &record.positions)
        };
        // One that ends at once is read, and left, like any other.
        _ = client.send(&request).await;
        // Told when to leave, by a client that moves.
        let (leave, told) = oneshot::channel();
        let mut leave = Some(leave).filter(|_| manner == Manner::Moves);
        let next = async {
            let Ok(wait) = told.await else { return pending().await };
            sleep(wait).await;
            connect(&mut doors, &token).await
        };
        replacement = tokio::select! {
            () = stay(&mut client, &mut leave, &record) => None,
            next = next => Some(next),
            () = stop.cancelled() => None,
        };
        if replacement.is_some() {
            record.lock().unwrap().moves += 1;
            // What the old connection had still to say comes again on the new one.
            _ = client.close().await;
        }
    }
}

/// Reads until the connection ends.
async fn stay(client: &mut LiveClient, leave: &mut Option<oneshot::Sender<Duration>>, record: &Mutex<Record>) {
    loop {
        match client.next(SOON).await {
            Ok(envelope) => {
                if envelope.event() == "draining"
                    && let Some(leave) = leave.take()
                {
                    let wait = Duration::from_millis(envelope.data()["reconnectAfterMs"].as_u64().unwrap());
                    // Whoever waits for it waits as long as this reads.
                    _ = leave.send(wait);
                }
                record.lock().unwrap().take(envelope);
            }
            Err(error) => {
                // Heartbeats come every few seconds: one that is silent for so long is broken.
                let code = client.close_code().unwrap_or_else(|| panic!("{error:#}"));
                record.lock().unwrap().closes.push(code);
                return;
            }
        }
    }
}

/// Connects at the first door that lets the client in.
async fn connect(doors: &mut (impl Iterator<Item = &Door> + Send), token: &str) -> LiveClient {
    let attempts = async {
        let mut pace = tokio::time::interval(RETRY_EVERY);
        loop {
            pace.tick().await;
            if let Ok(client) = doors.next().unwrap().connect(token).await {
                return client;
            }
        }
    };
    timeout(SOON, attempts).await.expect("no gateway took the client in time")
}

fn subscription(channels: &[String], positions: &BTreeMap<String, u64>) -> Value {
    let after = |channel: &String| positions.get(channel).copied().unwrap_or(0);
    let channels: Vec<Value> =
        channels.iter().map(|channel| json!({"channel": channel, "after": after(channel)})).collect();
    json!({"type": "subscribe", "id": 1, "channels": channels})
}

/// A program that publishes 0, 1, 2, … to a channel, each until it is acknowledged, at whichever door is open.
pub(crate) struct Publisher {
    stop: CancellationToken,
    task: JoinHandle<BTreeMap<u64, u64>>,
}

impl Publisher {
    /// Starts one.
    pub(crate) fn start(doors: Vec<Door>, token: String, channel: &str) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(publish(doors, token, channel.to_owned(), stop.clone()));
        Self { stop, task }
    }

    /// Ends it when its last event is acknowledged, and gives the number published by position.
    pub(crate) async fn finish(self) -> BTreeMap<u64, u64> {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

async fn publish(doors: Vec<Door>, token: String, channel: String, stop: CancellationToken) -> BTreeMap<u64, u64> {
    let mut acknowledged = BTreeMap::new();
    let mut pace = tokio::time::interval(PUBLISH_EVERY);
    let mut door = 0;
    for number in 0.. {
        tokio::select! {
            _ = pace.tick() => {}
            () = stop.cancelled() => break,
        }
        let item = json!({"channel": channel, "event": "e", "id": number.to_string(), "data": {"number": number}});
        let attempts = async {
            loop {
                // Any other answer, or none, leaves open what happened: the same id is used again, elsewhere.
                if let Ok((200, answer)) = doors[door % doors.len()].publish(&token, &item).await {
                    return answer["seq"].as_u64().unwrap();
                }
                door += 1;
                pace.tick().await;
            }
        };
        let seq = timeout(SOON, attempts).await.expect("an event was not acknowledged in time");
        acknowledged.insert(seq, number);
    }
    acknowledged
}
