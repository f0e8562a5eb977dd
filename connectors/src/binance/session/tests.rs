//! The session against the stand-in: what becomes of symbols that come and go.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use super::*;
use crate::RawFrame;
use crate::binance::SPOT;
use crate::binance::sim::{Limits, SimConfig, serve};
use crate::frame::Content;
use crate::ports::Stats;
use crate::registry::Settings;
use crate::sim::Source;

const WITHIN: Duration = Duration::from_secs(20);

/// A session whose listings come from this test.
struct Session {
    listings: mpsc::Sender<Vec<Listed>>,
    frames: mpsc::Receiver<RawFrame>,
    stats: Arc<Stats>,
    _stop: DropGuard,
}

impl Session {
    async fn start(entries: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            symbols: entries.iter().copied().map(str::to_owned).collect(),
            ws_url: Some(format!("ws://{}", listener.local_addr().unwrap())),
            ..Settings::default()
        };
        let cancel = CancellationToken::new();
        let symbols = ["BTCTRY", "ETHTRY", "BTCUSDT"].map(str::to_owned).to_vec();
        let source = Source::Generated { symbols, rate: 300, seed: 3 };
        tokio::spawn(serve(listener, SimConfig { source, limits: Limits::default() }, cancel.clone()));
        let (sender, frames) = mpsc::channel(64);
        let stats = Arc::new(Stats::default());
        let outlet = Arc::new(Outlet::new(sender, Arc::clone(&stats), cancel.clone()));
        let (listings, found) = mpsc::channel(1);
        tokio::spawn(Streams::new(Config::new(&SPOT, &settings), outlet, cancel.clone()).follow(found));
        Self { listings, frames, stats, _stop: cancel.drop_guard() }
    }

    async fn list(&self, symbols: &[&str]) {
        let listed = |symbol: &&str| Listed { symbol: (*symbol).to_owned(), is_traded: true, volume: None };
        self.listings.send(symbols.iter().map(listed).collect()).await.unwrap();
    }

    /// The connection and the text of the next frame that has this in it.
    async fn next(&mut self, wanted: &str) -> (u32, String) {
        let listening = async {
            loop {
                let content = self.frames.recv().await.expect("the session goes on").content;
                if let Content::Text { connection, text } = content
                    && text.contains(wanted)
                {
                    return (connection, text);
                }
            }
        };
        timeout(WITHIN, listening).await.expect(wanted)
    }

    /// What comes over a connection until it ends.
    async fn until_closed(&mut self, wanted: u32) -> Vec<RawFrame> {
        let mut seen = Vec::new();
        let listening = async {
            loop {
                let frame = self.frames.recv().await.expect("the session goes on");
                match frame.content {
                    Content::Closed { connection, .. } if connection == wanted => return,
                    _ => seen.push(frame),
                }
            }
        };
        timeout(WITHIN, listening).await.expect("the old connection gives way");
        seen
    }
}

#[tokio::test]
async fn symbols_that_come_are_asked_for_and_those_that_go_are_left() {
    let mut session = Session::start(&["*TRY"]).await;
    session.list(&["BTCTRY", "BTCUSDT"]).await;
    session.next("btctry@depth").await;
    session.list(&["BTCTRY", "ETHTRY", "BTCUSDT"]).await;
    assert_eq!(session.next("ethtry@depth").await.0, 2, "over the connection that follows");
    session.until_closed(1).await;
    session.list(&["ETHTRY", "BTCUSDT"]).await;
    session.until_closed(2).await;
    for _ in 0..20 {
        let (connection, text) = session.next("stream").await;
        assert!(connection == 3 && text.contains("ethtry"), "{text}");
    }
    session.list(&["BTCUSDT"]).await;
    session.until_closed(3).await;
    assert_eq!((session.stats.opened.get(), session.stats.lost.get()), (3, 0), "nothing is wanted any more");
    session.list(&["BTCTRY"]).await;
    assert_eq!(session.next("btctry@depth").await.0, 4);
}
