//! What symbols there are, for those who ask for them by pattern or volume.

use tokio::sync::mpsc;
use tracing::warn;

use super::Listed;
use crate::frame::Content;

/// Makes a listing of the venue's list of symbols and of their last 24 hours.
type Read = fn(&str, &str) -> Result<Vec<Listed>, serde_json::Error>;

/// Puts listings together from the replies that it takes.
#[derive(Debug)]
pub(crate) struct Lookup {
    routes: [&'static str; 2],
    read: Read,
    found: mpsc::Sender<Vec<Listed>>,
    /// The list of symbols, which waits for their last 24 hours: they come right behind it.
    info: Option<String>,
}

impl Lookup {
    /// `routes` are the ends of the targets of list and last 24 hours; `found` is told what they say.
    pub(crate) fn new(routes: [&'static str; 2], read: Read, found: mpsc::Sender<Vec<Listed>>) -> Self {
        Self { routes, read, found, info: None }
    }

    /// Takes a reply, in case it is one of the two.
    pub(crate) fn take(&mut self, reply: &Content) {
        let Content::Reply { target, status: 200, body } = reply else { return };
        let [info, days] = self.routes;
        if target.ends_with(info) {
            self.info = Some(body.clone());
        } else if target.ends_with(days)
            && let Some(info) = self.info.take()
        {
            match (self.read)(&info, body) {
                // A venue that is being repaired may list nothing; its symbols are still there.
                Ok(listing) if listing.is_empty() => warn!(target, "the venue lists no symbol"),
                // Full: the listing before it has not been looked at yet, and the next one comes.
                Ok(listing) => drop(self.found.try_send(listing)),
                Err(error) => warn!(target, %error, "what symbols there are cannot be read"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listing_is_put_together_from_two_replies() {
        let (sender, mut found) = mpsc::channel(1);
        let read: Read = |info, days| {
            let names: Vec<String> = serde_json::from_str(info)?;
            let is_traded = serde_json::from_str::<bool>(days)?;
            Ok(names.into_iter().map(|symbol| Listed { symbol, is_traded, volume: None }).collect())
        };
        let mut lookup = Lookup::new(["/info", "/days"], read, sender);
        let mut take = |target: &str, status, body: &str| {
            lookup.take(&Content::Reply { target: target.into(), status, body: body.into() });
        };
        take("/v1/days", 200, "true");
        take("/v1/info", 500, r#"["X"]"#);
        take("/v1/info", 200, r#"["A"]"#);
        take("/v1/time", 200, "{}");
        take("/v1/days", 200, "nonsense");
        take("/v1/info", 200, "[]");
        take("/v1/days", 200, "true");
        take("/v1/info", 200, r#"["B"]"#);
        take("/v1/days", 200, "true");
        let listed = found.try_recv().unwrap();
        assert_eq!(listed, [Listed { symbol: "B".into(), is_traded: true, volume: None }]);
        assert!(found.try_recv().is_err());
    }
}
