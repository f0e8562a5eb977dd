//! Clients that do whatever a client may do, at random, and write down what they were told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akis_testkit::{Envelope, LiveClient, Report, check_channel};
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::system::{Door, SOON, Taking, token};

/// A channel that no token allows.
const SECRET: &str = "secret:1";

/// Between two attempts to connect, and two looks at what is still to be subscribed to.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// What a client was told.
#[derive(Default)]
pub(crate) struct Diary {
    /// The envelopes of each of its connections, in order.
    connections: Vec<Vec<Envelope>>,
    /// What must never be, seen while it happened.
    wrong: Vec<String>,
    /// Where to resume, by channel.
    positions: BTreeMap<String, u64>,
    /// Channels of the present connection whose subscription was answered.
    subscribed: BTreeSet<String>,
    /// Channels with a request that has not been answered.
    asked: BTreeSet<String>,
    /// What each token that was sent and not answered leaves out.
    refreshing: VecDeque<Option<String>>,
    /// The channel that the token in force leaves out.
    forbidden: Option<String>,
}

impl Diary {
    /// Every event of a channel that was delivered.
    pub(crate) fn events<'a>(&'a self, channel: &'a str) -> impl Iterator<Item = &'a Envelope> {
        let of_channel = self.connections.iter().flatten().filter(move |envelope| envelope.channel() == channel);
        of_channel.filter(|envelope| is_event(envelope))
    }

    /// Whether it is subscribed and was told of everything up to this position.
    pub(crate) fn has_reached(&self, channel: &str, seq: u64) -> bool {
        self.subscribed.contains(channel) && self.positions.get(channel).is_some_and(|position| *position >= seq)
    }

    /// What it was told of a channel, held against every event that ever was.
    pub(crate) fn check(&self, channel: &str, history: &BTreeMap<u64, Value>) -> Report {
        let connections: Vec<_> = self.connections.iter().map(Vec::as_slice).collect();
        check_channel(channel, &connections, history)
    }

    /// What was wrong at once.
    pub(crate) fn wrong(&self) -> &[String] {
        &self.wrong
    }

    fn begin(&mut self) {
        self.connections.push(Vec::new());
        self.subscribed.clear();
        self.asked.clear();
        self.refreshing.clear();
        self.forbidden = None;
    }

    fn take(&mut self, envelope: Envelope) {
        let channel = envelope.channel().to_owned();
        match envelope.event() {
            "authenticated" => self.forbidden = self.refreshing.pop_front().flatten(),
            "error" => self.wrong.push(format!("a request was refused: {}", envelope.0)),
            "subscribed" => {
                self.asked.remove(&channel);
                self.subscribed.insert(channel.clone());
            }
            "subscribe_error" => {
                self.asked.remove(&channel);
            }
            "unsubscribed" => {
                self.asked.remove(&channel);
                self.subscribed.remove(&channel);
            }
            _ if channel == "system" => {}
            // Nothing of a channel comes but between these answers.
            event if !self.subscribed.contains(&channel) => {
                self.wrong.push(format!("{event} of {channel} without a subscription: {}", envelope.0));
            }
            _ => {}
        }
        let is_told = !matches!(envelope.event(), "unsubscribed" | "subscribe_error") && channel != "system";
        if is_told && (channel == SECRET || self.forbidden.as_deref() == Some(&channel)) {
            self.wrong.push(format!("{} of {channel}, which the token does not allow", envelope.event()));
        }
        if is_told {
            self.positions.insert(channel, envelope.seq());
        }
        self.connections.last_mut().unwrap().push(envelope);
    }
}

/// Whether an envelope of a channel is an event of it, and nothing that the gateway says.
fn is_event(envelope: &Envelope) -> bool {
    let own =
        ["subscribed", "unsubscribed", "subscribe_error", "term", "gap", "backpressure_drop", "staleness", "error"];
    !own.contains(&envelope.event())
}

/// A running client.
pub(crate) struct Wanderer {
    diary: Arc<Mutex<Diary>>,
    task: JoinHandle<()>,
}

impl Wanderer {
    /// Starts one. From `calm` on it stays and wants every channel; it ends with `stop`.
    pub(crate) fn start(
        doors: Vec<Door>,
        name: String,
        channels: &'static [&'static str],
        seed: u64,
        calm: CancellationToken,
        stop: CancellationToken,
    ) -> Self {
        let diary = Arc::<Mutex<Diary>>::default();
        let walk = Walk { doors, name, channels, rng: Rng::with_seed(seed), calm, diary: Arc::clone(&diary) };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = walk.run() => {}
                () = stop.cancelled() => {}
            }
        });
        Self { diary, task }
    }

    /// Whether its diary is as asked.
    pub(crate) fn has(&self, wanted: impl Fn(&Diary) -> bool) -> bool {
        // One that failed shows when it is ended.
        self.task.is_finished() || wanted(&self.diary.lock().unwrap())
    }

    /// Waits for its end, and gives its diary.
    pub(crate) async fn finish(self) -> Diary {
        self.task.await.unwrap();
        std::mem::take(&mut self.diary.lock().unwrap())
    }
}

