//! The sockets of the stand-in: lines, rewinder, SoupBinTCP, GLIMPSE and the control endpoint.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Router, body::Bytes};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::fault::Fault;
use super::soup::{self, Service};
use super::world::World;
use crate::bist::mold;
use crate::sim::listener;

/// How often the exchange goes on.
const TICK: Duration = Duration::from_millis(5);

/// How many SoupBinTCP connections may be open at once; one more is dropped.
const MOST_SOCKETS: usize = 256;

/// Where the stand-in listens: four sockets, told apart by their ports.
#[derive(Debug)]
pub struct Sockets {
    control: TcpListener,
    soup: TcpListener,
    glimpse: TcpListener,
    rewinder: UdpSocket,
}

/// The addresses of [`Sockets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP: `POST /sim/fault`.
    pub control: SocketAddr,
    /// The feed over SoupBinTCP.
    pub soup: SocketAddr,
    /// Snapshots.
    pub glimpse: SocketAddr,
    /// UDP: requests for what was lost.
    pub rewinder: SocketAddr,
}

impl Sockets {
    /// The control endpoint on `listener`, and SoupBinTCP, GLIMPSE and the rewinder on the three ports above it, or on
    /// any others where those are taken. Called inside a runtime.
    ///
    /// # Errors
    ///
    /// That of the system, when there are no ports.
    pub fn above(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let places = |by: u16| [address.port().saturating_add(by), 0].map(|port| SocketAddr::new(address.ip(), port));
        let tcp = |by| {
            let socket = std::net::TcpListener::bind(&places(by)[..])?;
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        };
        let (soup, glimpse) = (tcp(1)?, tcp(2)?);
        let rewinder = std::net::UdpSocket::bind(&places(3)[..])?;
        rewinder.set_nonblocking(true)?;
        Ok(Self { control: listener, soup, glimpse, rewinder: UdpSocket::from_std(rewinder)? })
    }

    /// Where they are.
    ///
    /// # Errors
    ///
    /// That of the system.
    pub fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            control: self.control.local_addr()?,
            soup: self.soup.local_addr()?,
            glimpse: self.glimpse.local_addr()?,
            rewinder: self.rewinder.local_addr()?,
        })
    }
}

/// The world, as all tasks share it. Locked for moments only, and never while something is awaited.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    world: Arc<Mutex<World>>,
    /// Changes whenever something has happened.
    news: Arc<watch::Sender<()>>,
}

impl Shared {
    pub(super) fn new(world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)), news: Arc::new(watch::Sender::new(())) }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }
}

/// Serves until cancelled.
pub(super) async fn run(sockets: Sockets, lines: [Vec<SocketAddr>; 2], shared: Shared, cancel: CancellationToken) {
    let Sockets { control, soup, glimpse, rewinder } = sockets;
    let ready = get(async || listener::READY);
    let router = Router::new().route("/sim/fault", post(take_fault)).route(listener::READY_PATH, ready);
    let router = router.with_state(shared.clone());
    let stop = cancel.clone();
    let control = axum::serve(control, router).with_graceful_shutdown(async move { stop.cancelled().await });
    let (_, _, served, (), ()) = tokio::join!(
        cancel.run_until_cancelled(play(&shared, &lines)),
        cancel.run_until_cancelled(rewind(&shared, &rewinder)),
        control,
        accept(soup, Service::Feed, &shared, &cancel),
        accept(glimpse, Service::Snapshot, &shared, &cancel),
    );
    if let Err(error) = served {
        warn!(%error, "the control endpoint failed");
    }
}

/// Lets the exchange go on, and sends what it says to both lines.
async fn play(shared: &Shared, lines: &[Vec<SocketAddr>; 2]) {
    let socket = match UdpSocket::bind("0.0.0.0:0").await {
        Ok(socket) => socket,
        Err(error) => return warn!(%error, "the lines cannot be served"),
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let packets = {
            let (mut world, now) = (shared.world(), Instant::now());
            world.advance(now);
            world.packets(now)
        };
        shared.news.send_replace(());
        for (line, packet) in packets {
            for destination in &lines[line] {
                // Nobody listens there, most likely; whoever does later asks the rewinder.
                if let Err(error) = socket.send_to(&packet, destination).await {
                    debug!(%error, %destination, "a packet could not be sent");
                }
            }
        }
    }
}

async fn rewind(shared: &Shared, socket: &UdpSocket) {
    let mut buffer = [0; mold::HEADER_BYTES + 1];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "a request could not be read");
                continue;
            }
        };
        let Ok(request) = mold::Request::parse(&buffer[..length]) else { continue };
        let answer = shared.world().rewind(&request, Instant::now());
        if let Some(answer) = answer
            && let Err(error) = socket.send_to(&answer, from).await
        {
            debug!(%error, "an answer could not be sent");
        }
    }
}

async fn accept(listener: TcpListener, service: Service, shared: &Shared, cancel: &CancellationToken) {
    let serve = |socket, _| {
        let (shared, cancel) = (shared.clone(), cancel.clone());
        async move {
            if let Some(Err(error)) = cancel.run_until_cancelled(soup::serve(socket, service, shared)).await {
                debug!(%error, ?service, "a connection ended");
            }
        }
    };
    listener::accept(listener, MOST_SOCKETS, &TaskTracker::new(), cancel, serve).await;
}

async fn take_fault(State(shared): State<Shared>, body: Bytes) -> (StatusCode, String) {
    match serde_json::from_slice::<Fault>(&body) {
        Ok(fault) => match shared.world().fault(fault, Instant::now()) {
            Ok(()) => (StatusCode::OK, "ok\n".into()),
            Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")),
        },
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}
