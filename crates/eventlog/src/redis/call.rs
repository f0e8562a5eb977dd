//! The keys and arguments of one call of a script.

use std::fmt::{Display, Write};
use std::mem;

use bytes::Bytes;
use fred::types::Value;

/// What a script is run with.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// In a cluster these share a slot.
    pub(super) keys: Texts,
    pub(super) args: Texts,
}

/// Texts one behind the other in one piece of memory, with bodies between them that stay where they are: a call has hundreds.
#[derive(Debug, Default)]
pub(super) struct Texts {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    /// The text up to there, from where the last one ended.
    Until(usize),
    Body(Bytes),
}

impl Call {
    /// With these keys, and without arguments.
    pub(super) fn on<K: Display>(keys: impl IntoIterator<Item = K>) -> Self {
        let mut call = Self::default();
        keys.into_iter().for_each(|key| call.keys.push(key));
        call
    }

    /// Adds another call's keys and arguments, with the numbers of them in front of the arguments: that of the keys, and that of
    /// the arguments with these two.
    pub(super) fn join(&mut self, other: &Self) {
        self.keys.extend(&other.keys);
        self.args.push(other.keys.len());
        self.args.push(2 + other.args.len());
        self.args.extend(&other.args);
    }

    /// What a client sends behind the command: the script, how many keys there are, the keys and the arguments.
    pub(super) fn values(&self, script: Bytes) -> Vec<Value> {
        let mut values = Vec::with_capacity(2 + self.keys.len() + self.args.len());
        values.extend([Value::from(script), Value::from(self.keys.len() as i64)]);
        values.extend(self.keys.values());
        values.extend(self.args.values());
        values
    }
}

impl Texts {
    /// Makes room for so many, of so many bytes together.
    pub(super) fn reserve(&mut self, count: usize, bytes: usize) {
        self.pieces.reserve(count);
        self.text.reserve(bytes);
    }

    /// Adds a text, or a number in digits.
    pub(super) fn push(&mut self, value: impl Display) {
        // A string takes everything.
        let _ = write!(self.text, "{value}");
        self.pieces.push(Piece::Until(self.text.len()));
    }

    /// Adds what there is, or else an empty text.
    pub(super) fn push_some(&mut self, value: Option<impl Display>) {
        match value {
            Some(value) => self.push(value),
            None => self.push(""),
        }
    }

    /// Adds a body as it is.
    pub(super) fn push_body(&mut self, body: Bytes) {
        self.pieces.push(Piece::Body(body));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Adds others behind these.
    pub(super) fn extend(&mut self, others: &Self) {
        let begin = self.text.len();
        self.text.push_str(&others.text);
        self.pieces.extend(others.pieces.iter().map(|piece| match piece {
            Piece::Until(end) => Piece::Until(begin + end),
            Piece::Body(body) => Piece::Body(body.clone()),
        }));
    }

    fn values(&self) -> impl Iterator<Item = Value> {
        let (text, mut begin) = (Bytes::copy_from_slice(self.text.as_bytes()), 0);
        self.pieces.iter().map(move |piece| match piece {
            Piece::Until(end) => Value::from(text.slice(mem::replace(&mut begin, *end)..*end)),
            Piece::Body(body) => Value::from(body.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_bodies_come_out_in_their_order() {
        let mut call = Call::on(["key", "other"]);
        call.args.push(17);
        call.args.push_some(None::<u64>);
        let mut behind = Texts::default();
        behind.push_body(Bytes::from_static(b"{}"));
        behind.push_some(Some("ab"));
        behind.push("c");
        call.args.extend(&behind);
        assert_eq!((call.keys.len(), call.args.len()), (2, 5));
        let values = call.values(Bytes::from_static(b"hash"));
        let bytes: Vec<Bytes> = values.into_iter().map(|value| value.convert().unwrap()).collect();
        assert_eq!(bytes, ["hash", "2", "key", "other", "17", "", "{}", "ab", "c"]);
    }

    #[test]
    fn joined_calls_say_where_the_next_one_begins() {
        let mut call = Call::default();
        for (key, arg) in [("a", "1"), ("b", "2")] {
            let mut other = Call::on([key, "common"]);
            other.args.push(arg);
            call.join(&other);
        }
        let values = call.values(Bytes::from_static(b"hash"));
        let bytes: Vec<Bytes> = values.into_iter().map(|value| value.convert().unwrap()).collect();
        assert_eq!(bytes, ["hash", "4", "a", "common", "b", "common", "2", "3", "1", "2", "3", "2"]);
    }
}