struct Walk {
    doors: Vec<Door>,
    name: String,
    channels: &'static [&'static str],
    rng: Rng,
    calm: CancellationToken,
    diary: Arc<Mutex<Diary>>,
}

/// How a connection goes on.
enum Next {
    Stay,
    /// Leave without a word.
    Cut,
}

impl Walk {
    async fn run(mut self) {
        loop {
            let door = self.rng.usize(..self.doors.len());
            let taking = Taking { batches: self.rng.bool(), deflate: self.rng.bool() };
            let Ok(mut client) = self.doors[door].connect_as(&self.token(None), taking).await else {
                sleep(RETRY_EVERY).await;
                continue;
            };
            self.diary.lock().unwrap().begin();
            // An error is a connection that ended: the next one resumes.
            _ = self.stay(&mut client).await;
        }
    }

    async fn stay(&mut self, client: &mut LiveClient) -> anyhow::Result<()> {
        let all: Vec<&str> = self.channels.iter().copied().filter(|_| self.rng.bool()).collect();
        self.subscribe(client, &all, true).await?;
        let mut act_at = Instant::now();
        loop {
            tokio::select! {
                envelope = client.next(SOON) => self.diary.lock().unwrap().take(envelope?),
                () = sleep_until(act_at) => {
                    let next = if self.calm.is_cancelled() {
                        act_at = Instant::now() + RETRY_EVERY;
                        self.want_all(client).await?
                    } else {
                        act_at = Instant::now() + Duration::from_millis(self.rng.u64(50..500));
                        self.act(client).await?
                    };
                    if matches!(next, Next::Cut) {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn act(&mut self, client: &mut LiveClient) -> anyhow::Result<Next> {
        let channel = self.channels[self.rng.usize(..self.channels.len())];
        let (is_subscribed, is_asked) = {
            let diary = self.diary.lock().unwrap();
            (diary.subscribed.contains(channel), diary.asked.contains(channel))
        };
        match self.rng.u8(..20) {
            0..6 if !is_asked && !is_subscribed => {
                let resumes = self.rng.u8(..4) > 0;
                self.subscribe(client, &[channel], resumes).await?;
            }
            6..9 if !is_asked && is_subscribed => {
                self.diary.lock().unwrap().asked.insert(channel.to_owned());
                client.send(&json!({"type": "unsubscribe", "channels": [channel]})).await?;
            }
            9 | 10 => return Ok(Next::Cut),
            11 => sleep(Duration::from_millis(self.rng.u64(100..2500))).await,
            12 => self.refresh(client, None).await?,
            13 => self.refresh(client, Some(channel)).await?,
            14 => self.subscribe(client, &[SECRET], false).await?,
            // Again, which changes the interval.
            15 | 16 if !is_asked && is_subscribed => self.subscribe(client, &[channel], false).await?,
            _ => {}
        }
        Ok(Next::Stay)
    }

    /// Subscribes to what is missing. A token that leaves something out is replaced first.
    async fn want_all(&mut self, client: &mut LiveClient) -> anyhow::Result<Next> {
        let (is_narrow, missing) = {
            let diary = self.diary.lock().unwrap();
            let is_there = |channel: &str| diary.subscribed.contains(channel) || diary.asked.contains(channel);
            let missing: Vec<&str> = self.channels.iter().copied().filter(|channel| !is_there(channel)).collect();
            (diary.forbidden.is_some() || !diary.refreshing.is_empty(), missing)
        };
        if is_narrow {
            return Ok(Next::Cut);
        }
        if !missing.is_empty() {
            self.subscribe(client, &missing, true).await?;
        }
        Ok(Next::Stay)
    }

    async fn subscribe(&mut self, client: &mut LiveClient, channels: &[&str], resumes: bool) -> anyhow::Result<()> {
        if channels.is_empty() {
            return Ok(());
        }
        let entries: Vec<Value> = {
            let mut diary = self.diary.lock().unwrap();
            let entry = |channel: &&str| {
                let mut entry = json!({"channel": channel});
                if let Some(position) = diary.positions.get(*channel).filter(|_| resumes) {
                    entry["after"] = json!(position);
                }
                if self.rng.u8(..3) == 0 {
                    entry["interval"] = json!(self.rng.u64(1..1500));
                }
                entry
            };
            let entries = channels.iter().map(entry).collect();
            diary.asked.extend(channels.iter().map(|&channel| channel.to_owned()));
            entries
        };
        client.send(&json!({"type": "subscribe", "channels": entries})).await
    }

    async fn refresh(&mut self, client: &mut LiveClient, without: Option<&str>) -> anyhow::Result<()> {
        self.diary.lock().unwrap().refreshing.push_back(without.map(str::to_owned));
        client.send(&json!({"type": "auth", "token": self.token(without)})).await
    }

    fn token(&self, without: Option<&str>) -> String {
        let allowed: Vec<&str> = self.channels.iter().copied().filter(|channel| Some(*channel) != without).collect();
        token(&self.name, &allowed, &[])
    }
}
