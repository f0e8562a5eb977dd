//! BtcTurk's pairs in the common form.

/// Assets that others are priced in, for pairs that `exchangeinfo` has not told of.
const QUOTES: [&str; 4] = ["TRY", "USDT", "BTC", "USDC"];

/// The common form, `BTC/TRY`, by the asset that the pair ends with; the pair itself when none is known.
pub(super) fn guess_common(pair: &str) -> String {
    let found =
        QUOTES.iter().find_map(|quote| Some((pair.strip_suffix(quote).filter(|base| !base.is_empty())?, quote)));
    found.map_or_else(|| pair.to_owned(), |(base, quote)| format!("{base}/{quote}"))
}

/// The value of a parameter in the target of a REST call: `/v1/klines/history?symbol=BTCTRY&resolution=1`. What is asked
/// for needs no percent-encoding, so none is taken back.
pub(super) fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(found, _)| *found == name)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_in_the_common_form() {
        for (pair, common) in
            [("BTCTRY", "BTC/TRY"), ("ETHUSDT", "ETH/USDT"), ("USDTTRY", "USDT/TRY"), ("TRY", "TRY"), ("X", "X")]
        {
            assert_eq!(guess_common(pair), common);
        }
    }

    #[test]
    fn parameters_of_a_target() {
        let target = "/v1/klines/history?symbol=BTCTRY&resolution=1";
        assert_eq!(parameter(target, "symbol"), Some("BTCTRY"));
        assert_eq!(parameter(target, "resolution"), Some("1"));
        assert_eq!((parameter(target, "from"), parameter("/x", "from")), (None, None));
    }
}
