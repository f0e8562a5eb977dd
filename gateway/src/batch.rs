//! What one reading of a partition brought, sorted by channel and framed once, for all shards.

use std::collections::HashMap;

use akis_eventlog::{Notice, Partition};

use crate::age::{Arrival, Mark};
use crate::run::{Run, RunBuilder};

/// The number of a channel that somebody wants. Dense; the generation tells apart the channels that had the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicId {
    /// The number.
    pub(crate) index: u32,
    /// How often it was given out before.
    pub(crate) generation: u32,
}

/// What there is to tell about a channel.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Consecutive events.
    Run(Run),
    /// Anything else.
    Notice(Notice),
}

/// Pieces in the order of each channel; different channels may have changed places.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Where it comes from.
    pub(crate) partition: Partition,
    /// What it holds.
    pub(crate) pieces: Vec<(TopicId, Piece)>,
    /// How many events and other notices that are.
    pub(crate) notices: usize,
    /// When it came; none when nothing of it has just come.
    pub(crate) arrival: Option<Arrival>,
    /// The events of it that are sampled. Hardly ever any.
    pub(crate) marks: Vec<(TopicId, Mark)>,
}

enum Open {
    Run(RunBuilder),
    Notice(Notice),
}

/// A batch that is being put together.
pub(crate) struct BatchBuilder {
    partition: Partition,
    pieces: Vec<(TopicId, Open)>,
    /// The last piece of each channel.
    last: HashMap<u32, usize, foldhash::fast::RandomState>,
    notices: usize,
    arrival: Option<Arrival>,
    marks: Vec<(TopicId, Mark)>,
}

impl BatchBuilder {
    /// An empty one.
    pub(crate) fn new(partition: Partition, arrival: Option<Arrival>) -> Self {
        Self { partition, pieces: Vec::new(), last: HashMap::default(), notices: 0, arrival, marks: Vec::new() }
    }

    /// Says that an event of the channel is sampled.
    pub(crate) fn mark(&mut self, topic: TopicId, mark: Mark) {
        self.marks.push((topic, mark));
    }

    /// Adds the next notice of a channel.
    pub(crate) fn push(&mut self, topic: TopicId, notice: &Notice) {
        self.notices += 1;
        let open = match notice {
            Notice::Event(event) => {
                let last = self.last.get(&topic.index).and_then(|last| self.pieces.get_mut(*last));
                if let Some((_, Open::Run(run))) = last
                    && run.push(event)
                {
                    return;
                }
                Open::Run(RunBuilder::new(event))
            }
            other => Open::Notice(other.clone()),
        };
        self.last.insert(topic.index, self.pieces.len());
        self.pieces.push((topic, open));
    }

    /// Frames the runs.
    pub(crate) fn finish(self) -> Batch {
        let framed = self.pieces.into_iter().map(|(topic, open)| match open {
            Open::Run(run) => (topic, Piece::Run(run.finish())),
            Open::Notice(notice) => (topic, Piece::Notice(notice)),
        });
        let pieces = framed.collect();
        let Self { partition, notices, arrival, marks, .. } = self;
        Batch { partition, pieces, notices, arrival, marks }
    }
}
