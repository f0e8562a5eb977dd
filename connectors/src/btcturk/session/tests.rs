//! The session against the stand-in: what becomes of pairs that come and go.

use akis_model::Decimal;
use tokio::net::TcpListener;
use tokio_util::sync::DropGuard;

use super::*;
use crate::btcturk::sim::{Limits, SimConfig, serve};
use crate::heard::Heard;
use crate::ports::Stats;
use crate::registry::Settings;
use crate::sim::Source;

/// A session whose listings come from this test.
struct Session {
    listings: mpsc::Sender<Vec<Listed>>,
    heard: Heard,
    stats: Arc<Stats>,
    _say: mpsc::Sender<Vec<String>>,
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
        let ((say, said), (listings, found)) = (mpsc::channel(1), mpsc::channel(1));
        tokio::spawn(speak((&settings).into(), outlet, said, found, cancel.clone()));
        Self { listings, heard: Heard(frames), stats, _say: say, _stop: cancel.drop_guard() }
    }

    async fn list(&self, symbols: &[&str]) {
        let listed = |symbol: &&str| Listed {
            symbol: (*symbol).to_owned(),
            is_traded: true,
            volume: Some(Decimal::ZERO).filter(|_| symbol.ends_with("TRY")),
        };
        self.listings.send(symbols.iter().map(listed).collect()).await.unwrap();
    }
}

#[tokio::test]
async fn pairs_that_come_are_asked_for_and_those_that_go_are_left() {
    let mut session = Session::start(&["*TRY"]).await;
    session.list(&["BTCTRY", "BTCUSDT"]).await;
    session.heard.next(r#""event":"BTCTRY","type":422"#).await;
    session.list(&["BTCTRY", "ETHTRY", "BTCUSDT"]).await;
    assert_eq!(session.heard.next(r#""event":"ETHTRY","type":422"#).await.0, 2, "over the connection that follows");
    session.heard.until_closed(1).await;
    session.list(&["ETHTRY", "BTCUSDT"]).await;
    session.heard.until_closed(2).await;
    for _ in 0..20 {
        let (connection, text) = session.heard.next("channel").await;
        assert!(connection == 3 && text.contains("ETHTRY"), "{text}");
    }
    assert_eq!((session.stats.opened.get(), session.stats.lost.get()), (3, 0));
}

#[tokio::test]
async fn nothing_is_asked_for_before_it_is_known_what_there_is() {
    let mut session = Session::start(&["top:1"]).await;
    session.list(&["BTCUSDT"]).await;
    assert_eq!(session.stats.opened.get(), 0, "no volume can be compared");
    session.list(&["BTCUSDT", "ETHTRY"]).await;
    assert!(session.heard.next("431").await.1.contains("ETHTRY"));
    session.list(&["BTCUSDT", "ETHTRY"]).await;
    session.heard.next("422").await;
    assert_eq!(session.stats.opened.get(), 1, "the same list changes nothing");
}
