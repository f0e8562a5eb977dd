//! What is listed and delisted while the normalizer runs. The list of symbols is read every second here, not every day.

use akis_model::Kind;

use super::*;

/// What a day is here.
const DAY: Duration = Duration::from_secs(1);

fn asking_for(venue: &Venue, symbols: &[&str]) -> Settings {
    let symbols = symbols.iter().copied().map(str::to_owned).collect();
    Settings { symbols, refresh_every: Some(DAY), ..venue.settings() }
}

/// The last word on a channel's state, and why.
async fn state(normalizer: &Normalizer, channel: &str) -> Option<(String, String)> {
    let events = normalizer.events(channel).await.ok()?;
    let (_, status) = events.iter().rev().find(|(_, event)| event["event"] == "channel_status")?;
    Some((status["data"]["state"].as_str()?.to_owned(), status["data"]["reason"].as_str()?.to_owned()))
}

/// Waits until every channel of the symbol says that the venue has delisted it.
async fn wait_until_delisted(normalizer: &Normalizer, symbol: &str) -> Result<()> {
    for facet in ["ticker", "trades", "book", "1m"] {
        let channel = format!("binance:{symbol}:{facet}");
        let is_told = async || {
            let told = state(normalizer, &channel).await;
            told.is_some_and(|(state, reason)| state == "down" && reason.contains("DELISTED"))
        };
        wait_until(WITHIN, &format!("{channel} is delisted"), is_told).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daily_look_finds_what_is_new_and_tells_what_is_gone() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let normalizer = Normalizer::start(asking_for(&venue, &["*usdt"]))?;
    for symbol in ["BTCUSDT", "ETHUSDT"] {
        normalizer.wait_for(&format!("binance:{symbol}:trades"), 10).await?;
        normalizer.wait_for(&format!("binance:{symbol}:book"), 1).await?;
    }
    venue.fault(json!({"fault": "new_symbols", "count": 2})).await?;
    for symbol in ["NEW2USDT", "NEW3USDT"] {
        for (facet, count) in [("ticker", 2), ("trades", 1), ("book", 2), ("1m", 1)] {
            normalizer.wait_for(&format!("binance:{symbol}:{facet}"), count).await?;
        }
        let kept = async || normalizer.candles(&format!("binance:{symbol}:1m")).await.map_or(0, |kept| kept.len());
        wait_until(WITHIN, "its chart has a past", async || kept().await > 100).await?;
    }
    venue.fault(json!({"fault": "delist", "symbol": "ETHUSDT"})).await?;
    wait_until_delisted(&normalizer, "ETHUSDT").await?;
    let events = normalizer.events("binance:ETHUSDT:trades").await?;
    normalizer.wait_for_more("binance:BTCUSDT:trades", 20).await?;
    assert_eq!(normalizer.events("binance:ETHUSDT:trades").await?, events, "nothing comes of what is gone");
    assert_eq!(state(&normalizer, "binance:BTCUSDT:trades").await, None, "nobody else is told anything");
    let events = normalizer.events("binance:BTCUSDT:trades").await?;
    assert_dense(&events);
    assert_no_trade_is_missing(&events);
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_symbol_asked_for_by_name_is_told_when_it_is_delisted() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let normalizer = Normalizer::start(asking_for(&venue, &["BTCUSDT", "ETHUSDT"]))?;
    normalizer.wait_for("binance:ETHUSDT:trades", 10).await?;
    venue.fault(json!({"fault": "delist", "symbol": "ETHUSDT"})).await?;
    wait_until_delisted(&normalizer, "ETHUSDT").await?;
    normalizer.wait_for_more("binance:BTCUSDT:trades", 20).await?;
    assert_eq!(state(&normalizer, "binance:BTCUSDT:trades").await, None);
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_new_symbols_are_spread_over_connections_and_cost_the_others_nothing() -> Result<()> {
    let venue = Venue::start_at_rate("127.0.0.1:0", 2_000).await?;
    // Three streams a symbol, of which a connection takes 1,024. (Books would come at the pace of the venue's weights, two a second.)
    let settings = Settings { kinds: vec![Kind::Ticker, Kind::Trades], ..asking_for(&venue, &["*usdt"]) };
    let normalizer = Normalizer::start(settings)?;
    normalizer.wait_for("binance:BTCUSDT:trades", 10).await?;
    venue.fault(json!({"fault": "new_symbols", "count": 1_000})).await?;
    // One in four is so quiet that nobody waits for its trades.
    wait_until(WITHIN * 4, "the others trade", async || normalizer.count_channels(":trades").await >= 752).await?;
    assert!(normalizer.metric("akis_venue_connections{venue=\"binance\"}") >= 3);
    normalizer.wait_for_more("binance:BTCUSDT:trades", 20).await?;
    let events = normalizer.events("binance:BTCUSDT:trades").await?;
    assert_dense(&events);
    assert_no_trade_is_missing(&events);
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}
