//! BtcTurk's whole way: its stand-in, a normalizer, Redis, a gateway, clients.

use serde_json::{Value, json};

use crate::crowd::{assert_complete, assert_each_trade_once, see_all, see_more, start_followers};
use crate::follower::finish_all;
use crate::system::{Options, SOON, System};

const TRADES: &str = "btcturk:BTCTRY:trades";
const BOOK: &str = "btcturk:BTCTRY:book";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn books_and_trades_reach_clients_as_the_venue_has_them() {
    let (venue, symbols, kinds) = ("btcturk", &["BTCTRY", "ETHTRY"] as &[_], &["ticker", "trades", "book"] as &[_]);
    let mut system = System::start(Options { venue, symbols, kinds, rate: 200, ..Options::default() }).await;
    let followers = start_followers(&system, 2, &[TRADES, BOOK]);
    see_more(&system, &followers, &[TRADES], 20).await;
    for fault in [json!({"fault": "drop_diff", "symbol": "BTCTRY"}), json!({"fault": "duplicate", "symbol": "BTCTRY"})]
    {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let asked = http.post(format!("http://{}/sim/fault", system.venue)).body(fault.to_string());
        assert!(asked.send().await.unwrap().status().is_success());
    }
    see_more(&system, &followers, &[BOOK], 8).await;
    let rest = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/api/v2/trades?pairSymbol=BTCTRY", system.venue);
    let text = rest.get(url).timeout(SOON).send().await.unwrap().text().await.unwrap();
    see_more(&system, &followers, &[TRADES], 20).await;
    system.stop_normalizer(0).await;
    see_all(&system, &followers, &[TRADES, BOOK]).await;
    let records = finish_all(followers).await;

    let trades = system.history(TRADES).await;
    assert_complete(TRADES, &records, &trades);
    assert_each_trade_once(TRADES, &trades);
    let told: Vec<Value> = trades.values().filter(|event| event["event"] == "trade").cloned().collect();
    let first = told[0]["ts"].as_i64().unwrap();
    let reply: Value = serde_json::from_str(&text).unwrap();
    let known = reply["data"].as_array().unwrap().iter().filter(|trade| trade["date"].as_i64() > Some(first));
    let mut compared = 0;
    for trade in known {
        let found = told.iter().find(|event| event["data"]["id"] == trade["tid"]);
        let data = &found.unwrap_or_else(|| panic!("{trade} is missing"))["data"];
        assert_eq!((&data["price"], &data["qty"]), (&trade["price"], &trade["amount"]));
        compared += 1;
    }
    assert!(compared > 10, "{compared} trades");

    let books = system.history(BOOK).await;
    assert_complete(BOOK, &records, &books);
    let price = |level: &Value| level[0].as_str().unwrap().parse::<u64>().unwrap();
    for book in books.values().filter(|event| event["event"] == "orderbook") {
        let side = |name: &str| book["data"][name].as_array().unwrap().iter().map(price).collect::<Vec<_>>();
        let (bids, asks) = (side("bids"), side("asks"));
        assert_eq!((bids.len(), asks.len()), (20, 20));
        assert!(bids.is_sorted_by(|a, b| a > b) && asks.is_sorted_by(|a, b| a < b) && bids[0] < asks[0], "{book}");
    }
}
