//! What the product does when the venue is silent, drips, or grows.

use super::*;

fn statuses(events: &[(akis_model::Seq, Value)]) -> usize {
    events.iter().filter(|(_, event)| event["event"] == "channel_status").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_of_a_pair_is_contained_to_its_channels_and_that_of_all_is_told() -> Result<()> {
    let venue = Venue::start().await?;
    let normalizer = Normalizer::of("btcturk", venue.settings())?;
    let (silent, other) = ("btcturk:BTCTRY:book", "btcturk:ETHTRY:book");
    for channel in [silent, other] {
        normalizer.wait_for(channel, 2).await?;
    }
    venue.fault(json!({"fault": "silence", "ms": 2_000, "symbol": "BTCTRY"})).await?;
    normalizer.wait_for_metric("akis_normalizer_book_resyncs_total{cause=\"gap\",venue=\"btcturk\"}").await?;
    normalizer.wait_for_more(silent, 3).await?;
    let events = normalizer.events(other).await?;
    assert_eq!(statuses(&events), 0, "the other pair goes on");
    assert_dense(&events);

    venue.fault(json!({"fault": "silence", "ms": 8_000})).await?;
    for channel in [silent, other, "btcturk:ETHTRY:trades", "btcturk:BTCTRY:1m"] {
        normalizer.wait_for_state(channel, "down").await?;
    }
    for channel in [silent, other] {
        normalizer.wait_for_state(channel, "up").await?;
        normalizer.wait_for_more(channel, 3).await?;
        assert_books(&normalizer.events(channel).await?);
    }
    normalizer.stop().await?;
    venue.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_drips_is_given_up_and_holds_up_nothing_else() -> Result<()> {
    let venue = Venue::start().await?;
    venue.fault(json!({"fault": "slow_loris", "times": 2})).await?;
    let normalizer = Normalizer::of("btcturk", venue.settings())?;
    for facet in ["trades", "book", "ticker"] {
        normalizer.wait_for(&format!("btcturk:BTCTRY:{facet}"), 3).await?;
    }
    // A minute that has closed meanwhile is kept as well.
    assert!(normalizer.candles("btcturk:BTCTRY:1m").await?.len() < 10, "REST still drips");
    let refused = "akis_venue_session_total{venue=\"btcturk\",what=\"requests_refused\"}";
    wait_until(WITHIN * 2, "the reply is given up", async || normalizer.metric(refused) > 0).await?;
    let kept = async || normalizer.candles("btcturk:BTCTRY:1m").await.map_or(0, |candles| candles.len());
    wait_until(WITHIN * 2, "the minutes of the past are kept", async || kept().await > 400).await?;
    normalizer.stop().await?;
    venue.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_new_pairs_are_found_beside_those_that_were_there() -> Result<()> {
    let venue = Venue::start().await?;
    venue.fault(json!({"fault": "new_symbols", "count": 1_000})).await?;
    let settings =
        Settings { symbols: vec!["*TRY".to_owned()], kinds: vec![akis_model::Kind::Book], ..venue.settings() };
    let normalizer = Normalizer::of("btcturk", settings)?;
    wait_until(WITHIN * 4, "every pair has its book", async || normalizer.count_channels(":book").await == 1_002)
        .await?;
    normalizer.wait_for_more("btcturk:BTCTRY:book", 3).await?;
    assert_dense(&normalizer.events("btcturk:BTCTRY:book").await?);
    normalizer.stop().await?;
    venue.stop().await
}
