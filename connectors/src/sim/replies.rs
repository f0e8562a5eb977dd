//! The REST replies of a recording that is being played, and who waits for one.

use std::collections::HashMap;
use std::hash::Hash;

/// How many requests may wait for a reply that the recording has further on.
const MOST_WAITING: usize = 256;

/// A reply as it was recorded: its status and its body.
pub(crate) type Recorded = (u16, String);

/// The latest reply to each subject `S`, and those (`A`) who asked before the recording came to theirs.
#[derive(Debug)]
pub(crate) struct Replies<S, A> {
    latest: HashMap<S, Recorded>,
    waiting: Vec<(S, A)>,
}

impl<S, A> Default for Replies<S, A> {
    fn default() -> Self {
        Self { latest: HashMap::new(), waiting: Vec::new() }
    }
}

impl<S: Eq + Hash, A> Replies<S, A> {
    /// What the recording has said last about a subject.
    pub(crate) fn latest(&self, subject: &S) -> Option<&Recorded> {
        self.latest.get(subject)
    }

    /// Lets somebody wait for the next reply about a subject, in place of those who are gone.
    ///
    /// # Errors
    ///
    /// Who asked, when too many wait already.
    pub(crate) fn wait(&mut self, subject: S, asker: A, is_gone: impl Fn(&A) -> bool) -> Result<(), A> {
        self.waiting.retain(|(_, asker)| !is_gone(asker));
        if self.waiting.len() >= MOST_WAITING {
            return Err(asker);
        }
        self.waiting.push((subject, asker));
        Ok(())
    }

    /// Takes a reply whose moment has come, and gives back who has waited for it.
    pub(crate) fn take(&mut self, subject: S, recorded: Recorded) -> Vec<A> {
        let asked = self.waiting.extract_if(.., |(wanted, _)| *wanted == subject).map(|(_, asker)| asker).collect();
        self.latest.insert(subject, recorded);
        asked
    }

    /// Gives back all who wait, for nothing more will come.
    pub(crate) fn give_up(&mut self) -> impl Iterator<Item = A> {
        self.waiting.drain(..).map(|(_, asker)| asker)
    }
}
