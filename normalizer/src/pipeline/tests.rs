use akis_connectors::Content;
use akis_model::{Provenance, Seq, TimeSource, Trade};
use serde_json::{Value, json};

use super::*;
use crate::binance::{Binance, Market};

/// Makes of each text a trade of one channel that happened so many milliseconds before, or a status of it. Tells a trade again.
struct Teller(Channel);

impl Teller {
    fn trade(&self, at: i64, ago_ms: i64) -> Update {
        let provenance = Provenance { ts_source: TimeSource::Venue, received_at: at };
        let (price, qty) = (akis_model::Decimal::ZERO, akis_model::Decimal::ZERO);
        let trade = Trade { symbol: "S".into(), id: "1".into(), price, qty, side: None, provenance };
        Update::new(&self.0, at - ago_ms, Payload::Trade(trade))
    }
}

impl Mapper for Teller {
    fn admit(&mut self, _: Option<&[String]>, _: &[Kind]) {}

    fn channels(&self) -> Vec<Channel> {
        vec![self.0.clone()]
    }

    fn on_frame(&mut self, frame: &RawFrame, out: &mut Output) {
        let Content::Text { text, .. } = &frame.content else { return };
        let at = frame.received_at;
        out.data = true;
        out.updates.push(match text.parse::<i64>() {
            Ok(ago_ms) => self.trade(at, ago_ms),
            Err(_) => Update::status(self.0.clone(), ChannelState::Resyncing, at, text, at),
        });
    }

    fn on_tick(&mut self, _: i64, _: &mut Output) {}

    fn backfill(&mut self, out: &mut Output) {
        out.updates.push(self.trade(0, 0));
        out.mark_again(0);
    }
}

fn pipeline() -> Pipeline {
    let mut pipeline = Pipeline::new(Box::new(Teller(Channel::parse("v:S:trades").unwrap())), false);
    pipeline.admit(None, None, &[]);
    pipeline
}

/// What events tell: the error, the state and the reason of a status, else the event's name.
fn told(events: &[Event]) -> Vec<String> {
    let told = events.iter().map(|event| {
        let event: Value = serde_json::from_str(&event.body.envelope(Seq::ZERO)).unwrap();
        let (error, data) = (event["errorCode"].as_str(), &event["data"]);
        match (data["state"].as_str(), data["reason"].as_str()) {
            (Some(state), Some(reason)) => format!("{} {state} {reason}", error.unwrap_or("ok")),
            _ => event["event"].as_str().unwrap().to_owned(),
        }
    });
    told.collect()
}

fn hear(pipeline: &mut Pipeline, received_at: i64, text: &str) -> Vec<String> {
    let mut step = Step::default();
    let content = Content::Text { connection: 1, text: text.to_owned() };
    pipeline.on_frame(&RawFrame { received_at, content }, &mut step);
    told(&step.events)
}

fn tick(pipeline: &mut Pipeline, now_ms: i64) -> Vec<String> {
    let mut step = Step::default();
    pipeline.on_tick(now_ms, &mut step);
    told(&step.events)
}

/// How each channel is, whether or not that is to be told.
fn states(pipeline: &Pipeline) -> Vec<String> {
    let states = pipeline.channels().into_iter().map(|channel| pipeline.state(channel).into_event().unwrap());
    told(&states.collect::<Vec<_>>())
}

fn backfill(pipeline: &mut Pipeline) -> Vec<String> {
    let mut step = Step::default();
    pipeline.backfill(&mut step);
    told(&step.events)
}

fn reply(pipeline: &mut Pipeline, received_at: i64, target: &str, body: &Value) -> Vec<String> {
    let mut step = Step::default();
    let content = Content::Reply { target: target.to_owned(), status: 200, body: body.to_string() };
    pipeline.on_frame(&RawFrame { received_at, content }, &mut step);
    told(&step.events)
}

