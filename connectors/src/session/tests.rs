use std::future::Future;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};
use tokio_util::sync::DropGuard;

use super::*;
use crate::attempts::Attempts;
use crate::dialog::Reading;
use crate::frame::{Content, RawFrame};
use crate::ports::Stats;
use crate::registry::Settings;

const WITHIN: Duration = Duration::from_secs(10);

type Peer = WebSocketStream<TcpStream>;

/// A session whose venue is this test.
struct Scripted {
    listener: TcpListener,
    frames: mpsc::Receiver<RawFrame>,
    say: mpsc::Sender<Vec<String>>,
    dialog: watch::Sender<Arc<Dialog>>,
    stats: Arc<Stats>,
    _stop: DropGuard,
}

impl Scripted {
    async fn start(adjust: impl FnOnce(&mut Dialog)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut dialog = Dialog {
            venue: "test",
            url: format!("ws://{}", listener.local_addr().unwrap()),
            messages: vec!["one".into(), "two".into()],
            pace: Duration::from_millis(100),
            streams: vec!["a".into(), "b".into()],
            first_data: WITHIN,
            silence: WITHIN,
            lifetime: WITHIN * 10,
            backoff: Settings::default().backoff(),
            attempts: Arc::new(Attempts::new(100, WITHIN)),
            again: Some(|streams| vec![format!("again {}", streams.join(" "))]),
            read: |text| match text.split_once(' ') {
                Some(("data", stream)) => Reading::Data(stream.into()),
                Some(("bye", _)) => Reading::Leaving,
                _ => Reading::Other,
            },
        };
        adjust(&mut dialog);
        let (sender, frames) = mpsc::channel(1);
        let (stats, cancel) = (Arc::new(Stats::default()), CancellationToken::new());
        let outlet = Arc::new(Outlet::new(sender, Arc::clone(&stats), cancel.clone()));
        let (say, said) = mpsc::channel(1);
        let (dialog, spoken) = watch::channel(Arc::new(dialog));
        tokio::spawn(keep(spoken, outlet, said, cancel.clone()));
        Self { listener, frames, say, dialog, stats, _stop: cancel.drop_guard() }
    }

    async fn accept(&self) -> Peer {
        let (socket, _) = soon(self.listener.accept()).await.unwrap();
        soon(accept_async(socket)).await.unwrap()
    }

    async fn content(&mut self) -> Content {
        soon(self.frames.recv()).await.unwrap().content
    }
}

async fn soon<T>(done: impl Future<Output = T>) -> T {
    timeout(WITHIN, done).await.expect("in time")
}

async fn say(peer: &mut Peer, text: &str) {
    soon(peer.send(Message::text(text))).await.unwrap();
}

async fn hear(peer: &mut Peer) -> Message {
    soon(peer.next()).await.unwrap().unwrap()
}

fn text(connection: u32, text: &str) -> Content {
    Content::Text { connection, text: text.into() }
}

#[tokio::test]
async fn messages_are_paced_and_everything_that_comes_goes_out() {
    let mut session = Scripted::start(|_| {}).await;
    let mut peer = session.accept().await;
    assert_eq!(hear(&mut peer).await, Message::text("one"));
    let first_at = Instant::now();
    say(&mut peer, "early").await;
    assert_eq!(session.content().await, text(1, "early"), "data may come before the last message is sent");
    assert_eq!(hear(&mut peer).await, Message::text("two"));
    assert!(first_at.elapsed() >= Duration::from_millis(50), "the second one was not sent at once");
    soon(peer.send(Message::binary(vec![7]))).await.unwrap();
    assert_eq!(session.content().await, Content::Binary { connection: 1, bytes: vec![7] });
    drop(peer);
    assert_eq!(session.content().await, Content::Closed { connection: 1, code: 1006 });
    let mut peer = session.accept().await;
    assert_eq!(hear(&mut peer).await, Message::text("one"), "what was asked for is asked for again");
    assert_eq!(session.stats.lost.get(), 1);
}

#[tokio::test]
async fn a_ping_is_answered_at_once() {
    let session = Scripted::start(|dialog| dialog.messages.clear()).await;
    let mut peer = session.accept().await;
    soon(peer.send(Message::Ping("clock".into()))).await.unwrap();
    assert_eq!(hear(&mut peer).await, Message::Pong("clock".into()));
}

#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let mut session = Scripted::start(|dialog| dialog.silence = Duration::from_millis(100)).await;
    let _silent = session.accept().await;
    assert_eq!(session.content().await, Content::Closed { connection: 1, code: 1006 });
    session.accept().await;
}

#[tokio::test]
async fn a_full_queue_is_no_silence() {
    let mut session = Scripted::start(|dialog| dialog.silence = Duration::from_millis(300)).await;
    let mut peer = session.accept().await;
    for n in 0..4 {
        say(&mut peer, &n.to_string()).await;
    }
    // The queue holds one frame: the session stands still for longer than its watchdog allows.
    assert!(timeout(Duration::from_millis(600), hear_close(&mut peer)).await.is_err(), "not given up");
    for n in 0..4 {
        assert_eq!(session.content().await, text(1, &n.to_string()));
    }
}

async fn hear_close(peer: &mut Peer) {
    while !matches!(peer.next().await, None | Some(Err(_) | Ok(Message::Close(_)))) {}
}

