//! The keys and arguments of one call of a script.
//!
//! A call has hundreds of arguments, most of them a few bytes long, and to client and server each argument of a command costs an
//! allocation or more. So they go as one: an array of strings in MessagePack, which a script takes apart with `cmsgpack.unpack`.

use std::fmt::Display;
use std::io::Write;
use std::mem;

use bytes::Bytes;
use fred::types::Value;

/// The first byte of an array of MessagePack, and of a string, whose length follows in four bytes.
const ARRAY: u8 = 0xdd;
const STRING: u8 = 0xdb;

/// What a script is run with.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// In a cluster these share a slot.
    pub(super) keys: KeyNames,
    pub(super) args: Args,
}

/// Names of keys, one behind the other in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct KeyNames {
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// Arguments, packed.
#[derive(Debug, Default)]
pub(super) struct Args {
    packed: Vec<u8>,
    count: usize,
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
        self.args.push(other.keys.len());
        self.args.push(2 + other.args.count);
        self.keys.extend(&other.keys);
        self.args.extend(&other.args);
    }

    /// What a client sends behind the command: the script, how many keys there are, the keys and the arguments.
    pub(super) fn values(&self, script: Bytes) -> Vec<Value> {
        let mut values = Vec::with_capacity(3 + self.keys.len());
        values.extend([Value::from(script), Value::from(self.keys.len() as i64)]);
        values.extend(self.keys.values());
        values.push(self.args.array().into());
        values
    }
}

impl KeyNames {
    /// Makes room for so many, of so many bytes together.
    pub(super) fn reserve(&mut self, count: usize, bytes: usize) {
        self.ends.reserve(count);
        self.text.reserve(bytes);
    }

    pub(super) fn push(&mut self, key: impl Display) {
        append(&mut self.text, key);
        self.ends.push(self.text.len());
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn extend(&mut self, others: &Self) {
        let begin = self.text.len();
        self.text.extend_from_slice(&others.text);
        self.ends.extend(others.ends.iter().map(|end| begin + end));
    }

    fn values(&self) -> impl Iterator<Item = Value> {
        let (text, mut begin) = (Bytes::copy_from_slice(&self.text), 0);
        self.ends.iter().map(move |end| Value::from(text.slice(mem::replace(&mut begin, *end)..*end)))
    }
}

impl Args {
    /// Makes room for so many, of so many bytes together.
    pub(super) fn reserve(&mut self, count: usize, bytes: usize) {
        self.packed.reserve(5 * count + bytes);
    }

    /// Adds a text, or a number in digits.
    pub(super) fn push(&mut self, value: impl Display) {
        let head = self.packed.len();
        self.packed.extend(long(STRING, 0));
        append(&mut self.packed, value);
        let length = self.packed.len() - head - 5;
        self.packed[head..head + 5].copy_from_slice(&long(STRING, length));
        self.count += 1;
    }

    /// Adds what there is, or else an empty text.
    pub(super) fn push_some(&mut self, value: Option<impl Display>) {
        match value {
            Some(value) => self.push(value),
            None => self.push_bytes(b""),
        }
    }

    /// Adds bytes as they are.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        self.packed.extend(long(STRING, bytes.len()));
        self.packed.extend_from_slice(bytes);
        self.count += 1;
    }

    /// Adds others behind these.
    pub(super) fn extend(&mut self, others: &Self) {
        self.packed.extend_from_slice(&others.packed);
        self.count += others.count;
    }

    fn array(&self) -> Bytes {
        [&long(ARRAY, self.count), self.packed.as_slice()].concat().into()
    }
}

/// The head of an array or a string. Redis takes no argument of 4 GiB.
fn long(what: u8, length: usize) -> [u8; 5] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [what, a, b, c, d]
}

fn append(bytes: &mut Vec<u8>, value: impl Display) {
    // Memory takes everything.
    let _ = write!(bytes, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(call: &Call) -> Vec<Bytes> {
        let values = call.values(Bytes::from_static(b"hash"));
        values.into_iter().map(|value| value.convert().unwrap()).collect()
    }

    /// Takes apart what a script is given.
    fn unpacked(mut packed: &[u8]) -> Vec<String> {
        fn take<'a>(packed: &mut &'a [u8], length: usize) -> &'a [u8] {
            packed.split_off(..length).unwrap()
        }
        fn head(packed: &mut &[u8], what: u8) -> usize {
            assert_eq!(take(packed, 1), [what]);
            u32::from_be_bytes(take(packed, 4).try_into().unwrap()) as usize
        }
        let count = head(&mut packed, ARRAY);
        let mut text = || {
            let length = head(&mut packed, STRING);
            String::from_utf8(take(&mut packed, length).to_vec()).unwrap()
        };
        (0..count).map(|_| text()).collect()
    }

    #[test]
    fn what_goes_in_comes_out_in_its_order() {
        let mut call = Call::on(["key", "other"]);
        call.args.push(17);
        call.args.push_some(None::<u64>);
        let mut behind = Args::default();
        behind.push_bytes(b"{}");
        behind.push_some(Some("ab"));
        behind.push("c".repeat(70_000));
        call.args.extend(&behind);
        let bytes = bytes_of(&call);
        assert_eq!(bytes[..4], ["hash", "2", "key", "other"]);
        assert_eq!(unpacked(&bytes[4]), ["17", "", "{}", "ab", &"c".repeat(70_000)]);
        assert_eq!(bytes.len(), 5);
    }

    #[test]
    fn joined_calls_say_where_the_next_one_begins() {
        let mut call = Call::default();
        for (key, arg) in [("a", "1"), ("b", "2")] {
            let mut other = Call::on([key, "common"]);
            other.args.push(arg);
            call.join(&other);
        }
        let bytes = bytes_of(&call);
        assert_eq!(bytes[..6], ["hash", "4", "a", "common", "b", "common"]);
        assert_eq!(unpacked(&bytes[6]), ["2", "3", "1", "2", "3", "2"]);
    }
}