#[test]
fn how_a_channel_is_can_be_told_at_any_time() {
    let mut pipeline = pipeline();
    assert_eq!(tick(&mut pipeline, 0), [""; 0]);
    assert!(!pipeline.is_judged(), "nothing is known yet");
    assert_eq!(tick(&mut pipeline, 6_000), ["DATA_UNAVAILABLE down no connection"]);
    assert!(pipeline.is_judged() && !pipeline.is_up());
    assert_eq!(states(&pipeline), ["DATA_UNAVAILABLE down no connection"]);
    assert_eq!(hear(&mut pipeline, 7_000, "0"), ["ok up data flows again", "trade"]);
    assert!(pipeline.is_up());
    assert_eq!(states(&pipeline), ["ok up data flows again"]);
    hear(&mut pipeline, 8_000, "halted");
    assert_eq!(states(&pipeline), ["DATA_UNAVAILABLE resyncing halted"]);
}

#[test]
fn a_standby_is_warm_once_it_has_heard_the_venue_for_a_while_and_its_books_are_there() {
    let binance = || {
        let mut pipeline = Pipeline::new(Box::new(Binance::new(Market::SPOT)), false);
        pipeline.admit(Some(&["BTCUSDT".to_owned(), "ETHUSDT".to_owned()]), None, &[Kind::Book]);
        pipeline
    };
    let mut pipeline = binance();
    let diff = |n: i64| json!({ "e": "depthUpdate", "E": n, "s": "BTCUSDT", "U": n, "u": n, "b": [["10.0", "1.0"]], "a": [["11.0", "1.0"]] });
    let hear_until = |pipeline: &mut Pipeline, from: i64, until: i64| {
        for at in (from..until).step_by(100) {
            hear(pipeline, at, &diff(at).to_string());
        }
    };
    let symbols = json!([{ "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT" }]);
    reply(&mut pipeline, 1_000, "/api/v3/exchangeInfo", &json!({ "symbols": symbols }));
    hear_until(&mut pipeline, 1_000, 6_000);
    assert!(!pipeline.is_warm(), "it has only begun to listen");
    hear_until(&mut pipeline, 6_000, 20_000);
    assert!(
        !pipeline.is_warm(),
        "its book is still to come, and the one of the symbol that never speaks is not awaited"
    );
    let body = json!({ "lastUpdateId": 19_900, "bids": [["10.0", "1.0"]], "asks": [["11.0", "1.0"]] });
    reply(&mut pipeline, 20_000, "/api/v3/depth?symbol=BTCUSDT&limit=1000", &body);
    assert!(pipeline.is_warm());

    let mut unbuilt = binance();
    hear_until(&mut unbuilt, 1_000, 301_000);
    assert!(!unbuilt.is_warm());
    hear_until(&mut unbuilt, 301_000, 301_200);
    assert!(unbuilt.is_warm(), "nobody waits for ever");
}

#[test]
fn a_channel_that_speaks_again_is_not_told_to_be_well_when_it_is_not() {
    let mut pipeline = pipeline();
    for n in 0..40 {
        hear(&mut pipeline, n * 1_000, "0");
    }
    hear(&mut pipeline, 40_000, "halted");
    for n in 41..71 {
        // The venue is there.
        hear(&mut pipeline, n * 1_000, "halted");
    }
    let silent = "STALENESS_WARNING down no event for 31 s, where its longest pause was 1000 ms";
    assert_eq!(tick(&mut pipeline, 70_001), [silent]);
    assert_eq!(hear(&mut pipeline, 71_000, "0"), ["DATA_UNAVAILABLE resyncing halted", "trade"]);
}

#[test]
fn what_is_told_again_is_no_word_of_a_channel_and_none_of_a_silent_one() {
    let mut pipeline = pipeline();
    for n in 0..40 {
        hear(&mut pipeline, n * 1_000, "0");
    }
    for n in 40..71 {
        // The venue is there.
        hear(&mut pipeline, n * 1_000, "halted");
        if n == 60 {
            assert_eq!(backfill(&mut pipeline), ["trade"]);
        }
    }
    let silent = "STALENESS_WARNING down no event for 31 s, where its longest pause was 1000 ms";
    assert_eq!(tick(&mut pipeline, 70_001), [silent], "it has not spoken since");
    assert_eq!(backfill(&mut pipeline), [""; 0], "another may have heard more of it");
    assert!(pipeline.rhythms.told(&Channel::parse("v:S:trades").unwrap()).is_some(), "and is silent still");
}

