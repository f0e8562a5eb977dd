//! Sessions with venues: sockets, subscriptions, heartbeats, limits. Knows no events and no log.
//!
//! A session yields [`RawFrame`]s and takes requests for books; what the frames mean is the normalizer's.

mod frame;
pub mod recording;

pub use frame::{Content, RawFrame};
