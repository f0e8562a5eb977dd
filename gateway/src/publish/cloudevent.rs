//! CloudEvents 1.0: structured, in batches, and binary.
//!
//! `subject` is the channel, `type` the event, `id` with `source` the idempotency id, `time` the `ts`, and `data` the
//! data. Sources: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>, its JSON format and its HTTP
//! protocol binding.

use akis_model::{ErrorCode, MAX_SEQ};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::event::{MAX_NAME_BYTES, Refused, Sent, object, text_field};

/// Longest `source`, in bytes.
const MAX_SOURCE_BYTES: usize = 256;

/// What the attributes of a binary event are called as headers.
const HEADER_PREFIX: &str = "ce-";

/// The attributes that are looked at; `null` stands for absent. Others are extensions and ignored.
#[derive(Default, Deserialize)]
struct Attributes<'a> {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    datacontenttype: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<&'a RawValue>,
}

/// Whether a request carries its event's attributes in headers.
pub(super) fn is_binary(headers: &HeaderMap) -> bool {
    headers.contains_key("ce-specversion")
}

/// Whether a media type, without parameters and in lower case, is JSON.
pub(super) fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type == "text/json" || media_type.ends_with("+json")
}

/// Reads an event of the JSON format.
pub(super) fn structured(item: &RawValue) -> Result<Sent<'_>, Refused> {
    let attributes: Attributes<'_> = object(item)
        .map_err(|error| Refused::malformed(text_field(item, "subject"), format!("not a CloudEvent: {error}")))?;
    attributes.sent()
}

/// Reads an event whose data is the body.
pub(super) fn binary<'a>(headers: &HeaderMap, data: &'a RawValue) -> Result<Sent<'a>, Refused> {
    let attribute = |name: &str| match headers.get(format!("{HEADER_PREFIX}{name}")) {
        None => Ok(None),
        Some(value) => decode(value.as_bytes()).map(Some).ok_or_else(|| {
            Refused::malformed(None, format!("{HEADER_PREFIX}{name} is not UTF-8 behind its percent-encoding"))
        }),
    };
    Attributes {
        specversion: attribute("specversion")?,
        id: attribute("id")?,
        source: attribute("source")?,
        kind: attribute("type")?,
        subject: attribute("subject")?,
        time: attribute("time")?,
        data: Some(data),
        ..Attributes::default()
    }
    .sent()
}

impl<'a> Attributes<'a> {
    fn sent(self) -> Result<Sent<'a>, Refused> {
        let Some(channel) = self.subject else {
            return Err(Refused::malformed(None, "subject is missing: it names the channel"));
        };
        let bad = |message: &str| Refused::bad(&channel, message);
        if self.specversion.as_deref() != Some("1.0") {
            return Err(bad("specversion is not 1.0"));
        }
        let id = self.id.filter(|id| !id.is_empty() && id.len() <= MAX_NAME_BYTES);
        let id = id.ok_or_else(|| bad("id is missing or no string of 1 to 128 bytes"))?;
        let source = self.source.filter(|source| is_source(source));
        let source = source.ok_or_else(|| bad("source is missing or no URI of up to 256 bytes"))?;
        let event = self.kind.ok_or_else(|| bad("type is missing"))?;
        let ts = match self.time.as_deref().map(unix_ms) {
            None => None,
            Some(Some(ts)) => Some(ts),
            Some(None) => return Err(bad("time is not in the form of RFC 3339, or before 1970")),
        };
        let media_type =
            self.datacontenttype.as_deref().map(|value| value.split(';').next().unwrap_or_default().trim());
        if media_type.is_some_and(|media_type| !is_json(&media_type.to_ascii_lowercase())) {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Refused::new(&channel, status, ErrorCode::BadRequest, "datacontenttype is not JSON"));
        }
        let Some(data) = self.data.filter(|_| self.data_base64.is_none()) else {
            return Err(bad("data is missing: it is a JSON object"));
        };
        // A source has no space, so no two pairs give the same.
        Ok(Sent { channel, event, data, ts, id: Some(format!("{source} {id}")) })
    }
}

