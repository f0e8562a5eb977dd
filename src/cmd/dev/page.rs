//! The page at `/`: one file, into which a run puts its token, its venues and their symbols.

use serde::Serialize;

use super::source::Sourced;

/// No build step stands between this file and the browser.
const PAGE: &str = include_str!("../../page/index.html");

/// Where the page expects what a run knows.
const PLACE: &str = "__AKIS_DEV__";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dev<'a> {
    token: &'a str,
    venues: Vec<Venue<'a>>,
    symbols: Vec<Symbol<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Venue<'a> {
    name: &'a str,
    stand_in: bool,
    note: &'a str,
}

#[derive(Serialize)]
struct Symbol<'a> {
    venue: &'a str,
    symbol: &'a str,
}

/// The page of this run.
pub(super) fn render(token: &str, venues: &[Sourced]) -> String {
    let symbols = |venue: &'_ Sourced| {
        let name = venue.venue.name;
        venue.settings.symbols.iter().map(move |symbol| (name, symbol.clone())).collect::<Vec<_>>()
    };
    let symbols: Vec<(&str, String)> = venues.iter().flat_map(symbols).collect();
    let dev = Dev {
        token,
        venues: venues
            .iter()
            .map(|venue| Venue { name: venue.venue.name, stand_in: venue.stand_in, note: &venue.note })
            .collect(),
        symbols: symbols.iter().map(|(venue, symbol)| Symbol { venue, symbol }).collect(),
    };
    // Inside a script element nothing is special but the end of it, and comments; both begin with "<".
    let json = serde_json::to_string(&dev).unwrap_or_default().replace('<', "\\u003c");
    PAGE.replace(PLACE, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_cannot_end_the_script() {
        let venue = akis_connectors::venue("binance").unwrap();
        let settings = akis_connectors::Settings { symbols: vec!["BTCUSDT".to_owned()], ..Default::default() };
        let note = "</script><script>alert(1)".to_owned();
        let page = render("a.b.c", &[Sourced { venue, settings, stand_in: true, note }]);
        assert!(!page.contains("<script>alert") && !page.contains(PLACE));
        assert!(page.contains(r#""token":"a.b.c""#) && page.contains(r#""standIn":true"#));
        assert!(page.contains(r#"{"venue":"binance","symbol":"BTCUSDT"}"#));
    }
}
