//! A recording of a session is played by the stand-in and comes out the same.

use std::collections::BTreeMap as Map;
use std::fs::File;
use std::io::BufWriter;

use akis_connectors::recording::{Header, Transport, Writer};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_comes_again() {
    let sim = Sim::days(3.0).await;
    let mut session = Session::start(sim.mold());
    session.until(|heard| heard.ended).await;
    let file = std::env::temp_dir().join(format!("akis-bist-playback-{}.jsonl", std::process::id()));
    let header = Header {
        venue: "bist".into(),
        market: "equities".into(),
        started_at: session.heard.frames[0].received_at,
        symbols: None,
        transport: Some(Transport::MoldUdp64),
        connections: Map::new(),
    };
    let mut writer = Writer::create(BufWriter::new(File::create(&file).unwrap()), &header).unwrap();
    session.heard.frames.iter().for_each(|frame| writer.write(frame).unwrap());
    writer.flush().unwrap();
    let sim = Sim::start(Source::Recorded { file: file.clone(), speed: 2.0 }, Day::Present).await;
    for keys in [sim.mold(), sim.soup()] {
        let mut again = Session::start(keys);
        again.until(|heard| heard.ended).await;
        assert_eq!(again.heard.days[0].0, session.heard.days[0].0);
        assert!(again.heard.first_day() == session.heard.first_day(), "{}", again.heard.summary());
    }
    std::fs::remove_file(&file).unwrap();
}
