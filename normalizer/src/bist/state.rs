//! The names of states, which are an open set: what is known of them, and what follows from it.

use akis_model::MarketState;

/// What a state is, by the venue's name for it; `None` when it is not known. The matching at the end of an auction has one
/// name for all auctions, so it belongs to the auction that was on, where that was heard.
///
/// Source: names found in recorded data by third parties (beratbrok/Itch and others); the exchange publishes no list.
/// What the last lines map by a part of the name was never seen.
pub(super) fn meaning(name: &str, before: Option<MarketState>) -> Option<MarketState> {
    Some(match name {
        "P_ACS_EMR_TP_PY_EIY" => MarketState::OpeningAuction,
        "P_ESLESTIRME" => match before {
            Some(auction @ (MarketState::OpeningAuction | MarketState::ClosingAuction | MarketState::SinglePrice)) => {
                auction
            }
            _ => return None,
        },
        "P_SUREKLI_ISLEM" => MarketState::Continuous,
        "P_MARJ_YAYIN" | "P_MARJ_YAYIN_KAPANIS" | "P_ARA" => MarketState::Break,
        "P_KAPANIS_EMIR_TPL" => MarketState::ClosingAuction,
        "P_KAPANIS_FIY_ISLEM" => MarketState::AtClose,
        "P_DK_TEKFIY_EMIR_TPL" => MarketState::SinglePrice,
        "P_GUNSONU" | "P_GUNSONU_ISLEMLERI" => MarketState::Closed,
        _ if name.contains("DURDUR") => MarketState::Halted,
        _ if name.contains("TEKFIY") => MarketState::SinglePrice,
        _ if name.contains("GUNSONU") => MarketState::Closed,
        _ => return None,
    })
}

/// Whether orders are collected, so that the book may be crossed and an equilibrium price is told. In a state that is not
/// known they may be.
pub(super) fn is_auction(state: Option<MarketState>) -> bool {
    match state {
        None
        | Some(
            MarketState::PreOpen
            | MarketState::OpeningAuction
            | MarketState::ClosingAuction
            | MarketState::SinglePrice
            | MarketState::Halted,
        ) => true,
        Some(MarketState::Continuous | MarketState::Break | MarketState::AtClose | MarketState::Closed) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching_belongs_to_the_auction_that_was_on() {
        for auction in [MarketState::OpeningAuction, MarketState::ClosingAuction, MarketState::SinglePrice] {
            assert_eq!(meaning("P_ESLESTIRME", Some(auction)), Some(auction));
        }
        for before in [None, Some(MarketState::Continuous)] {
            assert_eq!(meaning("P_ESLESTIRME", before), None, "nobody heard which one");
        }
    }

    #[test]
    fn unknown_names_have_no_meaning() {
        for name in ["", "NONE", "P_YENI"] {
            assert_eq!(meaning(name, Some(MarketState::Continuous)), None, "{name}");
        }
    }
}