#[test]
fn behind_an_outage_nothing_is_told_until_it_is_over() {
    let mut pipeline = pipeline();
    hear(&mut pipeline, 1_000, "0");
    assert_eq!(tick(&mut pipeline, 7_000), ["DATA_UNAVAILABLE down no data"]);
    assert_eq!(backfill(&mut pipeline), [""; 0]);
    assert_eq!(hear(&mut pipeline, 8_000, "0"), ["ok up data flows again", "trade"]);
    assert_eq!(backfill(&mut pipeline), ["trade"]);
}

#[test]
fn a_book_that_rest_has_is_not_told_to_be_up_while_its_venue_is_down() {
    let mut pipeline = Pipeline::new(Box::new(Binance::new(Market::SPOT)), false);
    pipeline.admit(Some(&["BTCUSDT".to_owned()]), None, &[Kind::Book]);
    let depth = "/api/v3/depth?symbol=BTCUSDT&limit=1000";
    let book = |id: i64| json!({ "lastUpdateId": id, "bids": [["10.0", "1.0"]], "asks": [["11.0", "1.0"]] });
    let diff = |n: i64| {
        json!({ "e": "depthUpdate", "E": n, "s": "BTCUSDT", "U": n, "u": n, "b": [["10.0", "1.0"]], "a": [] })
            .to_string()
    };
    let info = |status: &str| json!({ "symbols": [{ "symbol": "BTCUSDT", "status": status, "baseAsset": "BTC", "quoteAsset": "USDT" }] });
    reply(&mut pipeline, 1_000, "/api/v3/exchangeInfo", &info("HALT"));
    hear(&mut pipeline, 1_000, &diff(1));
    assert_eq!(reply(&mut pipeline, 1_100, depth, &book(1)), ["orderbook"]);

    let closed = RawFrame { received_at: 2_000, content: Content::Closed { connection: 1, code: 1006 } };
    pipeline.on_frame(&closed, &mut Step::default());
    let (mut events, mut asked) = (Vec::new(), Vec::new());
    for at in (2_000..10_000).step_by(50) {
        let mut step = Step::default();
        pipeline.on_tick(at, &mut step);
        events.extend(told(&step.events));
        asked.append(&mut step.requests);
    }
    assert_eq!(events.last().map(String::as_str), Some("DATA_UNAVAILABLE down no connection"));
    assert_eq!(asked, [], "no connection would bring it up to date");
    assert_eq!(reply(&mut pipeline, 10_000, "/api/v3/exchangeInfo", &info("TRADING")), [""; 0]);
    assert_eq!(reply(&mut pipeline, 10_000, depth, &book(5)), ["orderbook"]);
    assert_eq!(states(&pipeline), ["DATA_UNAVAILABLE down no connection"]);

    let mut step = Step::default();
    let content = Content::Text { connection: 2, text: diff(6) };
    pipeline.on_frame(&RawFrame { received_at: 11_000, content }, &mut step);
    assert_eq!(told(&step.events), ["ok up data flows again", "orderbook"], "neither halted nor lost any more");
}

