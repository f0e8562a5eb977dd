//! What symbols there are, for those who ask for them by pattern or volume.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use super::{Listed, SEARCH_EVERY, Symbols};
use crate::frame::Content;

/// Makes a listing of the venue's list of symbols and of their last 24 hours.
type Read = fn(&str, &str) -> Result<Vec<Listed>, serde_json::Error>;

/// Puts listings together from the replies that it takes.
#[derive(Debug)]
pub(crate) struct Lookup {
    routes: [&'static str; 2],
    read: Read,
    symbols: Symbols,
    found: mpsc::Sender<Vec<Listed>>,
    /// The last reply of each route, until the other one has come: either may fail and come later.
    replies: [Option<String>; 2],
}

impl Lookup {
    /// `routes` are the ends of the targets of list and last 24 hours; `found` is told what they say of `symbols` and others.
    pub(crate) fn new(
        routes: [&'static str; 2],
        read: Read,
        symbols: Symbols,
        found: mpsc::Sender<Vec<Listed>>,
    ) -> Self {
        Self { routes, read, symbols, found, replies: [None, None] }
    }

    /// Both replies are asked for anew: one that waits for the other is too old by then.
    pub(crate) fn begin(&mut self) {
        self.replies = [None, None];
    }

    /// Takes a reply, in case it is one of the two. Returns whether symbols have been found with it.
    pub(crate) fn take(&mut self, reply: &Content) -> bool {
        let Content::Reply { target, status: 200, body } = reply else { return false };
        let Some(at) = self.routes.iter().position(|route| target.ends_with(route)) else { return false };
        self.replies[at] = Some(body.clone());
        let [Some(info), Some(days)] = &self.replies else { return false };
        let listing = (self.read)(info, days);
        self.begin();
        match listing {
            // A venue that is being repaired may list nothing; its symbols are still there.
            Ok(listing) if listing.is_empty() => {
                warn!(target, "the venue lists no symbol");
                false
            }
            Ok(listing) => {
                let is_found = self.symbols.are_found_in(&listing);
                if !is_found {
                    warn!(target, symbols = listing.len(), "nothing that is listed and traded is asked for");
                }
                // Full: the listing before it has not been looked at yet, and the next one comes.
                self.found.try_send(listing).is_ok() && is_found
            }
            Err(error) => {
                warn!(target, %error, "what symbols there are cannot be read");
                false
            }
        }
    }
}

/// When it is looked up next what symbols there are.
#[derive(Debug)]
pub(crate) struct Refresh {
    every: Duration,
    at: Instant,
    /// `None`: symbols are asked for by their names, and what is said of those is for others to read.
    lookup: Option<Lookup>,
}

impl Refresh {
    /// It is due now, and then every `every`.
    pub(crate) fn new(every: Duration, lookup: Option<Lookup>) -> Self {
        Self { every, at: Instant::now(), lookup }
    }

    /// When it is due.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// Whether it is due; then it begins, and the next one is due later.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        let every = match &mut self.lookup {
            Some(lookup) => {
                lookup.begin();
                // Until it finds something.
                self.every.min(SEARCH_EVERY)
            }
            None => self.every,
        };
        self.at = now + every;
        true
    }

    /// Takes note of a reply, in case it says what symbols there are.
    pub(crate) fn take(&mut self, reply: &Content) {
        if self.lookup.as_mut().is_some_and(|lookup| lookup.take(reply)) {
            self.at = Instant::now() + self.every;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(info: &str, days: &str) -> Result<Vec<Listed>, serde_json::Error> {
        let names: Vec<String> = serde_json::from_str(info)?;
        let is_traded = serde_json::from_str::<bool>(days)?;
        Ok(names.into_iter().map(|symbol| Listed { symbol, is_traded, volume: None }).collect())
    }

    #[tokio::test]
    async fn a_listing_is_put_together_from_two_replies_whichever_comes_last() {
        let (sender, mut found) = mpsc::channel(1);
        let mut lookup = Lookup::new(["/info", "/days"], read, Symbols::new(["*"], None), sender);
        let mut take = |target: &str, status, body: &str| {
            lookup.take(&Content::Reply { target: target.into(), status, body: body.into() })
        };
        assert!(!take("/v1/info", 500, r#"["X"]"#));
        assert!(!take("/v1/days", 200, "nonsense"));
        assert!(!take("/v1/info", 200, "[]"), "what cannot be read is forgotten");
        assert!(!take("/v1/days", 200, "true"), "nothing is listed");
        assert!(!take("/v1/days", 200, "false"));
        assert!(!take("/v1/days", 200, "true"));
        assert!(!take("/v1/time", 200, "{}"));
        assert!(take("/v1/info", 200, r#"["B"]"#));
        assert_eq!(found.try_recv().unwrap(), [Listed { symbol: "B".into(), is_traded: true, volume: None }]);
        assert!(!take("/v1/days", 200, "false"), "each reply counts once");
        assert!(!take("/v1/info", 200, r#"["B"]"#), "it is not traded");
        assert_eq!(found.try_recv().unwrap(), [Listed { symbol: "B".into(), is_traded: false, volume: None }]);
        assert!(!take("/v1/info", 200, r#"["C"]"#));
        assert!(take("/v1/days", 200, "true"));
        assert!(!take("/v1/info", 200, r#"["D"]"#));
        assert!(!take("/v1/days", 200, "true"), "the one before has not been looked at");
        assert_eq!(found.try_recv().unwrap()[0].symbol, "C");
        assert!(!take("/v1/info", 200, r#"["E"]"#));
        lookup.begin();
        assert!(!lookup.take(&Content::Reply { target: "/v1/days".into(), status: 200, body: "true".into() }));
    }
}
