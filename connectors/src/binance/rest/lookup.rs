//! What symbols there are, for those who ask for them by pattern or volume.

use tokio::sync::mpsc;
use tracing::warn;

use super::super::symbols::{Day, Info};
use crate::frame::Content;

/// What there is now.
#[derive(Debug)]
pub(in super::super) struct Listing {
    /// Every symbol.
    pub(in super::super) info: Info,
    /// Their last 24 hours.
    pub(in super::super) days: Vec<Day>,
}

/// Puts a listing together from the replies that it takes.
#[derive(Debug)]
pub(in super::super) struct Lookup {
    pub(super) found: mpsc::Sender<Listing>,
    /// Waits for the other reply, which comes right behind it.
    pub(super) info: Option<Info>,
}

impl Lookup {
    /// Takes a reply, in case it is one of the two.
    pub(super) fn take(&mut self, reply: &Content) {
        let Content::Reply { target, status: 200, body } = reply else { return };
        if target.ends_with("/exchangeInfo") {
            match serde_json::from_str(body) {
                Ok(info) => self.info = Some(info),
                Err(error) => warn!(%error, "exchangeInfo cannot be read"),
            }
        } else if target.ends_with("/ticker/24hr") {
            match (self.info.take(), serde_json::from_str(body)) {
                // Full: the listing before it has not been looked at yet, and the next one comes.
                (Some(info), Ok(days)) => drop(self.found.try_send(Listing { info, days })),
                (None, _) => {}
                (_, Err(error)) => warn!(%error, "ticker/24hr cannot be read"),
            }
        }
    }
}
