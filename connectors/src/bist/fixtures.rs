//! The transport vectors, for tests.

use serde_json::Value;

/// What each vector of `transport` is, and its bytes.
pub(crate) fn transport(transport: &str) -> Vec<(String, Vec<u8>)> {
    include_str!("../../fixtures/bist/transport.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|vector| vector["transport"] == transport)
        .map(|vector| (vector["what"].as_str().unwrap().to_owned(), bytes(vector["hex"].as_str().unwrap())))
        .collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
