//! Checks what clients were told against what happened.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::Envelope;

/// What one client was told about one channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// What must never be, in readable words. Empty when all is well.
    pub violations: Vec<String>,
    /// The positions of the events that were delivered.
    pub delivered: BTreeSet<u64>,
    /// The stretches that the client was told to be missing: event, first and last position.
    pub missing: Vec<(String, u64, u64)>,
    /// How often a subscription began anew (`recovered` false), the first one not counted.
    pub restarts: usize,
}

/// Checks the connections of one client to one channel, in the order in which it made them; each but the first
/// resumed after the last position of the one before. `history` is every event of the channel that was ever
/// acknowledged or seen, whole envelopes by position.
///
/// Positions rise; every step is by one, or told (`gap`, `backpressure_drop`, `term`); a `term` and
/// `recovered: true` hide no event; what is delivered is what history has. While an interval is granted, positions only rise.
pub fn check_channel(channel: &str, connections: &[&[Envelope]], history: &BTreeMap<u64, Value>) -> Report {
    let mut check = Check { history, position: None, skips: false, report: Report::default() };
    for (number, envelopes) in connections.iter().enumerate() {
        for envelope in envelopes.iter().filter(|envelope| envelope.channel() == channel) {
            check.take(envelope, number);
        }
    }
    check.report
}

struct Check<'a> {
    history: &'a BTreeMap<u64, Value>,
    /// The position that the next event follows.
    position: Option<u64>,
    /// Whether the subscription has an interval, so that events are skipped without a word.
    skips: bool,
    report: Report,
}

