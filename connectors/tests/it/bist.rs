//! The session with Borsa Istanbul against its stand-in, fault by fault.

mod lines;
mod playback;
mod snapshot;
mod stream;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use akis_connectors::bist;
use akis_connectors::bist::mold::{Kind, Packet, SessionId};
use akis_connectors::bist::sim::{self, Addresses, Day, SimConfig, Sockets};
use akis_connectors::bist::soup::{FromServer, LoginRequest, Splitter};
use akis_connectors::sim::Source;
use akis_connectors::{Content, Own, Ports, RawFrame, Request, Settings, StartError, Stats};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(90);

/// A stand-in on ports of its own, and where its lines are sent.
struct Sim {
    at: Addresses,
    lines: [SocketAddr; 2],
    http: reqwest::Client,
    _stop: DropGuard,
}

impl Sim {
    async fn start(source: Source, day: Day) -> Self {
        let sockets = Sockets::above(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        let (at, lines) = (sockets.addresses().unwrap(), [free_port(), free_port()]);
        let config = SimConfig { source, day, line_a: vec![lines[0]], line_b: vec![lines[1]] };
        let cancel = CancellationToken::new();
        tokio::spawn(sim::serve(sockets, config, cancel.clone()));
        Self { at, lines, http: reqwest::Client::new(), _stop: cancel.drop_guard() }
    }

    /// Whole days that last so many seconds.
    async fn days(seconds: f64) -> Self {
        Self::start(generated(), Day::Whole { speed: 30_600.0 / seconds }).await
    }

    async fn fault(&self, fault: Value) {
        assert_eq!(self.fault_status(&fault).await, 200, "{fault}");
    }

    async fn fault_status(&self, fault: &Value) -> u16 {
        let url = format!("http://{}/sim/fault", self.at.control);
        self.http.post(url).body(fault.to_string()).send().await.unwrap().status().as_u16()
    }

    /// The keys of a session over MoldUDP64.
    fn mold(&self) -> Vec<(&'static str, String)> {
        let Addresses { glimpse, rewinder, .. } = self.at;
        vec![
            ("line_a", self.lines[0].to_string()),
            ("line_b", self.lines[1].to_string()),
            ("rewinder", rewinder.to_string()),
            ("glimpse", glimpse.to_string()),
        ]
    }

    /// The keys of a session over SoupBinTCP.
    fn soup(&self) -> Vec<(&'static str, String)> {
        vec![("transport", "soupbintcp".to_owned()), ("soup", self.at.soup.to_string())]
    }

    /// Everything that the running session says, up to its end, by a client that knows nothing of sessions.
    async fn messages(&self) -> Vec<Vec<u8>> {
        let mut socket = TcpStream::connect(self.at.soup).await.unwrap();
        let login = LoginRequest { user: String::new(), password: String::new(), session: SessionId::new(""), next: 1 };
        socket.write_all(&login.encode()).await.unwrap();
        let (mut splitter, mut buffer, mut messages) = (Splitter::default(), vec![0; 4096], Vec::new());
        loop {
            let read = timeout(DEADLINE, socket.read(&mut buffer)).await.unwrap().unwrap();
            assert_ne!(read, 0, "cut before the end of the session");
            splitter.push(&buffer[..read]);
            // Without this the stand-in would give up a client that says nothing.
            socket.write_all(&[0, 1, b'R']).await.unwrap();
            while let Some((kind, payload)) = splitter.next_packet().unwrap() {
                match FromServer::parse(kind, payload).unwrap() {
                    FromServer::Sequenced(message) => messages.push(message.to_vec()),
                    FromServer::End => return messages,
                    _ => {}
                }
            }
        }
    }
}

fn generated() -> Source {
    let symbols = ["THYAO", "GARAN", "ASELS", "AKBNK"].map(String::from).to_vec();
    Source::Generated { symbols, rate: 400, seed: 11 }
}

fn free_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A session, and what it has said.
struct Session {
    frames: mpsc::Receiver<RawFrame>,
    requests: mpsc::Sender<Request>,
    stats: Arc<Stats>,
    heard: Heard,
    stop: DropGuard,
    running: JoinHandle<Result<(), StartError>>,
}

/// What a session has said.
#[derive(Debug, Default)]
struct Heard {
    /// The sessions of the feed in order, with the messages of each by their numbers.
    days: Vec<(SessionId, BTreeMap<u64, Vec<u8>>)>,
    /// Whether the last one has ended.
    ended: bool,
    /// How many numbers were passed over.
    lost: u64,
    /// The connections that brought live messages, in order.
    live: Vec<u32>,
    /// The bytes of each snapshot, by its connection.
    snapshots: BTreeMap<u32, Vec<u8>>,
    closed: Vec<(u32, u16)>,
    frames: Vec<RawFrame>,
}

impl Session {
    fn start(keys: Vec<(&'static str, String)>) -> Self {
        let own = Own(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
        let (sender, frames) = mpsc::channel(64);
        let (requests, requests_out) = mpsc::channel(4);
        let (stats, cancel) = (Arc::new(Stats::default()), CancellationToken::new());
        let ports = Ports { frames: sender, requests: requests_out, stats: Arc::clone(&stats) };
        let running = tokio::spawn(bist::run(Settings { own, ..Settings::default() }, ports, cancel.clone()));
        Self { frames, requests, stats, heard: Heard::default(), stop: cancel.drop_guard(), running }
    }

    /// Ends it, so that its addresses are free.
    async fn stop(self) {
        drop(self.stop);
        timeout(DEADLINE, self.running).await.expect("it ends").unwrap().unwrap();
    }

    /// Listens until what was heard is enough.
    #[track_caller]
    fn until(&mut self, enough: impl Fn(&Heard) -> bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let listening = async {
                while !enough(&self.heard) {
                    let frame = self.frames.recv().await.expect("the session goes on");
                    self.heard.take(frame);
                }
            };
            assert!(timeout(DEADLINE, listening).await.is_ok(), "{caller}: heard {}", self.heard.summary());
        }
    }
}

impl Heard {
    fn take(&mut self, frame: RawFrame) {
        match &frame.content {
            Content::Binary { connection, bytes } if bytes[0] == 0 || self.snapshots.contains_key(connection) => {
                self.snapshots.entry(*connection).or_default().extend_from_slice(bytes);
            }
            Content::Binary { connection, bytes } => {
                if self.live.last() != Some(connection) {
                    assert!(!self.live.contains(connection), "numbers of connections are not used again");
                    self.live.push(*connection);
                }
                self.take_packet(&Packet::parse(bytes).expect("whole packets only"));
            }
            Content::Closed { connection, code } => self.closed.push((*connection, *code)),
            other => panic!("{other:?}"),
        }
        self.frames.push(frame);
    }