/// A URI-reference as far as it matters here: something, without space or control characters.
fn is_source(source: &str) -> bool {
    (1..=MAX_SOURCE_BYTES).contains(&source.len()) && !source.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Undoes what a header value may be wrapped in: quotes (RFC 9110 section 5.6.4), then percent-encoding.
fn decode(value: &[u8]) -> Option<String> {
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = quoted.unwrap_or(value).iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if quoted.is_some() => plain.push(bytes.next()?),
            byte => plain.push(byte),
        }
    }
    let mut decoded = Vec::with_capacity(plain.len());
    let mut rest = plain.as_slice();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(encoded) => {
                decoded.push(encoded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

/// A time of RFC 3339 section 5.6 in milliseconds since the epoch; what is finer is cut off. `None` when it is none, or
/// before the epoch.
fn unix_ms(time: &str) -> Option<u64> {
    let bytes = time.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    let is_shaped = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // A leap second is the first moment of the next minute.
    if !is_shaped || day < 1 || day > days_of(year, month)? || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut ms = 0;
    if is(at, b".") {
        let digits = bytes.get(at + 1..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        ms = number(at + 1, at + 1 + digits.min(3))? * [0, 100, 10, 1].get(digits.min(3))?;
        at += 1 + digits;
        if digits == 0 {
            return None;
        }
    }
    let offset = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            let minutes = (hours <= 23 && minutes <= 59).then_some(hours * 60 + minutes)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let minutes = (days_before(year, month, day) * 24 + hour) * 60 + minute - offset;
    u64::try_from((minutes * 60 + second) * 1000 + ms).ok().filter(|ms| *ms <= MAX_SEQ)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> Option<i64> {
    match month {
        2 => Some(if is_leap(year) { 29 } else { 28 }),
        4 | 6 | 9 | 11 => Some(30),
        1..=12 => Some(31),
        _ => None,
    }
}

/// Days from the epoch to a date of the Gregorian calendar.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let past = year - 1;
    let of_years = past * 365 + past / 4 - past / 100 + past / 400 - 719_162;
    let of_months: i64 = (1..month).filter_map(|month| days_of(year, month)).sum();
    of_years + of_months + day - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (time, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-24T15:00:01.25Z", Some(1_795_532_401_250)),
            ("2026-11-24t18:00:01.2509999+03:00", Some(1_795_532_401_250)),
            ("2000-02-29T23:59:60z", Some(951_868_800_000)),
            ("1970-01-01T00:00:00+00:01", None),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-24T24:00:00Z", None),
            ("2026-11-24T15:00:01.Z", None),
            ("2026-11-24T15:00:01", None),
            ("2026-11-24T15:00:01+0300", None),
            ("2026-11-24", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(unix_ms(time), expected, "{time}");
        }
    }

    #[test]
    fn an_event_is_taken_apart_or_refused() {
        let good = json!({ "specversion": "1.0", "id": "7", "source": "/desk", "type": "job_progress",
            "subject": "job:1", "time": "1970-01-01T00:00:01Z", "data": { "progress": 5 }, "other": 1 });
        let read = |value: &serde_json::Value| {
            let text = value.to_string();
            let item: &RawValue = serde_json::from_str(&text).unwrap();
            structured(item).map(|sent| (sent.channel, sent.event, sent.ts, sent.id)).map_err(|refused| refused.message)
        };
        let expected = ("job:1".to_owned(), "job_progress".to_owned(), Some(1000), Some("/desk 7".to_owned()));
        assert_eq!(read(&good), Ok(expected));
        for (name, value, word) in [
            ("specversion", json!("0.3"), "specversion"),
            ("id", json!(""), "id"),
            ("id", json!(7), "not a CloudEvent"),
            ("source", json!("a b"), "source"),
            ("type", json!(null), "type"),
            ("subject", json!(null), "subject"),
            ("time", json!("soon"), "time"),
            ("datacontenttype", json!("text/xml"), "datacontenttype"),
            ("data", json!(null), "data"),
            ("data_base64", json!("AA=="), "data"),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            let message = read(&bad).expect_err(name);
            assert!(message.contains(word), "{message} should speak of {word}");
        }
    }

    #[test]
    fn headers_are_unwrapped() {
        for (value, expected) in [
            (&b"plain"[..], Some("plain")),
            (b"\"a \\\"b\\\" \\\\\"", Some("a \"b\" \\")),
            (b"%C5%9F%20%e2%82%ac", Some("\u{15f} \u{20ac}")),
            (b"100%", Some("100%")),
            (b"%zz", Some("%zz")),
            (b"%ff", None),
            (b"\"a\\\"", None),
        ] {
            assert_eq!(decode(value).as_deref(), expected, "{}", String::from_utf8_lossy(value));
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_time_or_nothing(text in "[0-9TtZz:.+-]{0,40}|\\PC{0,40}") {
            let _ = unix_ms(&text);
        }

        #[test]
        fn days_follow_each_other(days in 0_i64..200_000) {
            // The civil calendar the other way, from the epoch on.
            let (mut year, mut rest) = (1970, days);
            while rest >= if is_leap(year) { 366 } else { 365 } {
                rest -= if is_leap(year) { 366 } else { 365 };
                year += 1;
            }
            let mut month = 1;
            while let Some(length) = days_of(year, month).filter(|length| rest >= *length) {
                rest -= length;
                month += 1;
            }
            prop_assert_eq!(days_before(year, month, rest + 1), days);
        }
    }
}
