//! What the product does on Binance's worst days: frames that come late, not at all, or half; a clock that is wrong.

use super::*;

const TRADES: &str = "binance:BTCUSDT:trades";
const BOOK: &str = "binance:BTCUSDT:book";
const RESYNCS: &str = "akis_normalizer_book_resyncs_total";

/// A venue and its normalizer, with events of every kind in the log.
async fn flowing() -> Result<(Venue, Normalizer)> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let normalizer = Normalizer::start(venue.settings())?;
    for (channel, count) in [(TRADES, 10), (BOOK, 2), ("binance:BTCUSDT:ticker", 2), ("binance:BTCUSDT:1m", 1)] {
        normalizer.wait_for(channel, count).await?;
    }
    Ok((venue, normalizer))
}

/// Every trade is there once and in order, and nothing is missing between two events of a channel.
async fn assert_whole(normalizer: &Normalizer) -> Result<()> {
    let events = normalizer.events(TRADES).await?;
    assert_dense(&events);
    assert_no_trade_is_missing(&events);
    let books = normalizer.events(BOOK).await?;
    assert_dense(&books);
    assert_books(&books);
    assert_eq!(normalizer.metric("akis_normalizer_lost_trades_total{venue=\"binance\"}"), 0);
    Ok(())
}

fn resync(cause: &str) -> String {
    format!("{RESYNCS}{{cause=\"{cause}\",venue=\"binance\"}}")
}

fn session(what: &str) -> String {
    format!("akis_venue_session_total{{venue=\"binance\",what=\"{what}\"}}")
}