    fn take_packet(&mut self, packet: &Packet<'_>) {
        if self.days.last().is_none_or(|(session, _)| *session != packet.session) {
            assert!(self.days.iter().all(|(session, _)| *session != packet.session), "no session comes back");
            self.days.push((packet.session, BTreeMap::new()));
            self.ended = false;
        }
        let (_, messages) = self.days.last_mut().unwrap();
        let next = messages.last_key_value().map_or(1, |(last, _)| last + 1);
        assert!(packet.sequence >= next, "{} comes after {next} was reached", packet.sequence);
        self.lost += if packet.kind == Kind::Heartbeat { 0 } else { packet.sequence - next };
        self.ended |= packet.kind == Kind::End;
        for (message, number) in packet.messages().zip(packet.sequence..) {
            messages.insert(number, message.to_vec());
        }
    }

    fn first_day(&self) -> Vec<Vec<u8>> {
        self.days.first().map(|(_, messages)| messages.values().cloned().collect()).unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.days.iter().map(|(_, messages)| messages.len()).sum()
    }

    /// The number in `G` of a snapshot, when it is whole.
    fn goes_on_at(&self, connection: u32) -> Option<u64> {
        let mut splitter = Splitter::default();
        splitter.push(self.snapshots.get(&connection)?);
        let mut end = None;
        while let Some((kind, payload)) = splitter.next_packet().unwrap() {
            if let (b'S', Some((b'G', number))) = (kind, payload.split_first()) {
                end = std::str::from_utf8(number).unwrap().trim().parse().ok();
            }
        }
        end
    }

    fn summary(&self) -> String {
        let Self { ended, lost, live, closed, .. } = self;
        format!("{} messages, ended: {ended}, lost: {lost}, live: {live:?}, closed: {closed:?}", self.count())
    }
}
