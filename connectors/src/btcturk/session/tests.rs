//! The session against the stand-in: what becomes of pairs that come and go.

use std::time::Duration;

use akis_model::Decimal;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use super::*;
use crate::RawFrame;
use crate::btcturk::sim::{Limits, SimConfig, serve};
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
        Self { listings, frames, stats, _say: say, _stop: cancel.drop_guard() }
    }

    async fn list(&self, symbols: &[&str]) {
        let listed = |symbol: &&str| Listed {
            symbol: (*symbol).to_owned(),
            is_traded: true,
            volume: Some(Decimal::ZERO).filter(|_| symbol.ends_with("TRY")),
        };
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
async fn pairs_that_come_are_asked_for_and_those_that_go_are_left() {
    let mut session = Session::start(&["*TRY"]).await;
    session.list(&["BTCTRY", "BTCUSDT"]).await;
    session.next(r#""event":"BTCTRY","type":422"#).await;
    session.list(&["BTCTRY", "ETHTRY", "BTCUSDT"]).await;
    assert_eq!(session.next(r#""event":"ETHTRY","type":422"#).await.0, 2, "over the connection that follows");
    session.until_closed(1).await;
    session.list(&["ETHTRY", "BTCUSDT"]).await;
    session.until_closed(2).await;
    for _ in 0..20 {
        let (connection, text) = session.next("channel").await;
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
    assert!(session.next("431").await.1.contains("ETHTRY"));
    session.list(&["BTCUSDT", "ETHTRY"]).await;
    session.next("422").await;
    assert_eq!(session.stats.opened.get(), 1, "the same list changes nothing");
}