/// Plays faults one behind the other, each with the metric that tells that it was noticed, where there is something to notice.
async fn assert_whole_after(faults: &[(Value, Option<String>)]) -> Result<()> {
    let (venue, normalizer) = flowing().await?;
    for (fault, noticed) in faults {
        let counted = noticed.as_deref().map(|metric| normalizer.metric(metric));
        venue.fault(fault.clone()).await?;
        if let Some((metric, counted)) = noticed.as_deref().zip(counted) {
            let what = format!("{fault} is noticed");
            wait_until(2 * WITHIN, &what, async || normalizer.metric(metric) > counted).await?;
        }
        for channel in [TRADES, BOOK] {
            normalizer.wait_for_more(channel, 3).await?;
        }
    }
    assert_whole(&normalizer).await?;
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn diffs_that_come_wrong_cost_a_book_for_a_moment_and_no_trade() -> Result<()> {
    assert_whole_after(&[
        (json!({"fault": "duplicate", "symbol": "BTCUSDT"}), None),
        (json!({"fault": "reorder", "symbol": "BTCUSDT"}), Some(resync("gap"))),
        (json!({"fault": "wrong_sequence", "symbol": "BTCUSDT"}), Some(resync("gap"))),
        (json!({"fault": "silence", "ms": 1_500, "symbol": "BTCUSDT"}), Some(resync("gap"))),
        // The book that is built anew by the next one asks in vain first.
        (json!({"fault": "rest_status", "status": 500, "times": 1}), None),
        (json!({"fault": "drop_diff", "symbol": "BTCUSDT"}), Some(session("requests_refused"))),
        (json!({"fault": "close", "code": 1001, "reason": "maintenance"}), Some(resync("connection"))),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stalls_is_asked_for_again_and_no_trade_is_missing() -> Result<()> {
    assert_whole_after(&[(json!({"fault": "stall", "stream": "btcusdt@aggTrade"}), Some(session("stopped_streams")))])
        .await
}

/// Waits until it has been told of the channel's state, whatever was told after that.
async fn wait_until_told(normalizer: &Normalizer, channel: &str, state: &str) -> Result<()> {
    let is_it = |event: &Value| event["event"] == "channel_status" && event["data"]["state"] == state;
    let is_told = async || normalizer.events(channel).await.is_ok_and(|events| events.iter().any(|(_, e)| is_it(e)));
    wait_until(WITHIN, &format!("{channel} is told to be {state}"), is_told).await
}

fn statuses(events: &[(Seq, Value)]) -> usize {
    events.iter().filter(|(_, event)| event["event"] == "channel_status").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_come_late_are_published_late_and_whole() -> Result<()> {
    let (venue, normalizer) = flowing().await?;
    venue.fault(json!({"fault": "delay", "ms": 3_000, "symbol": "BTCUSDT"})).await?;
    let is_late = |event: &Value| {
        let time = |value: &Value| value.as_i64().unwrap();
        event["event"] == "trade" && time(&event["data"]["receivedAt"]) - time(&event["ts"]) > 2_000
    };
    let came = async || normalizer.events(TRADES).await.is_ok_and(|events| events.iter().any(|(_, e)| is_late(e)));
    wait_until(WITHIN, "what was held back has come, with the venue's times", came).await?;
    for channel in [TRADES, BOOK] {
        normalizer.wait_for_more(channel, 5).await?;
        assert_eq!(statuses(&normalizer.events("binance:ETHUSDT:trades").await?), 0, "the other symbol goes on");
    }
    assert_eq!(normalizer.metric(&resync("gap")), 0, "late is not lost");
    assert_whole(&normalizer).await?;
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_that_freezes_is_down_and_goes_on_without_a_loss() -> Result<()> {
    let (venue, normalizer) = flowing().await?;
    // Longer than a venue may be silent before it counts as down.
    venue.fault(json!({"fault": "freeze", "ms": 7_000})).await?;
    for channel in [TRADES, BOOK, "binance:ETHUSDT:ticker", "binance:ETHUSDT:1m"] {
        wait_until_told(&normalizer, channel, "down").await?;
    }
    for channel in [TRADES, BOOK] {
        normalizer.wait_for_state(channel, "up").await?;
        normalizer.wait_for_more(channel, 5).await?;
    }
    assert_eq!(normalizer.metric(&session("lost")), 0, "the socket stays");
    assert_whole(&normalizer).await?;
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_frame_costs_a_connection_and_no_trade() -> Result<()> {
    let (venue, normalizer) = flowing().await?;
    for lost in 1..=2 {
        venue.fault(json!({"fault": "half_frame"})).await?;
        let counted = async || normalizer.metric(&session("lost")) >= lost;
        wait_until(WITHIN, "the connection is lost", counted).await?;
        for channel in [TRADES, BOOK] {
            normalizer.wait_for_more(channel, 5).await?;
        }
    }
    assert!(normalizer.metric(&resync("connection")) >= 2);
    assert_whole(&normalizer).await?;
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_drips_is_given_up_and_asked_for_again() -> Result<()> {
    let (venue, normalizer) = flowing().await?;
    // The book that is built anew needs a reply, and that one drips.
    venue.fault(json!({"fault": "slow_loris", "times": 1})).await?;
    venue.fault(json!({"fault": "drop_diff", "symbol": "BTCUSDT"})).await?;
    normalizer.wait_for_metric(&resync("gap")).await?;
    wait_until_told(&normalizer, BOOK, "resyncing").await?;
    for channel in [TRADES, "binance:ETHUSDT:book"] {
        normalizer.wait_for_more(channel, 5).await?;
    }
    normalizer.wait_for_metric(&session("requests_refused")).await?;
    wait_until_told(&normalizer, BOOK, "up").await?;
    let events = normalizer.events(BOOK).await?;
    let told: Vec<&Value> = events.iter().map(|(_, event)| &event["event"]).collect();
    let lost = told.iter().position(|event| *event == "channel_status").context("it was told")?;
    assert_eq!(told[lost + 1], "channel_status", "no book is shown without a proof");
    normalizer.wait_for_more(BOOK, 3).await?;
    assert_whole(&normalizer).await?;
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_a_little_off_is_measured_and_its_times_are_kept() -> Result<()> {
    const SKEW_MS: i64 = 90_000;
    let venue = Venue::start("127.0.0.1:0").await?;
    venue.fault(json!({"fault": "clock_skew", "ms": SKEW_MS})).await?;
    let normalizer = Normalizer::start(venue.settings())?;
    let offset = "akis_venue_clock_offset_milliseconds{venue=\"binance\"}";
    let is_measured = async || (normalizer.signed_metric(offset) - SKEW_MS).abs() < 5_000;
    wait_until(WITHIN, "the offset is measured", is_measured).await?;
    for channel in [TRADES, "binance:BTCUSDT:ticker"] {
        normalizer.wait_for_more(channel, 5).await?;
        let events = normalizer.events(channel).await?;
        let (_, newest) = events.last().context("there are events")?;
        let ahead_ms = newest["ts"].as_i64().unwrap() - newest["data"]["receivedAt"].as_i64().unwrap();
        // Quotes of spot carry no time: theirs is that of receiving, by the venue's clock.
        assert!((ahead_ms - SKEW_MS).abs() < 5_000, "{channel}: {newest}");
    }
    assert_whole(&normalizer).await?;
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_cannot_be_right_is_measured_and_not_trusted() -> Result<()> {
    for skew_ms in [7_200_000, -1_790_000_000_000] {
        let venue = Venue::start("127.0.0.1:0").await?;
        venue.fault(json!({"fault": "clock_skew", "ms": skew_ms})).await?;
        let normalizer = Normalizer::start(venue.settings())?;
        normalizer.wait_for(TRADES, 5).await?;
        let events = normalizer.events(TRADES).await?;
        let is_ours =
            |event: &Value| event["data"]["tsSource"] == "received" && event["ts"] == event["data"]["receivedAt"];
        assert!(events.iter().all(|(_, event)| is_ours(event)), "{events:?}");
        normalizer.wait_for_metric("akis_normalizer_skipped_total{reason=\"bad_time\",venue=\"binance\"}").await?;
        let offset = "akis_venue_clock_offset_milliseconds{venue=\"binance\"}";
        let is_measured = async || (normalizer.signed_metric(offset) - skew_ms).abs() < 5_000;
        wait_until(WITHIN, "the offset is measured", is_measured).await?;
        // The venue sets its clock right while the session goes on.
        venue.fault(json!({"fault": "clock_skew", "ms": 0})).await?;
        let is_right = async || {
            let events = normalizer.events(TRADES).await.unwrap_or_default();
            events.last().is_some_and(|(_, event)| event["data"]["tsSource"] == "venue")
        };
        wait_until(WITHIN, "times are trusted again", is_right).await?;
        assert_whole(&normalizer).await?;
        normalizer.stop().await?;
        venue.stop().await?;
    }
    Ok(())
}

/// The newest statuses of a channel, in order.
async fn states(normalizer: &Normalizer, channel: &str) -> Result<Vec<Value>> {
    let events = normalizer.events(channel).await?;
    Ok(events.into_iter().filter_map(|(_, event)| event["data"].get("state").cloned()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_says_of_channels_is_put_right_by_whoever_takes_over() -> Result<()> {
    let (venue, normalizer) = flowing().await?;
    let (settings, store) = (venue.settings(), Arc::clone(&normalizer.store));
    assert!(states(&normalizer, TRADES).await?.is_empty(), "that all is well need not be told");
    let address = venue.stop().await?.to_string();
    for channel in [TRADES, BOOK] {
        normalizer.wait_for_state(channel, "down").await?;
    }
    normalizer.stop().await?;

    // The next one never hears that it goes down.
    let venue = Venue::start(&address).await?;
    let normalizer = Normalizer::on(store, "binance", settings)?;
    normalizer.judged.cancelled().await;
    for channel in [TRADES, BOOK, "binance:ETHUSDT:ticker"] {
        wait_until_told(&normalizer, channel, "up").await?;
        normalizer.wait_for_more(channel, 2).await?;
    }
    assert_eq!(states(&normalizer, TRADES).await?, ["down", "up"], "once");
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}