impl Check<'_> {
    fn take(&mut self, envelope: &Envelope, connection: usize) {
        let seq = envelope.seq();
        let problem = match (envelope.event(), self.position) {
            ("subscribed", position) => self.subscribed(envelope, position),
            ("unsubscribed" | "subscribe_error", _) => None,
            // Says something of the channel, and nothing of its positions.
            ("staleness", Some(position)) => (seq != position).then(|| format!("stands behind {position}")),
            (event, None) => Some(format!("{event} before subscribed")),
            ("term", Some(position)) => self.step(position, seq),
            ("gap" | "backpressure_drop", Some(position)) => self.missing(envelope, position),
            (_, Some(position)) => self.event(envelope, position),
        };
        if let Some(problem) = problem {
            let event = envelope.event();
            self.report.violations.push(format!("connection {connection}, {event} at {seq}: {problem}"));
        }
    }

    fn subscribed(&mut self, envelope: &Envelope, position: Option<u64>) -> Option<String> {
        let seq = envelope.seq();
        self.position = Some(seq);
        self.skips = envelope.data()["interval"].as_u64().is_some_and(|interval| interval > 0);
        if envelope.data()["recovered"].as_bool() == Some(true) {
            let Some(position) = position else { return Some("recovered, but nothing came before".to_owned()) };
            return if seq < position {
                Some(format!("goes back from {position}"))
            } else {
                self.hidden(position, seq)
            };
        }
        self.report.restarts += usize::from(position.is_some());
        None
    }

    /// A step without loss: nothing may lie in between.
    fn step(&mut self, position: u64, seq: u64) -> Option<String> {
        self.position = Some(seq);
        if seq < position { Some(format!("goes back from {position}")) } else { self.hidden(position, seq) }
    }

    fn missing(&mut self, envelope: &Envelope, position: u64) -> Option<String> {
        let data = envelope.data();
        let (Some(from), Some(to)) = (data["from"].as_u64(), data["to"].as_u64()) else {
            return Some("names no from and to".to_owned());
        };
        self.report.missing.push((envelope.event().to_owned(), from, to));
        self.position = Some(envelope.seq());
        if to != envelope.seq() || from > to || to <= position {
            return Some(format!("names {from} to {to} after {position}"));
        }
        self.hidden(position, from.saturating_sub(1))
    }

    fn event(&mut self, envelope: &Envelope, position: u64) -> Option<String> {
        let seq = envelope.seq();
        if seq <= position || (seq > position + 1 && !self.skips) {
            if seq > position {
                self.position = Some(seq);
            }
            return Some(format!("follows {position} without a word"));
        }
        self.position = Some(seq);
        self.report.delivered.insert(seq);
        match self.history.get(&seq) {
            None => Some("history has no such event".to_owned()),
            Some(expected) if *expected != envelope.0 => Some(format!("history has other content: {expected}")),
            Some(_) => None,
        }
    }

    /// The events that lie above `after` and up to `to`, in words.
    fn hidden(&self, after: u64, to: u64) -> Option<String> {
        if self.skips {
            return None;
        }
        let hidden: Vec<u64> = self.history.keys().copied().filter(|seq| *seq > after && *seq <= to).collect();
        let first = hidden.first()?;
        Some(format!("hides {} events between {after} and {to}, the first at {first}", hidden.len()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(seq: u64) -> Envelope {
        Envelope(json!({"v": 1, "seq": seq, "event": "e", "channel": "job:1", "ok": true, "data": {"n": seq}}))
    }

    fn told(event: &str, seq: u64, data: Value) -> Envelope {
        Envelope(json!({"v": 1, "seq": seq, "event": event, "channel": "job:1", "ok": true, "data": data}))
    }

    fn history(seqs: &[u64]) -> BTreeMap<u64, Value> {
        seqs.iter().map(|seq| (*seq, event(*seq).0)).collect()
    }

    #[test]
    fn an_honest_history_has_no_violations() {
        let first = [
            told("subscribed", 4, json!({})),
            event(5),
            event(6),
            told("term", 99, json!({"previous": 6})),
            event(100),
            told("gap", 102, json!({"from": 101, "to": 102, "reason": "lost"})),
            event(103),
        ];
        let second = [told("subscribed", 103, json!({"recovered": true})), event(104)];
        let report = check_channel("job:1", &[&first, &second], &history(&[5, 6, 100, 101, 102, 103, 104]));
        assert_eq!(report.violations, Vec::<String>::new());
        assert_eq!(report.delivered, BTreeSet::from([5, 6, 100, 103, 104]));
        assert_eq!(report.missing, vec![("gap".to_owned(), 101, 102)]);
    }

    #[test]
    fn an_interval_allows_holes_and_nothing_else() {
        let start = told("subscribed", 4, json!({"interval": 250}));
        let exact = told("subscribed", 9, json!({"interval": 0}));
        let history = history(&[5, 6, 7, 9, 10, 11, 12]);
        let check = |envelopes: &[Envelope]| check_channel("job:1", &[envelopes], &history).violations.len();
        assert_eq!(check(&[start.clone(), event(7), event(9), exact.clone(), event(10), event(11)]), 0);
        assert_eq!(check(&[start.clone(), event(7), event(6)]), 1, "goes back");
        assert_eq!(check(&[start.clone(), event(8)]), 1, "invented");
        assert_eq!(check(&[start, event(9), exact, event(12)]), 1, "a hole after the interval's end");
    }

    #[test]
    fn each_kind_of_lie_is_found() {
        let start = told("subscribed", 4, json!({}));
        for (name, envelopes, seqs) in [
            ("hole", vec![start.clone(), event(6)], vec![5, 6]),
            ("repeat", vec![start.clone(), event(5), event(5)], vec![5]),
            ("invented", vec![start.clone(), event(5)], vec![]),
            ("no subscription", vec![event(5)], vec![5]),
            ("term hides", vec![start.clone(), told("term", 9, json!({}))], vec![5]),
            ("gap hides", vec![start.clone(), told("gap", 9, json!({"from": 7, "to": 9}))], vec![6]),
            ("gap without bounds", vec![start.clone(), told("gap", 9, json!({}))], vec![]),
            ("goes back", vec![start.clone(), told("term", 3, json!({}))], vec![]),
            ("recovery hides", vec![start.clone(), told("subscribed", 6, json!({"recovered": true}))], vec![5]),
        ] {
            let report = check_channel("job:1", &[&envelopes], &history(&seqs));
            assert_eq!(report.violations.len(), 1, "{name}: {report:?}");
        }
        let other = BTreeMap::from([(5, json!({}))]);
        assert_eq!(check_channel("job:1", &[&[start, event(5)]], &other).violations.len(), 1, "other content");
    }
}
