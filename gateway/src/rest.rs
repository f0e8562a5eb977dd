//! `GET /v1/…`: what is kept, for those who do not subscribe.
//!
//! Who asks is checked before anything is looked up, and answers depend on nothing but the channels asked for, so reads
//! are shared by everybody who may see them.

mod reply;
mod shared;
mod source;

use std::sync::Arc;

use akis_model::{CandleView, Channel, ErrorCode, MAX_CHANNEL_BYTES, MAX_SEQ, Seq};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

pub(crate) use self::source::Source;
use self::source::Start;
use crate::auth::Grant;
use crate::clock::Now;
use crate::problem::Problem;
use crate::query::{self, Query};
use crate::server::{App, admit};

/// Events of one answer, at most; and unless asked otherwise.
const MAX_EVENTS: u64 = 1000;

/// Bytes of events in one answer: what is too much is asked for again from the last one's position on.
const MAX_BYTES: usize = 8 << 20;

/// Candles of one answer: unless asked otherwise, and at most.
const CANDLES: u64 = 500;
const MAX_CANDLES: u64 = 1500;

/// Events that are looked through for the open candle: news of the channel's state may stand behind it.
const RECENT: usize = 8;

/// Channels that one request looks up at a time.
const LOOKUPS: usize = 16;

/// The channel in the path, if it is text.
type Name = Result<Path<String>, PathRejection>;

/// Answers `GET /v1/snapshot`.
pub(crate) async fn snapshot(State(app): State<Arc<App>>, head: Parts) -> Response {
    answer(&app, &head, async |grant, query| {
        let channels = query.channels()?;
        for channel in &channels {
            check(grant, channel)?;
        }
        let source = &app.source;
        let latest = stream::iter(channels).map(async |channel| source.latest(&channel).await).buffered(LOOKUPS);
        let envelopes: Vec<Option<String>> = latest.try_collect().await?;
        let envelopes: Vec<String> = envelopes.into_iter().flatten().collect();
        Ok(format!("{{\"events\":[{}]}}", envelopes.join(",")))
    })
    .await
}

