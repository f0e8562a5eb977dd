//! A venue that is split over several normalizers.

use akis_connectors::Part;

use crate::crowd::assert_each_trade_once;
use crate::system::{Options, SOON, System};

const SYMBOLS: &[&str] = &["BTCUSDT", "ETHUSDT", "BNBUSDT"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_parts_publish_every_symbol_once() {
    let part = Part { number: 1, of: 2 };
    assert_ne!(part.has("ETHUSDT"), part.has("BNBUSDT"), "both parts have something to do");
    // Candles are what the system does not wait for, for nobody publishes yet.
    let options = Options { normalizers: 0, gateways: 0, symbols: SYMBOLS, kinds: &["candles"], ..Options::default() };
    let system = System::start(options).await;
    let mut parts = Vec::new();
    for part in ["1/2", "2/2"] {
        let env = [("AKIS_VENUES__BINANCE__KINDS", "trades"), ("AKIS_VENUES__BINANCE__PART", part)];
        let mut role = system.start_role(&["normalizer"], &env).await;
        role.process.wait_for_line("lease taken", SOON).await.unwrap();
        parts.push(role);
    }
    for symbol in SYMBOLS {
        system.wait_for_events(&format!("binance:{symbol}:trades"), 20).await;
    }
    for role in &mut parts {
        role.process.terminate().unwrap();
        assert!(role.process.wait(SOON).await.unwrap().success());
    }
    for symbol in SYMBOLS {
        let channel = format!("binance:{symbol}:trades");
        let history = system.history(&channel).await;
        assert_each_trade_once(&channel, &history);
        // One publisher counts its positions by ones: with two of them, terms would begin in between.
        let positions: Vec<u64> = history.keys().copied().collect();
        assert!(positions.windows(2).all(|pair| pair[1] == pair[0] + 1), "{channel}: {positions:?}");
    }
}
