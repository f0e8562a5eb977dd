//! Reading replies as frames, without a tree of values in between.

use akis_model::Seq;
use bytes::Bytes;
use fred::types::Resp3Frame as Frame;

use super::error::broken;
use crate::store::{Entry, FeedId, StoreError};

/// The elements of an array.
pub(super) fn array(frame: &Frame) -> Result<&[Frame], StoreError> {
    match frame {
        Frame::Array { data, .. } => Ok(data),
        _ => Err(broken("a reply is no array")),
    }
}

/// The elements of an array that is known to have so many of them.
pub(super) fn tuple<const N: usize>(frame: &Frame) -> Result<&[Frame; N], StoreError> {
    array(frame)?.try_into().map_err(|_| broken("an array has another length than it should"))
}

/// A string, as bytes.
pub(super) fn bytes(frame: &Frame) -> Option<&Bytes> {
    match frame {
        Frame::BlobString { data, .. } | Frame::SimpleString { data, .. } => Some(data),
        _ => None,
    }
}

/// A string of text.
pub(super) fn text(frame: &Frame) -> Result<&str, StoreError> {
    bytes(frame).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(|| broken("a reply is no text"))
}

/// A number that is not negative, as an integer or as digits.
pub(super) fn number(frame: &Frame) -> Result<u64, StoreError> {
    let number = match frame {
        Frame::Number { data, .. } => u64::try_from(*data).ok(),
        other => bytes(other).and_then(|digits| digits_of(digits)),
    };
    number.ok_or_else(|| broken("a reply is no number"))
}

/// A position.
pub(super) fn seq(frame: &Frame) -> Result<Seq, StoreError> {
    Seq::new(number(frame)?).map_err(|_| broken("a position is too large"))
}

/// What `read` makes of the frame, or nothing for null.
pub(super) fn optional<T>(
    frame: &Frame,
    read: impl FnOnce(&Frame) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    if matches!(frame, Frame::Null) { Ok(None) } else { read(frame).map(Some) }
}

/// The id of a stream entry.
pub(super) fn feed_id(frame: &Frame) -> Result<FeedId, StoreError> {
    let id = text(frame)?.split_once('-');
    let id = id.and_then(|(ms, n)| Some(FeedId { ms: ms.parse().ok()?, n: n.parse().ok()? }));
    id.ok_or_else(|| broken("a stream id is malformed"))
}

/// An entry of a history: `[id, [field, value, …]]`.
pub(super) fn entry(frame: &Frame) -> Result<Entry, StoreError> {
    let [id, fields] = tuple(frame)?;
    let seq = position(id)?;
    let (mut previous, mut body) = (None, Bytes::new());
    for (name, value) in pairs(fields)? {
        match name.as_ref() {
            b"d" => body = copy(value),
            b"p" => previous = digits_of(value).and_then(|p| Seq::new(p).ok()),
            _ => {}
        }
    }
    Ok(Entry { seq, previous, body })
}

/// The position that is the first half of a history id.
pub(super) fn position(frame: &Frame) -> Result<Seq, StoreError> {
    Seq::new(feed_id(frame)?.ms).map_err(|_| broken("a position is too large"))
}

/// The fields of an entry as pairs; what is no string is left out.
pub(super) fn pairs(frame: &Frame) -> Result<impl Iterator<Item = (&Bytes, &Bytes)>, StoreError> {
    let fields = array(frame)?;
    Ok(fields.chunks_exact(2).filter_map(|pair| Some((bytes(&pair[0])?, bytes(&pair[1])?))))
}

/// A copy of its own: a slice would keep the whole read buffer in memory for as long as a ring holds the event.
pub(super) fn copy(value: &Bytes) -> Bytes {
    Bytes::copy_from_slice(value)
}

/// The number that decimal digits stand for.
pub(super) fn digits_of(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The value of `name` in a reply that is a flat list of names and values, like that of `XINFO`.
pub(super) fn field<'a>(frame: &'a Frame, name: &str) -> Result<Option<&'a Frame>, StoreError> {
    let fields = array(frame)?;
    let pair = fields.chunks_exact(2).find(|pair| bytes(&pair[0]).is_some_and(|key| key == name.as_bytes()));
    Ok(pair.map(|pair| &pair[1]))
}
