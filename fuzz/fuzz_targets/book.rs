//! What holds for every book that is published, whatever came in.

use akis_normalizer::{Payload, Update};

/// Takes the updates out, and looks at those that are books.
///
/// # Panics
///
/// When a side is out of order, a level has nothing on it, or the book is crossed.
pub fn check_books(updates: &mut Vec<Update>) {
    for update in updates.drain(..) {
        let Payload::Book(book) = &update.payload else { continue };
        assert!(book.bids.windows(2).all(|pair| pair[0].0 > pair[1].0), "{book:?}");
        assert!(book.asks.windows(2).all(|pair| pair[0].0 < pair[1].0), "{book:?}");
        let levels = || book.bids.iter().chain(&book.asks);
        assert!(levels().all(|level| !level.1.is_zero() && !level.1.is_negative()), "{book:?}");
        if let (Some(bid), Some(ask)) = (book.bids.first(), book.asks.first()) {
            assert!(bid.0 < ask.0, "{book:?}");
        }
    }
}
