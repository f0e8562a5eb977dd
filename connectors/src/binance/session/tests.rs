//! The session against the stand-in: what becomes of symbols that come and go.

use tokio::net::TcpListener;
use tokio_util::sync::DropGuard;

use super::*;
use crate::binance::SPOT;
use crate::binance::sim::{Limits, SimConfig, serve};
use crate::heard::Heard;
use crate::ports::Stats;
use crate::registry::Settings;
use crate::sim::Source;

/// A session whose listings come from this test.
struct Session {
    listings: mpsc::Sender<Vec<Listed>>,
    heard: Heard,
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
        Self { listings, heard: Heard(frames), stats, _stop: cancel.drop_guard() }
    }

    async fn list(&self, symbols: &[&str]) {
        let listed = |symbol: &&str| Listed { symbol: (*symbol).to_owned(), is_traded: true, volume: None };
        self.listings.send(symbols.iter().map(listed).collect()).await.unwrap();
    }
}

#[tokio::test]
async fn symbols_that_come_are_asked_for_and_those_that_go_are_left() {
    let mut session = Session::start(&["*TRY"]).await;
    session.list(&["BTCTRY", "BTCUSDT"]).await;
    session.heard.next("btctry@depth").await;
    session.list(&["BTCTRY", "ETHTRY", "BTCUSDT"]).await;
    assert_eq!(session.heard.next("ethtry@depth").await.0, 2, "over the connection that follows");
    session.heard.until_closed(1).await;
    session.list(&["ETHTRY", "BTCUSDT"]).await;
    session.heard.until_closed(2).await;
    for _ in 0..20 {
        let (connection, text) = session.heard.next("stream").await;
        assert!(connection == 3 && text.contains("ethtry"), "{text}");
    }
    session.list(&["BTCUSDT"]).await;
    session.heard.until_closed(3).await;
    assert_eq!((session.stats.opened.get(), session.stats.lost.get()), (3, 0), "nothing is wanted any more");
    session.list(&["BTCTRY"]).await;
    assert_eq!(session.heard.next("btctry@depth").await.0, 4);
}