#[test]
fn a_book_that_is_built_for_the_first_time_is_not_up_before_it_is_there() {
    let mut pipeline = Pipeline::new(Box::new(Binance::new(Market::SPOT)), false);
    pipeline.admit(Some(&["BTCUSDT".to_owned()]), None, &[Kind::Book]);
    assert_eq!((tick(&mut pipeline, 0), tick(&mut pipeline, 2_000)), (vec![], vec![]), "nothing is connected");
    let diff = json!({ "e": "depthUpdate", "E": 2, "s": "BTCUSDT", "U": 2, "u": 2, "b": [["10.0", "1.0"]], "a": [] });
    hear(&mut pipeline, 2_000, &diff.to_string());
    assert_eq!((tick(&mut pipeline, 2_050), tick(&mut pipeline, 3_050)), (vec![], vec![]), "it may be there soon");
    let lost = "DATA_UNAVAILABLE resyncing start";
    assert_eq!(tick(&mut pipeline, 3_051), [lost]);
    assert_eq!(states(&pipeline), [lost], "whoever takes over says so");
    let body = json!({ "lastUpdateId": 2, "bids": [["10.0", "1.0"]], "asks": [["11.0", "1.0"]] });
    let came = reply(&mut pipeline, 4_000, "/api/v3/depth?symbol=BTCUSDT&limit=1000", &body);
    assert_eq!(came, ["ok up start", "orderbook"]);
}

#[test]
fn whoever_takes_over_tells_that_a_channel_is_up_once_it_speaks_or_all_is_known() {
    let mut pipeline = Pipeline::new(Box::new(Binance::new(Market::SPOT)), false);
    let symbols = ["AUSDT", "BUSDT", "CUSDT"];
    pipeline.admit(Some(&symbols.map(str::to_owned)), None, &[Kind::Trades]);
    let mut step = Step::default();
    pipeline.set_active(true, &mut step);
    assert_eq!(told(&step.states), [""; 0], "nothing is known yet");
    let mut states = Vec::new();
    let trade =
        |n: i64| json!({ "e": "aggTrade", "E": n, "s": "AUSDT", "a": n, "p": "1", "q": "1", "T": n, "m": true });
    let mut told_of = |pipeline: &mut Pipeline, at: i64| {
        let mut step = Step::default();
        let content = Content::Text { connection: 1, text: trade(at).to_string() };
        pipeline.on_frame(&RawFrame { received_at: at, content }, &mut step);
        pipeline.on_tick(at, &mut step);
        states.extend(step.states.iter().map(|state| state.channel.to_string()).zip(told(&step.states)));
        states.clone()
    };
    let up = |symbol: &str| (format!("binance:{symbol}:trades"), "ok up data flows again".to_owned());
    for at in (1_000..10_000).step_by(500) {
        assert_eq!(told_of(&mut pipeline, at), [up("AUSDT")], "it speaks; the others may be halted");
    }
    let symbol =
        |name: &str, status: &str| json!({ "symbol": name, "status": status, "baseAsset": "A", "quoteAsset": "USDT" });
    let info = json!({ "symbols": [symbol("AUSDT", "TRADING"), symbol("BUSDT", "HALT"), symbol("CUSDT", "TRADING")] });
    let told = reply(&mut pipeline, 10_000, "/api/v3/exchangeInfo", &info);
    assert_eq!(told, ["DATA_UNAVAILABLE down the venue says HALT"]);
    assert_eq!(told_of(&mut pipeline, 10_050), [up("AUSDT"), up("CUSDT")]);

    let mut looked_up = Pipeline::new(Box::new(Binance::new(Market::SPOT)), false);
    looked_up.admit(Some(&["*usdt".to_owned()]), None, &[Kind::Trades]);
    looked_up.set_active(true, &mut Step::default());
    let mut step = Step::default();
    let content = Content::Text { connection: 1, text: trade(1_000).to_string() };
    looked_up.on_frame(&RawFrame { received_at: 1_000, content }, &mut step);
    assert_eq!(step.states.len(), 1, "also where a channel is known by its first event only");
}

#[test]
fn a_session_that_is_replayed_does_not_teach_how_often_its_channels_speak() {
    let mut pipeline = pipeline();
    for n in 0..40 {
        assert_eq!(hear(&mut pipeline, n, "7200000"), ["trade"]);
    }
    for n in 1..100 {
        // The venue is there.
        hear(&mut pipeline, n * 1_000, "halted");
        assert_eq!(tick(&mut pipeline, n * 1_000), [""; 0], "a thin share is no silent one");
    }
}
