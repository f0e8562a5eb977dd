//! Borsa Istanbul from its stand-in to a client, with packets lost on the way.

use std::net::UdpSocket;
use std::time::Duration;

use akis_connectors::bist::itch::Message;
use akis_connectors::bist::mold::SessionId;
use akis_connectors::bist::soup::{FromServer, LoginRequest, Splitter};
use akis_testkit::Process;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::akis;
use crate::system::{Options, SOON, System, token};

/// How many trades are looked at.
const TRADES: usize = 150;

/// The ids of the trades of a book, as the stand-in tells them from its first message on, until `last` has come.
pub(crate) async fn told(soup: &str, symbol: &str, last: u64) -> Vec<u64> {
    let mut socket = TcpStream::connect(soup).await.unwrap();
    let login = LoginRequest { user: String::new(), password: String::new(), session: SessionId::new(""), next: 1 };
    socket.write_all(&login.encode()).await.unwrap();
    let (mut splitter, mut buffer) = (Splitter::default(), vec![0; 4096]);
    let (mut book, mut ids) = (None, Vec::new());
    while !ids.contains(&last) {
        let read = tokio::time::timeout(SOON, socket.read(&mut buffer)).await.unwrap().unwrap();
        splitter.push(&buffer[..read]);
        while let Some((kind, payload)) = splitter.next_packet().unwrap() {
            let Ok(FromServer::Sequenced(message)) = FromServer::parse(kind, payload) else { continue };
            match Message::decode(message) {
                Ok(Message::Directory(m)) if m.symbol.to_string() == symbol => book = Some(m.book),
                Ok(Message::Executed(m)) if Some(m.order.book) == book => ids.push(m.match_id),
                Ok(Message::ExecutedAtPrice(m)) if Some(m.order.book) == book && m.printable => ids.push(m.match_id),
                Ok(Message::Trade(m)) if Some(m.book) == book && m.printable => ids.push(m.match_id),
                _ => {}
            }
        }
    }
    ids.truncate(ids.iter().position(|id| *id == last).map_or(0, |at| at + 1));
    ids
}

fn free_address() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_trade_reaches_the_client_although_both_lines_lose_packets() {
    let dir = tempfile::tempdir().unwrap();
    let (line_a, line_b) = (free_address(), free_address());
    let args = ["sim", "bist", "--listen", "127.0.0.1:0", "--symbols", "THYAO,GARAN,ASELS", "--rate", "300"];
    let mut sim = Process::start(akis(dir.path()).args(args).args(["--line-a", &line_a, "--line-b", &line_b])).unwrap();
    let mut printed = async |key: &str| {
        let line = sim.wait_for_line(&format!("{key}: "), SOON).await.unwrap();
        line.trim_start_matches(&format!("{key}: ")).to_owned()
    };
    let (control, soup) = (printed("rest_url").await, printed("soup").await);
    let (rewinder, glimpse) = (printed("rewinder").await, printed("glimpse").await);
    let config = format!(
        "[venues.bist]\nsymbols = [\"THYAO\", \"GARAN\"]\nkinds = [\"trades\", \"book\"]\nline_a = \"{line_a}\"\n\
         line_b = \"{line_b}\"\nrewinder = \"{rewinder}\"\nglimpse = \"{glimpse}\"\nusername = \"AKIS\"\npassword = \"pw\"\n"
    );
    let system =
        System::start(Options { symbols: &["BTCUSDT"], kinds: &["trades"], config, ..Options::default() }).await;
    let mut client = system.gateways[0].door.connect(&token("reader", &["bist:*"], &[])).await.unwrap();
    client.send(&json!({"type": "subscribe", "channels": ["bist:THYAO:trades", "bist:THYAO:book"]})).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (mut ids, mut books) = (Vec::new(), 0);
    while ids.len() < TRADES || books < 5 {
        let event = client.next(SOON).await.unwrap();
        assert_ne!(event.event(), "gap", "{event:?}");
        match event.event() {
            "trade" => ids.push(event.data()["id"].as_str().and_then(|id| id.parse::<u64>().ok()).unwrap()),
            "orderbook" => {
                books += 1;
                check_book(event.data());
            }
            _ => {}
        }
        if ids.len() % 10 == 1 && event.event() == "trade" {
            let fault = json!({"fault": "loss", "line": "both", "packets": 2}).to_string();
            http.post(format!("{control}/sim/fault")).body(fault).timeout(SOON).send().await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let told = told(&soup, "THYAO.E", *ids.last().unwrap()).await;
    let from = told.iter().position(|id| *id == ids[0]).expect("a trade of the exchange");
    assert_eq!(ids, told[from..], "every trade since the first one, in the order of the exchange");
}

/// Over SoupBinTCP the session comes again from its first message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_normalizer_that_is_started_anew_in_the_middle_of_a_session_tells_every_trade_once() {
    let options =
        Options { venue: "bist", symbols: &["THYAO", "GARAN"], kinds: &["trades"], rate: 300, ..Options::default() };
    let mut system = System::start(options).await;
    let mut client = system.gateways[0].door.connect(&token("reader", &["bist:*"], &[])).await.unwrap();
    client.send(&json!({"type": "subscribe", "channels": ["bist:THYAO:trades"]})).await.unwrap();
    let mut ids: Vec<u64> = Vec::new();
    for is_restarted in [false, true] {
        if is_restarted {
            system.stop_normalizer(0).await;
            system.normalizers[0] = system.start_normalizer().await;
        }
        let wanted = ids.len() + TRADES;
        while ids.len() < wanted {
            let event = client.next(SOON).await.unwrap();
            assert_ne!(event.event(), "gap", "{event:?}");
            if event.event() == "trade" {
                ids.push(event.data()["id"].as_str().and_then(|id| id.parse().ok()).unwrap());
            }
        }
    }
    let told = told(&system.venue, "THYAO.E", *ids.last().unwrap()).await;
    let from = told.iter().position(|id| *id == ids[0]).expect("a trade of the exchange");
    assert_eq!(ids, told[from..], "every trade since the first one, in the order of the exchange");
}

/// Bids below asks, best first.
fn check_book(book: &Value) {
    let prices = |side: &str| -> Vec<f64> {
        book[side].as_array().unwrap().iter().map(|level| level[0].as_str().unwrap().parse().unwrap()).collect()
    };
    let (bids, asks) = (prices("bids"), prices("asks"));
    assert!(bids.is_sorted_by(|a, b| a > b) && asks.is_sorted_by(|a, b| a < b), "{book}");
    if let (Some(bid), Some(ask)) = (bids.first(), asks.first()) {
        assert!(bid < ask, "{book}");
    }
}
