//! Patterns over channels, as they stand in tokens and in configuration.

use std::fmt;

use crate::channel::{Channel, MAX_CHANNEL_BYTES, is_segment};

/// A channel in which a segment may be `*` or `{sub}`.
///
/// `*` stands for exactly one segment, and as the last segment for all that remain (at least one).
/// `{sub}` stands for exactly the token's subject, byte for byte. Channels that begin with `akis:` are
/// matched only by patterns without a wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Exact(Box<str>),
    Any,
    Subject,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    ///
    /// [`PatternError`] when no channel could ever match: a wildcard that is a part of a segment, an illegal
    /// character, too many segments. In a token such a pattern matches nothing; in configuration it is a mistake.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let segments: Box<[Segment]> = text
            .split(':')
            .map(|segment| match segment {
                "*" => Ok(Segment::Any),
                "{sub}" => Ok(Segment::Subject),
                _ if is_segment(segment) => Ok(Segment::Exact(segment.into())),
                _ => Err(PatternError(text.chars().take(MAX_CHANNEL_BYTES).collect())),
            })
            .collect::<Result<_, _>>()?;
        let open = segments.last() == Some(&Segment::Any);
        if segments.len() > 5 || (segments.len() < 2 && !open) || text.len() > MAX_CHANNEL_BYTES {
            return Err(PatternError(text.chars().take(MAX_CHANNEL_BYTES).collect()));
        }
        Ok(Self { text: text.into(), segments })
    }

    /// Whether `channel` is covered for a token whose subject is `subject`.
    pub fn matches(&self, channel: &Channel, subject: &str) -> bool {
        if channel.is_own() && !self.segments.iter().all(|segment| matches!(segment, Segment::Exact(_))) {
            return false;
        }
        let mut names = channel.segments();
        for (i, segment) in self.segments.iter().enumerate() {
            let Some(name) = names.next() else { return false };
            let last = i + 1 == self.segments.len();
            match segment {
                Segment::Any if last => return true,
                Segment::Any => {}
                Segment::Exact(text) if **text == *name => {}
                Segment::Subject if subject == name => {}
                Segment::Exact(_) | Segment::Subject => return false,
            }
        }
        names.next().is_none()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A pattern that no channel can match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no pattern: each segment is a name, \"*\" or \"{{sub}}\"")]
pub struct PatternError(String);

/// The patterns of one token for one right (to subscribe, or to publish), with its subject filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowlist {
    subject: Box<str>,
    patterns: Vec<Pattern>,
}

impl Allowlist {
    /// Collects the patterns of a token. Those that cannot match anything are left out.
    pub fn new<'a>(subject: &str, patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns = patterns.into_iter().filter_map(|text| Pattern::parse(text).ok()).collect();
        Self { subject: subject.into(), patterns }
    }

    /// Whether any of the patterns covers `channel`.
    pub fn allows(&self, channel: &Channel) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(channel, &self.subject))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition of the protocol, word for word and without any care for speed.
    fn slow_match(pattern: &[&str], channel: &[&str], subject: &str) -> bool {
        match (pattern, channel) {
            ([], []) => true,
            (["*"], [_, ..]) => true,
            (["*", rest @ ..], [_, names @ ..]) => slow_match(rest, names, subject),
            (["{sub}", rest @ ..], [name, names @ ..]) => *name == subject && slow_match(rest, names, subject),
            ([text, rest @ ..], [name, names @ ..]) => text == name && slow_match(rest, names, subject),
            _ => false,
        }
    }

    #[test]
    fn examples_of_the_protocol() {
        for (pattern, channel, expected) in [
            ("binance:*", "binance:BTCUSDT:ticker", true),
            ("binance:*", "binancef:BTCUSDT:ticker", false),
            ("binance:*:ticker", "binance:BTCUSDT:ticker", true),
            ("binance:*:ticker", "binance:BTCUSDT:x:ticker", false),
            ("*", "job:1", true),
            ("*:*", "job:1:2", true),
            ("user:{sub}:*", "user:alice:inbox", true),
            ("user:{sub}:*", "user:bob:inbox", false),
            ("user:{sub}:*", "user:alice", false),
            ("*", "akis:control:revoke", false),
            ("akis:*", "akis:control:revoke", false),
            ("akis:control:revoke", "akis:control:revoke", true),
            ("akis:control:{sub}", "akis:control:alice", false),
        ] {
            let channel = Channel::parse(channel).unwrap();
            assert_eq!(Pattern::parse(pattern).unwrap().matches(&channel, "alice"), expected, "{pattern} {channel}");
        }
    }

    #[test]
    fn a_part_of_a_segment_is_no_wildcard() {
        for bad in ["", "bin*:x", "a:b*", "a:{su}", "a:{sub}x", "a", "{sub}", "a::*", "a:b:c:d:e:f", "a:b "] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
            assert!(!Allowlist::new("s", [bad]).allows(&Channel::parse("a:b").unwrap()));
        }
    }

    #[test]
    fn a_subject_that_is_no_segment_matches_nothing() {
        let list = Allowlist::new("x:y", ["user:{sub}"]);
        assert!(!list.allows(&Channel::parse("user:x").unwrap()));
        assert!(!list.allows(&Channel::parse("user:x:y").unwrap()));
    }

    proptest! {
        #[test]
        fn agrees_with_the_slow_matcher(
            pattern in prop::collection::vec(prop_oneof![Just("*"), Just("{sub}"), Just("a"), Just("b"), Just("c")], 1..6),
            channel in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 2..6),
            subject in prop_oneof![Just("a"), Just("b"), Just("")],
        ) {
            if let Ok(parsed) = Pattern::parse(&pattern.join(":")) {
                let name = Channel::parse(&channel.join(":")).unwrap();
                prop_assert_eq!(parsed.matches(&name, subject), slow_match(&pattern, &channel, subject));
            }
        }
    }
}
