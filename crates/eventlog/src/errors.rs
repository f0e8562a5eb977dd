//! Counts of what the log answered instead of doing what it was asked for.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::store::StoreError;

/// Failed calls by kind: the words of [`Unavailable::kind`](crate::Unavailable::kind), and `broken`.
///
/// Refusals that belong to the rules (a fence, a lease, a new identity) are not among them.
#[derive(Debug, Default)]
pub struct ErrorCounts(Mutex<BTreeMap<&'static str, u64>>);

impl ErrorCounts {
    pub(crate) fn count(&self, error: &StoreError) {
        let kind = match error {
            StoreError::Unavailable(unavailable) => unavailable.kind,
            StoreError::Broken(_) => "broken",
            StoreError::Changed
            | StoreError::Fenced
            | StoreError::TermTooLow
            | StoreError::Held { .. }
            | StoreError::HeardElsewhere => return,
        };
        *self.0.lock().entry(kind).or_default() += 1;
    }

    /// The counts since the start.
    pub fn by_kind(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().iter().map(|(kind, count)| (*kind, *count)).collect()
    }
}
