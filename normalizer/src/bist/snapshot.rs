//! GLIMPSE: the bytes of its connections in, whole snapshots out.
//!
//! Source: Borsa Istanbul, "BISTECH GLIMPSE" 2.7; SoupBinTCP 3.00 for what carries it.

use std::collections::BTreeMap;

use akis_connectors::bist::itch::Message;
use akis_connectors::bist::soup::{FromServer, Splitter};

use super::pile::Pile;
use crate::mapper::Reason;

/// How much of a snapshot is kept: five million orders.
const MAX_BYTES: usize = 256 << 20;

/// How many snapshots are read at once. A session takes one at a time; the rest is for one that has just died.
const MAX_CONNECTIONS: usize = 2;

/// A whole snapshot.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The number of the first live message that it does not hold.
    pub(super) next: u64,
    /// All but `G`.
    pub(super) messages: Pile,
    /// When `G` was read.
    pub(super) received_at: i64,
}

/// The snapshots that are being read, by their connections.
#[derive(Debug, Default)]
pub(super) struct Snapshots(BTreeMap<u32, Reading>);

#[derive(Debug)]
struct Reading {
    splitter: Splitter,
    messages: Pile,
    /// It is of a session that is over: what still comes of it is not read.
    is_over: bool,
}

impl Snapshots {
    /// Whether the connection carries one.
    pub(super) fn has(&self, connection: u32) -> bool {
        self.0.contains_key(&connection)
    }

    /// Takes what was read; the snapshot, when that has ended it.
    ///
    /// # Errors
    ///
    /// Why the snapshot is of no use. Nothing more is taken from its connection.
    pub(super) fn on_bytes(
        &mut self,
        connection: u32,
        bytes: &[u8],
        received_at: i64,
    ) -> Result<Option<Snapshot>, Reason> {
        if !self.has(connection) && self.0.len() == MAX_CONNECTIONS {
            self.0.pop_first();
        }
        let reading = self.0.entry(connection).or_insert_with(|| Reading {
            splitter: Splitter::default(),
            messages: Pile::new(MAX_BYTES),
            is_over: false,
        });
        if reading.is_over {
            return Ok(None);
        }
        let read = reading.read(bytes);
        match read {
            Ok(None) => Ok(None),
            Ok(Some(next)) => {
                // What may still come is the end of the session, and begins another reading that never gets anywhere.
                let whole = self.0.remove(&connection);
                Ok(whole.map(|reading| Snapshot { next, messages: reading.messages, received_at }))
            }
            Err(reason) => {
                reading.messages = Pile::new(0);
                Err(reason)
            }
        }
    }

    /// Another session has begun, whose numbers are others: none that is being read fits it.
    pub(super) fn on_session(&mut self) {
        for reading in self.0.values_mut() {
            (reading.messages, reading.is_over) = (Pile::new(0), true);
        }
    }

    /// The connection ended.
    pub(super) fn on_closed(&mut self, connection: u32) {
        self.0.remove(&connection);
    }
}

impl Reading {
    /// The number in `G`, when it has come.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<u64>, Reason> {
        self.splitter.push(bytes);
        while let Some((kind, payload)) = self.splitter.next_packet().map_err(|_| Reason::BadShape)? {
            match FromServer::parse(kind, payload).map_err(|_| Reason::BadShape)? {
                FromServer::Sequenced(message) if message.first() == Some(&b'G') => {
                    return match Message::decode(message) {
                        Ok(Message::EndOfSnapshot(end)) => Ok(Some(end.next_sequence)),
                        _ => Err(Reason::BadShape),
                    };
                }
                FromServer::Sequenced(message) if !self.messages.push(message) => return Err(Reason::OutOfRange),
                FromServer::Refused(_) => return Err(Reason::Refused),
                FromServer::Sequenced(_)
                | FromServer::Debug
                | FromServer::Accepted { .. }
                | FromServer::Unsequenced
                | FromServer::Heartbeat
                | FromServer::End
                | FromServer::Unknown(_) => {}
            }
        }
        Ok(None)
    }
}