#[tokio::test]
async fn a_connection_that_is_leaving_gives_way_when_the_next_one_has_all_streams() {
    let mut session = Scripted::start(|_| {}).await;
    let mut old = session.accept().await;
    say(&mut old, "data a").await;
    say(&mut old, "bye now").await;
    let mut new = session.accept().await;
    say(&mut new, "data a").await;
    say(&mut old, "data a").await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(session.content().await);
    }
    assert!(seen.contains(&text(2, "data a")) && seen.iter().filter(|c| **c == text(1, "data a")).count() == 2, "both");
    say(&mut new, "data b").await;
    let mut seen = [session.content().await, session.content().await];
    seen.sort_by_key(|content| matches!(content, Content::Closed { .. }));
    assert_eq!(seen, [text(2, "data b"), Content::Closed { connection: 1, code: 1000 }]);
    assert_eq!((session.stats.opened.get(), session.stats.open.get(), session.stats.lost.get()), (2, 1, 0));
}

#[tokio::test]
async fn a_connection_is_replaced_at_the_end_of_its_life() {
    let session = Scripted::start(|dialog| dialog.lifetime = Duration::from_millis(50)).await;
    let _old = session.accept().await;
    session.accept().await;
}

#[tokio::test]
async fn another_dialog_takes_the_place_of_the_first_without_a_hole() {
    let mut session = Scripted::start(|_| {}).await;
    let mut old = session.accept().await;
    say(&mut old, "data a").await;
    assert_eq!(session.content().await, text(1, "data a"));
    let other =
        |dialog: &Dialog| Dialog { messages: vec!["three".into()], streams: vec!["c".into()], ..dialog.clone() };
    session.dialog.send_modify(|dialog| *dialog = Arc::new(other(dialog)));
    let mut new = session.accept().await;
    assert_eq!(hear(&mut new).await, Message::text("three"));
    say(&mut old, "data b").await;
    assert_eq!(session.content().await, text(1, "data b"), "both are read until the new one has all");
    say(&mut new, "data c").await;
    let mut seen = [session.content().await, session.content().await];
    seen.sort_by_key(|content| matches!(content, Content::Closed { .. }));
    assert_eq!(seen, [text(2, "data c"), Content::Closed { connection: 1, code: 1000 }]);
    assert_eq!(session.stats.lost.get(), 0);
}

#[tokio::test]
async fn streams_that_never_speak_are_counted() {
    let mut session = Scripted::start(|dialog| dialog.first_data = Duration::from_millis(50)).await;
    let mut peer = session.accept().await;
    say(&mut peer, "data a").await;
    assert_eq!(session.content().await, text(1, "data a"));
    soon(async {
        while session.stats.silent_streams.get() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(session.stats.silent_streams.get(), 1);
}

#[tokio::test]
async fn a_stream_that_stops_while_others_go_on_is_asked_for_again() {
    let patient = |dialog: &mut Dialog| {
        dialog.messages.clear();
        (dialog.silence, dialog.first_data) = (WITHIN * 10, WITHIN * 10);
    };
    let mut session = Scripted::start(patient).await;
    let mut peer = session.accept().await;
    for _ in 0..30 {
        for stream in ["data a", "data b"] {
            say(&mut peer, stream).await;
            session.content().await;
        }
    }
    for _ in 0..4 {
        // Only while it is moved does the clock stand still: what is under way between the sockets takes real time.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(5)).await;
        tokio::time::resume();
        say(&mut peer, "data b").await;
        session.content().await;
    }
    assert_eq!(hear(&mut peer).await, Message::text("again a"));
    assert_eq!(session.stats.stopped_streams.get(), 1);
}

#[tokio::test]
async fn encrypted_addresses_find_a_provider_and_fail_without_a_panic() {
    let session = Scripted::start(|dialog| dialog.url = dialog.url.replace("ws:", "wss:")).await;
    for _ in 0..2 {
        // Dropping it is a failed handshake; that the session tries again shows that its task did not panic.
        drop(soon(session.listener.accept()).await.unwrap());
    }
    assert_eq!(session.stats.opened.get(), 0);
}

#[tokio::test]
async fn what_is_said_later_goes_out_whole_and_behind_the_dialog() {
    let session = Scripted::start(|_| {}).await;
    let mut peer = session.accept().await;
    assert_eq!(hear(&mut peer).await, Message::text("one"));
    soon(session.say.send(vec!["leave".into(), "join".into()])).await.unwrap();
    for expected in ["two", "leave", "join"] {
        assert_eq!(hear(&mut peer).await, Message::text(expected));
    }
}

#[tokio::test]
async fn a_refusal_holds_the_next_try() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let attempts = Arc::new(Attempts::new(100, WITHIN));
    let shared = Arc::clone(&attempts);
    let session = Scripted::start(|dialog| dialog.attempts = shared).await;
    let (mut socket, _) = soon(session.listener.accept()).await.unwrap();
    let mut head = [0; 1024];
    assert!(soon(socket.read(&mut head)).await.unwrap() > 0);
    let refusal = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n";
    soon(socket.write_all(refusal.as_bytes())).await.unwrap();
    soon(async {
        while session.stats.lost.get() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let free_at = attempts.take(Instant::now()).expect_err("the venue said when");
    assert!(free_at > Instant::now() + WITHIN);
}