/// Answers `GET /v1/history/{channel}`.
pub(crate) async fn history(State(app): State<Arc<App>>, name: Name, head: Parts) -> Response {
    answer(&app, &head, async |grant, query| {
        let channel = named(grant, &name)?;
        let start = match (query.number("after", 0..=MAX_SEQ)?, query.number("since", 0..=MAX_SEQ)?) {
            (None, None) => Start::Newest,
            (Some(after), None) => Start::After(Seq::new(after).unwrap_or_default()),
            (None, Some(since)) => Start::Since(i64::try_from(since).unwrap_or(i64::MAX)),
            (Some(_), Some(_)) => return Err(Problem::bad_request("after and since exclude each other")),
        };
        let limit = query.number("limit", 1..=MAX_EVENTS)?.unwrap_or(MAX_EVENTS);
        let excerpt = app.source.excerpt(&channel, start, limit as usize).await?;
        let envelopes: Vec<&str> = excerpt.events.iter().map(|(_, envelope)| envelope.as_str()).collect();
        let envelopes = within_bytes(&envelopes, start == Start::Newest);
        let (oldest, recovered) = (json!(excerpt.oldest.map(Seq::get)), excerpt.recovered);
        let events = envelopes.join(",");
        Ok(format!(r#"{{"channel":"{channel}","events":[{events}],"oldest":{oldest},"recovered":{recovered}}}"#))
    })
    .await
}

/// Answers `GET /v1/candles/{channel}`.
pub(crate) async fn candles(State(app): State<Arc<App>>, name: Name, head: Parts) -> Response {
    answer(&app, &head, async |grant, query| {
        let channel = named(grant, &name)?;
        let limit = query.number("limit", 1..=MAX_CANDLES)?.unwrap_or(CANDLES) as usize;
        let before_ms = query.number("before", 0..=MAX_SEQ)?;
        // First the open one: if it is closed meanwhile it is among the others.
        let recent = app.source.excerpt(&channel, Start::Newest, RECENT).await?;
        let closed = app.source.candles(&channel, before_ms, limit).await?;
        let newest = recent.events.iter().rev().find_map(|(_, envelope)| CandleView::read(envelope));
        let is_wanted = |open_ms| before_ms.is_none_or(|before| open_ms < before);
        let last_ms = closed.last().map_or(0, |candle| candle.open_ms);
        let open = newest.filter(|candle| candle.open_ms > last_ms && is_wanted(candle.open_ms));
        let bodies: Vec<String> =
            closed.iter().map(|candle| format!("{{{}", String::from_utf8_lossy(&candle.body))).collect();
        let mut all: Vec<&str> =
            bodies.iter().filter_map(|body| CandleView::read(body)).map(|candle| candle.data.get()).collect();
        all.extend(open.map(|candle| candle.data.get()));
        let newest = all.get(all.len().saturating_sub(limit)..).unwrap_or_default();
        Ok(format!(r#"{{"channel":"{channel}","candles":[{}]}}"#, newest.join(",")))
    })
    .await
}

/// Answers `GET /v1/channels`.
pub(crate) async fn channels(State(app): State<Arc<App>>, head: Parts) -> Response {
    answer(&app, &head, async |grant, query| {
        let prefix = query.one("prefix")?.unwrap_or_default();
        if prefix.len() > MAX_CHANNEL_BYTES {
            return Err(Problem::bad_request("prefix is longer than any channel"));
        }
        let all = app.source.channels().await?;
        let seen = all.iter().filter(|head| head.channel.as_str().starts_with(prefix) && grant.channels.allows(&head.channel));
        let seen: Vec<_> = seen
            .map(|head| {
                json!({ "channel": head.channel.as_str(), "seq": head.seq.get(), "ts": head.ts_ms, "event": head.event })
            })
            .collect();
        Ok(json!({ "channels": seen }).to_string())
    })
    .await
}

/// Lets a request in, and answers it with what `work` makes of it.
async fn answer(
    app: &App,
    head: &Parts,
    work: impl AsyncFnOnce(&Grant, &Query) -> Result<String, Problem>,
) -> Response {
    let answered = async {
        let visitor = admit(app, head, Now::read())?;
        let query = Query::of(&head.uri)?;
        work(&visitor.grant, &query).await
    };
    match answered.await {
        Ok(text) => reply::json(&head.headers, text),
        Err(problem) => {
            app.context.surroundings.metrics.refused("rest");
            problem.into_response()
        }
    }
}

/// The channel in the path, when the token allows it.
fn named(grant: &Grant, name: &Name) -> Result<Channel, Problem> {
    let Ok(Path(name)) = name else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, ErrorCode::BadChannel, "the channel is not UTF-8"));
    };
    let channel = query::channel(name)?;
    check(grant, &channel)?;
    Ok(channel)
}

fn check(grant: &Grant, channel: &Channel) -> Result<(), Problem> {
    if grant.channels.allows(channel) {
        return Ok(());
    }
    let detail = format!("the token does not allow {channel}");
    Err(Problem::new(StatusCode::FORBIDDEN, ErrorCode::ChannelForbidden, detail))
}

/// As many envelopes as one answer may hold, at least one: the last ones, or the first.
fn within_bytes<'a>(envelopes: &'a [&'a str], from_end: bool) -> &'a [&'a str] {
    let mut bytes = 0;
    let mut fits = |envelope: &&&str| {
        bytes += envelope.len();
        bytes <= MAX_BYTES
    };
    let count = if from_end {
        envelopes.iter().rev().take_while(&mut fits).count()
    } else {
        envelopes.iter().take_while(&mut fits).count()
    };
    let count = count.max(1).min(envelopes.len());
    let (from, to) = if from_end { (envelopes.len() - count, envelopes.len()) } else { (0, count) };
    envelopes.get(from..to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded_in_bytes() {
        let big = "x".repeat(MAX_BYTES / 2);
        let all = [big.as_str(), "a", big.as_str(), "b"];
        assert_eq!(within_bytes(&all, false).len(), 2);
        let last = within_bytes(&all, true);
        assert_eq!((last.len(), last[0]), (3, "a"));
        let huge = "x".repeat(MAX_BYTES + 1);
        assert_eq!(within_bytes(&[huge.as_str()], true).len(), 1);
        assert!(within_bytes(&[], true).is_empty());
    }
}
