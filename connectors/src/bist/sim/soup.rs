//! The server's side of SoupBinTCP: the feed from any number on, or a snapshot.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::fault::RefusalReason;
use super::server::Shared;
use super::world::Snapshot;
use crate::bist::mold::SessionId;
use crate::bist::soup::{LoginRequest, Splitter, accepted, packet};
use crate::sim::listener::DRIP;

/// A client that has not logged in by then is closed.
const LOGIN_WITHIN: Duration = Duration::from_secs(30);

/// A client that is silent for so long is closed.
const CLIENT_SILENCE: Duration = Duration::from_secs(15);

/// A server that said nothing for so long sends a heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How much is written at once.
const WRITE_BYTES: usize = 64 << 10;

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// The messages of the session.
    Feed,
    /// GLIMPSE.
    Snapshot,
}

/// Serves one client to its end.
pub(super) async fn serve(mut socket: TcpStream, service: Service, shared: Shared) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut splitter = Splitter::default();
    let login = timeout(LOGIN_WITHIN, read_login(&mut socket, &mut splitter)).await.map_err(io::Error::other)??;
    let refusal = shared.world().refusal();
    if let Some(reason) = refusal {
        return refuse(&mut socket, reason).await;
    }
    match service {
        Service::Feed => feed(socket, splitter, &login, &shared).await,
        Service::Snapshot => snapshot(socket, &shared).await,
    }
}

async fn read_login(socket: &mut TcpStream, splitter: &mut Splitter) -> io::Result<LoginRequest> {
    let mut buffer = [0; 1024];
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        splitter.push(&buffer[..read]);
        if let Some((kind, payload)) = splitter.next_packet().map_err(io::Error::other)? {
            let login = LoginRequest::parse(payload).filter(|_| kind == b'L');
            return login.ok_or_else(|| io::Error::other("the first packet is no login"));
        }
    }
}

async fn refuse(socket: &mut TcpStream, reason: RefusalReason) -> io::Result<()> {
    let letter = match reason {
        RefusalReason::NotAuthorised => b"A",
        RefusalReason::NoSession => b"S",
    };
    socket.write_all(&packet(b'J', letter)).await
}

/// The messages from the one that was asked for, to the end of the session.
async fn feed(mut socket: TcpStream, mut splitter: Splitter, login: &LoginRequest, shared: &Shared) -> io::Result<()> {
    let (session, mut next, cuts) = {
        let world = shared.world();
        let tape = &world.tape;
        let next = if login.next == 0 { tape.next() } else { login.next.clamp(tape.first(), tape.next()) };
        (tape.session(), next, world.cuts.0)
    };
    if !login.session.trimmed().is_empty() && login.session != session {
        return refuse(&mut socket, RefusalReason::NoSession).await;
    }
    socket.write_all(&accepted(session, next)).await?;
    let mut news = shared.news();
    let (mut buffer, mut said_at, mut heard_at) = ([0; 1024], Instant::now(), Instant::now());
    loop {
        tokio::select! {
            read = socket.read(&mut buffer) => {
                let read = read?;
                heard_at = Instant::now();
                splitter.push(&buffer[..read]);
                if read == 0 || is_logout(&mut splitter)? {
                    return Ok(());
                }
            }
            changed = news.changed() => changed.map_err(io::Error::other)?,
        }
        let now = Instant::now();
        if now.duration_since(heard_at) >= CLIENT_SILENCE {
            return Ok(());
        }
        let turn = turn(shared, session, &mut next, cuts, now);
        if !turn.bytes.is_empty() {
            socket.write_all(&turn.bytes).await?;
            said_at = now;
        } else if now.duration_since(said_at) >= HEARTBEAT && !turn.silent {
            socket.write_all(&packet(b'H', b"")).await?;
            said_at = now;
        }
        match turn.close {
            None => {}
            Some(Close::AtOnce) => return Ok(()),
            Some(Close::Gently) => return part(socket).await,
        }
    }
}

/// What is written now.
#[derive(Debug, Default)]
struct Turn {
    bytes: Vec<u8>,
    /// Nothing may be written, not even a heartbeat.
    silent: bool,
    /// The connection is closed afterwards.
    close: Option<Close>,
}

/// How a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Close {
    /// Whatever has not been read is lost.
    AtOnce,
    /// When the client has read everything.
    Gently,
}

fn turn(shared: &Shared, session: SessionId, next: &mut u64, cuts: u64, now: Instant) -> Turn {
    let world = shared.world();
    if world.is_silent(now) {
        return Turn { silent: true, ..Turn::default() };
    }
    if world.cuts.0 > cuts {
        let half = if world.cuts.1 { packet(b'S', &[b'A'; 45])[..20].to_vec() } else { Vec::new() };
        return Turn { bytes: half, close: Some(Close::AtOnce), silent: false };
    }
    let mut turn = Turn::default();
    let is_running = world.tape.session() == session;
    if is_running && *next < world.tape.first() {
        // The tape has forgotten it, or has gone on behind a hole: numbers can only be left out between two logins.
        return Turn { close: Some(Close::Gently), ..turn };
    }
    while turn.bytes.len() < WRITE_BYTES
        && let Some(message) = world.tape.get(*next).filter(|_| is_running)
    {
        turn.bytes.extend(packet(b'S', message));
        *next += 1;
    }
    if !is_running || (world.tape.is_over() && *next >= world.tape.next()) {
        turn.bytes.extend(packet(b'Z', b""));
        turn.close = Some(Close::Gently);
    }
    turn
}

fn is_logout(splitter: &mut Splitter) -> io::Result<bool> {
    while let Some((kind, _)) = splitter.next_packet().map_err(io::Error::other)? {
        if kind == b'O' {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn snapshot(mut socket: TcpStream, shared: &Shared) -> io::Result<()> {
    let (session, taken) = {
        let mut world = shared.world();
        (world.tape.session(), world.snapshot())
    };
    let Some(Snapshot { messages, dies_after, drips }) = taken else {
        return refuse(&mut socket, RefusalReason::NotAuthorised).await;
    };
    socket.write_all(&accepted(session, 1)).await?;
    let bytes: Vec<u8> =
        messages.iter().take(dies_after.unwrap_or(usize::MAX)).flat_map(|message| packet(b'S', message)).collect();
    if drips {
        for byte in bytes {
            sleep(DRIP).await;
            socket.write_all(&[byte]).await?;
        }
    } else {
        socket.write_all(&bytes).await?;
    }
    if dies_after.is_some() { Ok(()) } else { part(socket).await }
}

/// Says no more, and reads on until the client closes too: a close before that would take along what it has not read.
async fn part(mut socket: TcpStream) -> io::Result<()> {
    socket.shutdown().await?;
    let mut buffer = [0; 64];
    while timeout(CLIENT_SILENCE, socket.read(&mut buffer)).await.is_ok_and(|read| read.is_ok_and(|n| n > 0)) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Day;
    use super::super::world::World;
    use super::*;

    #[test]
    fn whoever_wants_what_the_tape_has_no_more_has_to_log_in_again() {
        let now = Instant::now();
        let mut world = World::generated(vec!["A.E".into()], 100, 7, Day::Present, now);
        let session = world.tape.session();
        world.tape.push(b"one");
        let shared = Shared::new(world);
        let mut next = 1;
        let sent = turn(&shared, session, &mut next, 0, now);
        assert_eq!((next, sent.close), (2, None));
        shared.world().tape.skip_to(500);
        let sent = turn(&shared, session, &mut next, 0, now);
        assert_eq!((sent.bytes.len(), sent.close), (0, Some(Close::Gently)));
    }
}
