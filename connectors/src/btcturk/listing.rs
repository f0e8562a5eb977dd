//! What pairs BtcTurk has, by `exchangeinfo` and `ticker`.

use std::collections::HashMap;

use akis_model::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::symbols::Listed;

/// Path and query of the two calls.
pub(super) const ROUTES: [&str; 2] = ["/api/v2/server/exchangeinfo", "/api/v2/ticker"];

/// Volumes are compared in Turkish lira only, for volumes in different assets cannot be.
const LIRA: &str = "TRY";

/// What both replies are wrapped in.
#[derive(Deserialize)]
struct Reply<T> {
    data: T,
}

#[derive(Deserialize)]
struct Info {
    symbols: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    status: String,
    denominator: String,
}

/// A row of the reply to `ticker`, as far as it matters here. Its numbers are JSON numbers, read as the text that they are.
#[derive(Deserialize)]
struct Day<'a> {
    pair: String,
    /// In the asset that is traded.
    #[serde(borrow)]
    volume: &'a RawValue,
    #[serde(borrow)]
    last: &'a RawValue,
}

/// Reads the two replies.
///
/// # Errors
///
/// When one of them has another shape.
pub(super) fn read(info: &str, days: &str) -> Result<Vec<Listed>, serde_json::Error> {
    let info: Reply<Info> = serde_json::from_str(info)?;
    let days: Reply<Vec<Day<'_>>> = serde_json::from_str(days)?;
    let days: HashMap<&str, &Day<'_>> = days.data.iter().map(|day| (day.pair.as_str(), day)).collect();
    let listed = |pair: Pair| {
        let day = days.get(pair.name.as_str()).filter(|_| pair.denominator == LIRA);
        Listed { is_traded: pair.status == "TRADING", volume: day.and_then(|day| turnover(day)), symbol: pair.name }
    };
    Ok(info.data.symbols.into_iter().map(listed).collect())
}

/// What was traded, at the last price.
fn turnover(day: &Day<'_>) -> Option<Decimal> {
    let (volume, last): (Decimal, Decimal) = (day.volume.get().parse().ok()?, day.last.get().parse().ok()?);
    volume.checked_mul(last).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turnovers_in_lira_are_compared() {
        let info = r#"{"data":{"symbols":[
            {"name":"BTCTRY","status":"TRADING","denominator":"TRY"},
            {"name":"BTCUSDT","status":"TRADING","denominator":"USDT"},
            {"name":"OLDTRY","status":"CANCEL_ONLY","denominator":"TRY"}]},"success":true}"#;
        let days =
            r#"{"data":[{"pair":"BTCTRY","volume":1.5,"last":4105000},{"pair":"BTCUSDT","volume":170.0,"last":9}]}"#;
        let listed = |symbol: &str, is_traded, volume: Option<&str>| Listed {
            symbol: symbol.into(),
            is_traded,
            volume: volume.map(|volume| volume.parse().unwrap()),
        };
        assert_eq!(
            read(info, days).unwrap(),
            [listed("BTCTRY", true, Some("6157500")), listed("BTCUSDT", true, None), listed("OLDTRY", false, None)]
        );
        assert!(read(days, info).is_err());
    }
}
