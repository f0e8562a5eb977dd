//! Borsa Istanbul: the BISTECH ITCH feed.
//!
//! # What a session hands on
//!
//! A session carries one channel of the feed: one series of sequence numbers. Its [`crate::Content::Binary`] frames are of
//! two kinds, told apart by their connection's first byte:
//!
//! - **Live messages** are exactly a MoldUDP64 downstream packet, header included, whatever transport they came by: session
//!   (10), sequence number of the first message (8), count (2), then each message behind its length (2). They are in order,
//!   after both lines were compared and what was missing was asked for again. A packet that begins above the number
//!   expected says that the messages between are lost for good; a repeated number is passed over. Heartbeats (count 0, the
//!   number is the next one expected) and the end of the session (count 65,535) are handed on too: the first tell that
//!   the feed lives and that its last messages have come. Another session name is another day, or a restart: everything
//!   begins anew.
//! - **A GLIMPSE snapshot** is the bytes of its SoupBinTCP connection as they were read, from the login accepted on, cut
//!   anywhere. Each snapshot has a connection number of its own and ends with [`crate::Content::Closed`]; without `G` before
//!   that it died and is of no use. A session asks for one whenever messages were lost for good, and at its start when
//!   it came late. The live messages go on meanwhile; the reader keeps those at and above the number in `G`.
//!   [`crate::Request::Book`] of any symbol asks for a snapshot of all.
//!
//! The first byte of a SoupBinTCP packet is 0, because none has 256 bytes; that of a MoldUDP64 packet is a letter or a digit
//! of the session's name.
//!
//! A recording of a session is therefore one of the transport `moldudp64`, and needs no note for its snapshots.

mod arbiter;
mod config;
#[cfg(test)]
mod fixtures;
mod glimpse;
mod half_days;
pub mod itch;
mod lines;
mod link;
pub mod mold;
mod probe;
mod recorded;
mod session;
pub mod sim;
pub mod soup;
mod stream;

pub use config::{Config, Lines, Transport, check, missing};
pub use half_days::{HalfDays, half_days};
pub use probe::probe;
pub use recorded::Recorded;
pub use session::run;

/// Reads pieces as what comes over one SoupBinTCP connection, and each of them as a datagram, a request and a login.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz_pieces(pieces: &[&[u8]]) {
    soup::fuzz_client(pieces);
    arbiter::fuzz_lines(pieces);
    for piece in pieces {
        if let Ok(request) = mold::Request::parse(piece) {
            assert_eq!(request.encode().as_slice(), *piece);
        }
        let _ = soup::LoginRequest::parse(piece);
    }
}
