//! What symbols Binance has, by `exchangeInfo` and `ticker/24hr`.

use std::collections::HashMap;

use serde::Deserialize;

use crate::symbols::Listed;

/// The ends of the targets of the two replies.
pub(super) const ROUTES: [&str; 2] = ["/exchangeInfo", "/ticker/24hr"];

/// Volumes are compared in these only, for volumes in different assets cannot be.
const DOLLARS: [&str; 3] = ["USDT", "USDC", "FDUSD"];

/// The reply to `exchangeInfo`, as far as it matters here.
#[derive(Deserialize)]
struct Info {
    symbols: Vec<Symbol>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Symbol {
    symbol: String,
    status: String,
    quote_asset: String,
}

/// A row of the reply to `ticker/24hr`, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Day {
    symbol: String,
    quote_volume: String,
}

/// Reads the two replies.
///
/// # Errors
///
/// When one of them has another shape.
pub(super) fn read(info: &str, days: &str) -> Result<Vec<Listed>, serde_json::Error> {
    let (info, days): (Info, Vec<Day>) = (serde_json::from_str(info)?, serde_json::from_str(days)?);
    let volumes: HashMap<String, String> = days.into_iter().map(|day| (day.symbol, day.quote_volume)).collect();
    let listed = |Symbol { symbol, status, quote_asset }| {
        let volume = volumes.get(&symbol).filter(|_| DOLLARS.contains(&&*quote_asset));
        Listed { is_traded: status == "TRADING", volume: volume.and_then(|volume| volume.parse().ok()), symbol }
    };
    Ok(info.symbols.into_iter().map(listed).collect())
}

/// Reads a line as the two replies, with a tab between them, and selects by what they tell; and as the reply to `time`.
///
/// # Panics
///
/// When a symbol is found twice.
#[cfg(any(fuzzing, test))]
pub(super) fn fuzz_replies(line: &str) {
    crate::clock::Clock::default().take(line, 0, 1);
    let (info, days) = line.split_once('\t').unwrap_or((line, "[]"));
    let Ok(listing) = read(info, days) else { return };
    let wanted = crate::symbols::Symbols::new(["BTCUSDT", "*TRY", "B*C*", "*", "top:3"], None);
    let found = wanted.select(&["ETHTRY".to_owned()], &listing);
    assert_eq!(found.iter().collect::<std::collections::BTreeSet<_>>().len(), found.len(), "{found:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_in_dollars_are_compared() {
        let info = r#"{"symbols":[
            {"symbol":"BTCUSDT","status":"TRADING","quoteAsset":"USDT"},
            {"symbol":"OLDUSDT","status":"BREAK","quoteAsset":"USDT"},
            {"symbol":"BTCTRY","status":"TRADING","quoteAsset":"TRY"},
            {"symbol":"ODDUSDC","status":"TRADING","quoteAsset":"USDC"}]}"#;
        let days = r#"[{"symbol":"BTCUSDT","quoteVolume":"900.50"},{"symbol":"BTCTRY","quoteVolume":"99999"},
            {"symbol":"ODDUSDC","quoteVolume":"nonsense"},{"symbol":"GONEUSDT","quoteVolume":"1"}]"#;
        let listed = |symbol: &str, is_traded, volume: Option<&str>| Listed {
            symbol: symbol.into(),
            is_traded,
            volume: volume.map(|volume| volume.parse().unwrap()),
        };
        assert_eq!(
            read(info, days).unwrap(),
            [
                listed("BTCUSDT", true, Some("900.5")),
                listed("OLDUSDT", false, None),
                listed("BTCTRY", true, None),
                listed("ODDUSDC", true, None),
            ]
        );
        assert!(read(days, info).is_err());
    }
}
