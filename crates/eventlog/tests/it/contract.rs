//! What both stores promise. Each test runs against both.

use std::time::Duration;

use akis_eventlog::{
    Append, CANDLES_KEPT, ChannelHead, Claim, FeedId, FeedStart, Fence, Hearing, RANGE_BYTES, Select, StoreError,
    StoredCandle, TERM_JUMP, Write,
};
use akis_model::{Body, Kind, Outcome, Seq, TraceContext};
use akis_testkit::wait_until;

use crate::log::{Log, P, append, channel, claim, feed, fence, history, marker, positions, seq, term, writes};

const SECONDS: Duration = Duration::from_secs(5);

macro_rules! on_both_stores {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Log::memory()).await;
            })*
        }

        mod redis {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Log::redis().await).await;
            })*
        }
    };
}

pub(crate) use on_both_stores;

on_both_stores! {
    a_batch_is_in_history_and_feed_in_order
    a_repeated_batch_adds_nothing
    another_fence_or_identity_is_refused_and_nothing_is_written
    a_fence_is_set_only_over_the_one_expected
    a_term_begins_above_everything_known
    markers_prove_only_what_they_know
    positions_told_without_an_event_are_remembered
    appended_events_are_counted_on_and_not_repeated
    ids_of_two_channels_never_meet
    a_position_seen_elsewhere_makes_ends_unproven
    ranges_are_what_was_asked_for
    a_range_goes_no_further_than_its_bytes
    what_lies_above_a_range_is_counted_also_over_terms
    history_keeps_what_its_kind_asks_for
    closed_candles_are_kept_once_and_in_order
    candles_of_the_past_are_put_where_they_belong
    channels_that_exist_are_listed
    a_lease_has_one_holder
    a_lease_that_is_taken_twice_says_who_had_it_before_its_owner
    who_is_deaf_leaves_the_lease_to_who_hears
    a_feed_begins_where_it_is_told
    an_idle_feed_says_where_it_ends
}

async fn a_batch_is_in_history_and_feed_in_order(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let (a, b) = (term(store, "v:a:trades").await, term(store, "v:b:trades").await);
    let mut batch = writes("v:a:trades", a, Some(0), 2);
    batch.extend(writes("v:b:trades", b, None, 1));
    batch.extend(writes("v:a:trades", a.plus(2), None, 1));
    let trace = TraceContext { trace_id: [7; 16], span_id: [9; 8] };
    batch[1].origin.trace = Some(trace);
    store.publish(P, &claim, &batch).await.unwrap();

    let range = history(store, "v:a:trades").await;
    assert_eq!(positions(&range.entries), vec![a.get(), a.get() + 1, a.get() + 2]);
    assert_eq!(range.entries[0].previous, Some(Seq::ZERO));
    assert_eq!(range.entries[1].previous, None);
    assert_eq!(range.entries[1].body, batch[1].body);
    assert!(range.proven, "written to this very log");

    let entries = feed(store).await;
    assert_eq!(entries.len(), 4);
    for (number, (entry, write)) in entries.iter().zip(&batch).enumerate() {
        assert_eq!(entry.number, number as u64 + 1, "numbers are dense");
        assert_eq!(entry.channel.as_ref(), Some(&write.channel));
        assert_eq!((entry.seq, entry.previous), (write.seq, write.previous));
        assert_eq!(entry.body.as_ref(), Some(&write.body));
    }
    let traces: Vec<_> = entries.iter().map(|entry| entry.trace).collect();
    assert_eq!(traces, [None, Some(trace), None, None], "a trace goes with its event and no other");
    assert!(entries.is_sorted_by_key(|entry| entry.id));
    let ends = store.ends(P, &[channel("v:a:trades")], Some("venue"), Seq::ZERO).await.unwrap();
    assert_eq!(ends.channels[0].last, Some(a.plus(2)));
    assert_eq!((ends.feed.id, ends.feed.number), (entries[3].id, 4));
    assert_eq!(ends.top, a.plus(2).max(b));
    assert_eq!(ends.fence, Some(claim.fence));
}

async fn a_repeated_batch_adds_nothing(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let first = term(store, "v:a:trades").await;
    let batch = writes("v:a:trades", first, Some(0), 3);
    store.publish(P, &claim, &batch).await.unwrap();
    store.publish(P, &claim, &batch).await.unwrap();
    let more = writes("v:a:trades", first.plus(2), None, 2);
    store.publish(P, &claim, &more).await.unwrap();
    store.publish(P, &claim, &batch).await.unwrap();
    assert_eq!(history(store, "v:a:trades").await.entries.len(), 4);
    assert_eq!(feed(store).await.len(), 4, "what is done already is not told again");
}

async fn another_fence_or_identity_is_refused_and_nothing_is_written(log: Log) {
    let store = &*log.store;
    let good = claim(store, "venue").await;
    let batch = writes("v:a:trades", term(store, "v:a:trades").await, Some(0), 1);
    let markers = [marker("v:a:trades", batch[0].seq, None)];
    for number in [0, 2] {
        let bad = akis_eventlog::Claim { fence: fence(number), ..good.clone() };
        assert_eq!(store.publish(P, &bad, &batch).await, Err(StoreError::Fenced), "a fence fits exactly or not");
        assert_eq!(store.mark(P, &bad, &markers).await, Err(StoreError::Fenced));
    }
    let other_name = akis_eventlog::Claim { publisher: "other".into(), ..good.clone() };
    assert_eq!(store.publish(P, &other_name, &batch).await, Err(StoreError::Fenced));
    let other_log = akis_eventlog::Claim { identity: akis_eventlog::Identity("0".repeat(40).into()), ..good.clone() };
    assert_eq!(store.publish(P, &other_log, &batch).await, Err(StoreError::Changed));
    assert_eq!(store.mark(P, &other_log, &markers).await, Err(StoreError::Changed));
    assert_eq!(history(store, "v:a:trades").await.last, None);
    assert!(feed(store).await.is_empty());
    store.publish(P, &good, &batch).await.unwrap();
}

async fn a_fence_is_set_only_over_the_one_expected(log: Log) {
    let store = &*log.store;
    store.set_fence(P, "venue", None, &fence(5), Seq::ZERO).await.unwrap();
    let refused = store.set_fence(P, "venue", None, &fence(6), Seq::ZERO).await;
    assert_eq!(refused, Err(StoreError::Fenced));
    let refused = store.set_fence(P, "venue", Some(&fence(4)), &fence(6), Seq::ZERO).await;
    assert_eq!(refused, Err(StoreError::Fenced));
    store.set_fence(P, "venue", Some(&fence(5)), &fence(6), Seq::ZERO).await.unwrap();
    let ends = store.ends(P, &[], Some("venue"), Seq::ZERO).await.unwrap();
    assert_eq!(ends.fence, Some(fence(6)));
    assert_eq!(store.ends(P, &[], Some("other"), Seq::ZERO).await.unwrap().fence, None);
}

async fn a_term_begins_above_everything_known(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let far = term(store, "v:a:trades").await.plus(1 << 40);
    store.publish(P, &claim, &writes("v:a:trades", far, Some(0), 1)).await.unwrap();
    let asked = [channel("v:a:trades"), channel("v:b:trades")];
    let ends = store.ends(P, &asked, None, Seq::ZERO).await.unwrap();
    assert!(ends.channels[0].term >= far.plus(TERM_JUMP), "a jump above the channel's own end");
    assert!(ends.channels[1].term > far, "above the partition's top");
    let again = store.ends(P, &asked, None, Seq::ZERO).await.unwrap();
    assert_ne!(ends.channels[0].term, again.channels[0].term, "by a random number");
    let seen = far.plus(1 << 41);
    let ends = store.ends(P, &asked, None, seen).await.unwrap();
    assert!(ends.since > seen);
    assert!(ends.channels.iter().all(|end| end.term > seen));
}

async fn markers_prove_only_what_they_know(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let name = "v:a:trades";
    let first = term(store, name).await;
    store.publish(P, &claim, &writes(name, first, Some(0), 2)).await.unwrap();
    let last = first.plus(1);
    // Somebody has seen more than this log holds: what it holds may be less than there was.
    let ends = store.ends(P, &[channel(name)], None, last.plus(1000)).await.unwrap();
    assert!(!ends.channels[0].proven);
    let begin = ends.channels[0].term.before();

    let low = marker(name, seq(ends.since.get() - 2), Some(last));
    assert_eq!(store.mark(P, &claim, &[low]).await, Err(StoreError::TermTooLow));
    for not_a_proof in [None, Some(Seq::ZERO), Some(first)] {
        store.mark(P, &claim, &[marker(name, begin, not_a_proof)]).await.unwrap();
        assert!(!history(store, name).await.proven, "{not_a_proof:?}");
    }
    store.mark(P, &claim, &[marker(name, begin, Some(last))]).await.unwrap();
    assert!(history(store, name).await.proven);
    let told = feed(store).await;
    let told = told.last().unwrap();
    assert_eq!((told.body.as_ref(), told.seq, told.previous), (None, begin, Some(last)));
    assert_eq!(store.ends(P, &[], None, Seq::ZERO).await.unwrap().top, begin);
}

async fn positions_told_without_an_event_are_remembered(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let name = "v:a:trades";
    let told = async || history(store, name).await.told.unwrap();
    let since = async || store.ends(P, &[], None, Seq::ZERO).await.unwrap().since;
    assert_eq!(told().await, since().await.before()..=since().await.before(), "as every channel");
    let first = term(store, name).await;
    store.publish(P, &claim, &writes(name, first, Some(0), 2)).await.unwrap();
    let last = first.next();
    let (one, two, three) = (last.plus(1000), last.plus(2000), last.plus(3000));
    store.mark(P, &claim, &[marker(name, one, Some(last))]).await.unwrap();
    assert_eq!(told().await, last..=one, "nothing lies between them");
    store.mark(P, &claim, &[marker(name, two, Some(last))]).await.unwrap();
    assert_eq!(told().await, last..=two);
    for not_a_proof in [None, Some(Seq::ZERO), Some(first)] {
        store.mark(P, &claim, &[marker(name, three, not_a_proof)]).await.unwrap();
        assert_eq!(told().await, three..=three, "{not_a_proof:?}");
    }
    // Somebody has seen more than this log holds: what it told lies below what counts.
    store.ends(P, &[], None, three.plus(1000)).await.unwrap();
    assert_eq!(told().await, since().await.before()..=since().await.before());
}

async fn appended_events_are_counted_on_and_not_repeated(log: Log) {
    let store = &*log.store;
    let [trace, another] = [7, 8].map(|id| TraceContext { trace_id: [id; 16], span_id: [9; 8] });
    let batch = [
        append("job:1", Some("x"), "one"),
        Append { trace: Some(trace), ..append("job:1", None, "two") },
        Append { trace: Some(another), ..append("job:1", Some("x"), "again") },
    ];
    let given = store.append(P, &batch, Seq::ZERO).await.unwrap();
    assert_eq!(given, vec![given[0], given[0].next(), given[0]], "one call sees its own events");
    let more = [append("job:1", Some("x"), "again"), append("job:2", Some("x"), "other channel, other id")];
    let later = store.append(P, &more, Seq::ZERO).await.unwrap();
    assert_eq!(later[0], given[0]);
    let range = history(store, "job:1").await;
    assert_eq!(positions(&range.entries), vec![given[0].get(), given[1].get()]);
    assert_eq!(range.entries[0].previous, Some(Seq::ZERO), "a new channel");
    assert_eq!(range.entries[1].previous, None);
    assert!(range.proven);
    let traces: Vec<_> = feed(store).await.iter().map(|entry| entry.trace).collect();
    assert_eq!(traces, [None, Some(trace), None], "one for each event that was added");
}

async fn ids_of_two_channels_never_meet(log: Log) {
    let store = &*log.store;
    let pairs = [("job:1", "2:x"), ("job:1:2", "x"), ("job:1", "2/x"), ("job:1:2", ":x"), ("job:1", "2::x")];
    let batch = pairs.map(|(name, id)| append(name, Some(id), "one"));
    store.append(P, &batch, Seq::ZERO).await.unwrap();
    assert_eq!(history(store, "job:1").await.entries.len(), 3);
    assert_eq!(history(store, "job:1:2").await.entries.len(), 2);
}

async fn a_position_seen_elsewhere_makes_ends_unproven(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let first = term(store, "job:1").await;
    store.publish(P, &claim, &writes("job:1", first, Some(0), 1)).await.unwrap();
    let seen = first.plus(500);
    let appended = store.append(P, &[append("job:1", None, "x")], seen).await.unwrap();
    assert!(appended[0] > seen, "a term of its own");
    let range = history(store, "job:1").await;
    assert_eq!(range.entries[1].previous, None, "nobody knows what lies before it");
    assert!(range.proven, "it was written to this very log");
    assert!(range.since > seen);
}

async fn ranges_are_what_was_asked_for(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let name = "v:a:trades";
    let empty = store.range(&channel(name), Select::Newest { limit: 3 }).await.unwrap();
    assert_eq!((empty.entries.len(), empty.first, empty.last, empty.proven), (0, None, None, false));
    let first = term(store, name).await;
    store.publish(P, &claim, &writes(name, first, Some(0), 10)).await.unwrap();
    let at = |n: u64| first.plus(n).get();
    for (select, expected) in [
        (Select::Above { after: Seq::ZERO, limit: 2 }, vec![at(0), at(1)]),
        (Select::Above { after: first.plus(7), limit: 100 }, vec![at(8), at(9)]),
        (Select::Above { after: first.plus(9), limit: 100 }, vec![]),
        (Select::Newest { limit: 3 }, vec![at(7), at(8), at(9)]),
        (Select::Newest { limit: 0 }, vec![]),
        (Select::Below { before: first.plus(7), limit: 3 }, vec![at(4), at(5), at(6)]),
        (Select::Below { before: first.next(), limit: 3 }, vec![at(0)]),
        (Select::Below { before: first, limit: 3 }, vec![]),
        (Select::At(first.plus(4)), vec![at(4)]),
        (Select::At(first.plus(10)), vec![]),
    ] {
        let range = store.range(&channel(name), select).await.unwrap();
        assert_eq!(positions(&range.entries), expected, "{select:?}");
        assert_eq!((range.first, range.last, range.length), (Some(first), Some(first.plus(9)), 10), "{select:?}");
    }
}

async fn a_range_goes_no_further_than_its_bytes(log: Log) {
    let store = &*log.store;
    let body = "x".repeat(RANGE_BYTES / 150);
    let events: Vec<_> = (0..200).map(|_| append("job:1", None, &body)).collect();
    let mut seqs = Vec::new();
    for part in events.chunks(20) {
        seqs.extend(store.append(P, part, Seq::ZERO).await.unwrap());
    }
    let read = async |select| store.range(&channel("job:1"), select).await.unwrap();
    let above = read(Select::Above { after: Seq::ZERO, limit: 8192 }).await;
    let newest = read(Select::Newest { limit: 8192 }).await;
    let below = read(Select::Below { before: seqs[180], limit: 8192 }).await;
    for range in [&above, &newest, &below] {
        assert!((150..=152).contains(&range.entries.len()), "{}", range.entries.len());
        assert_eq!((range.first, range.last), (Some(seqs[0]), Some(seqs[199])));
        assert!(range.entries.windows(2).all(|pair| pair[1].seq == pair[0].seq.next()));
    }
    assert_eq!(above.entries[0].seq, seqs[0]);
    assert_eq!(newest.entries.last().map(|entry| entry.seq), Some(seqs[199]));
    let rest = read(Select::Above { after: above.entries.last().unwrap().seq, limit: 8192 }).await;
    assert_eq!(above.entries.len() + rest.entries.len(), 200);
    assert_eq!(below.entries.last().map(|entry| entry.seq), Some(seqs[179]));
    assert_eq!([&above, &rest, &newest, &below].map(|range| range.rest), [200 - above.entries.len(), 0, 0, 20]);
}

async fn what_lies_above_a_range_is_counted_also_over_terms(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let (mut seqs, name) = (Vec::new(), "v:a:trades");
    for count in [3, 1, 40, 5] {
        let batch = writes(name, term(store, name).await, None, count);
        store.publish(P, &claim, &batch).await.unwrap();
        seqs.extend(batch.iter().map(|write| write.seq));
    }
    assert!(seqs[3].get() - seqs[2].get() > TERM_JUMP);
    for (from, limit) in [(0, 0), (0, 1), (0, 3), (1, 2), (0, 4), (3, 1), (2, 20), (4, 40), (4, 45), (48, 1)] {
        let after = seqs[from].before();
        let range = store.range(&channel(name), Select::Above { after, limit }).await.unwrap();
        let rest = if limit == 0 { 0 } else { 49 - from - range.entries.len() };
        assert_eq!(range.rest, rest, "{limit} from {from}");
    }
    let range = store.range(&channel(name), Select::Below { before: seqs[4], limit: 9 }).await.unwrap();
    assert_eq!((range.entries.len(), range.rest), (4, 45));
}

async fn history_keeps_what_its_kind_asks_for(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let first = term(store, "v:a:book").await;
    let keep = Kind::Book.history_len();
    for batch in writes("v:a:book", first, Some(0), 3 * keep as u64).chunks(100) {
        store.publish(P, &claim, batch).await.unwrap();
    }
    let range = history(store, "v:a:book").await;
    assert!(range.entries.len() >= keep && range.entries.len() < 2 * keep, "{} entries", range.entries.len());
    assert_eq!(range.first, range.entries.first().map(|entry| entry.seq));
}

async fn closed_candles_are_kept_once_and_in_order(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let candle = |name: &str, open_ms: u64, closed: bool| {
        let data = serde_json::json!({ "openTime": open_ms, "closed": closed });
        Body::render(1, "candle_update", &channel(name), Outcome::Ok, &data).unwrap().text().clone()
    };
    let first = term(store, "v:a:1m").await;
    let states = [(60, false), (60, true), (120, false), (120, true), (60, true), (180, true), (240, false)];
    let mut batch: Vec<_> = states
        .iter()
        .zip(writes("v:a:1m", first, Some(0), states.len() as u64))
        .map(|((open_ms, closed), write)| Write { body: candle("v:a:1m", *open_ms, *closed), ..write })
        .collect();
    batch.extend(writes("v:a:trades", first.plus(100), Some(0), 1));
    store.publish(P, &claim, &batch).await.unwrap();
    store.publish(P, &claim, &batch).await.unwrap();
    let opens = async |before, limit| {
        let candles = store.candles(&channel("v:a:1m"), before, limit).await.unwrap();
        candles.iter().map(|candle| candle.open_ms).collect::<Vec<_>>()
    };
    assert_eq!(opens(None, 10).await, vec![60, 120, 180], "what came again, too late or is open is not kept");
    assert_eq!(opens(None, 2).await, vec![120, 180]);
    assert_eq!(opens(Some(180), 10).await, vec![60, 120]);
    assert_eq!(opens(Some(181), 1).await, vec![180]);
    assert_eq!(opens(Some(60), 10).await, Vec::<u64>::new());
    assert_eq!(opens(Some(0), 10).await, Vec::<u64>::new());
    assert_eq!(store.candles(&channel("v:a:1m"), None, 1).await.unwrap()[0].body, batch[5].body);
    assert!(store.candles(&channel("v:a:trades"), None, 10).await.unwrap().is_empty());
    assert_eq!(history(store, "v:a:1m").await.entries.len(), states.len(), "history has all of it as before");

    let body = candle("desk:x:1m", 60, true);
    let events = [Append { body, ..append("desk:x:1m", Some("id"), "") }, append("job:1", None, "x")];
    store.append(P, &events, Seq::ZERO).await.unwrap();
    store.append(P, &events, Seq::ZERO).await.unwrap();
    let kept = store.candles(&channel("desk:x:1m"), None, 10).await.unwrap();
    assert_eq!(kept.iter().map(|candle| candle.open_ms).collect::<Vec<_>>(), vec![60], "those of applications too");

    let from = first.plus(1000);
    let more: Vec<_> = (0..2 * CANDLES_KEPT as u64)
        .zip(writes("v:a:1m", from, None, 2 * CANDLES_KEPT as u64))
        .map(|(n, write)| Write { body: candle("v:a:1m", 1000 + n, true), ..write })
        .collect();
    for part in more.chunks(500) {
        store.publish(P, &claim, part).await.unwrap();
    }
    let kept = opens(None, 10_000).await;
    assert!((CANDLES_KEPT..CANDLES_KEPT + 200).contains(&kept.len()), "{} candles", kept.len());
    assert_eq!(kept.last(), Some(&(1000 + 2 * CANDLES_KEPT as u64 - 1)));
}

async fn candles_of_the_past_are_put_where_they_belong(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let name = channel("v:a:1m");
    let stored = |open_ms: u64, body: &str| StoredCandle { open_ms, body: body.to_owned().into() };
    let keep = async |candles: &[StoredCandle]| store.keep_candles(P, &claim, &name, candles).await;
    let kept = async || store.candles(&name, None, 10_000).await.unwrap();
    let opens = async || kept().await.iter().map(|candle| candle.open_ms).collect::<Vec<_>>();
    keep(&[stored(120, "b"), stored(300, "e")]).await.unwrap();
    keep(&[stored(120, "other"), stored(300, "other"), stored(360, "f")]).await.unwrap();
    assert_eq!(opens().await, vec![120, 300, 360]);
    keep(&[stored(60, "a"), stored(120, "other"), stored(180, "c"), stored(420, "g")]).await.unwrap();
    assert_eq!(opens().await, vec![60, 120, 180, 300, 360, 420]);
    let bodies: Vec<_> = kept().await.iter().map(|candle| candle.body.clone()).collect();
    assert_eq!(bodies, ["a", "b", "c", "e", "f", "g"], "what is kept stays as it is");
    assert!(history(store, "v:a:1m").await.entries.is_empty(), "no event comes of it");

    let many: Vec<_> = (0..CANDLES_KEPT as u64).map(|n| stored(1_000 + n, "m")).collect();
    for part in many.chunks(500) {
        keep(part).await.unwrap();
    }
    assert!((CANDLES_KEPT..CANDLES_KEPT + 200).contains(&opens().await.len()));
    let fenced = Claim { fence: Fence { number: 1, owner: "nobody".into() }, ..claim.clone() };
    let refused = store.keep_candles(P, &fenced, &name, &[stored(9_000, "x")]).await;
    assert_eq!(refused, Err(StoreError::Fenced));
}

async fn channels_that_exist_are_listed(log: Log) {
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let body = |name: &str, event: &str, ts_ms: i64| {
        Body::render(ts_ms, event, &channel(name), Outcome::Ok, &serde_json::json!({})).unwrap().text().clone()
    };
    let first = term(store, "v:a:trades").await;
    let batch: Vec<_> = writes("v:a:trades", first, Some(0), 2)
        .into_iter()
        .map(|write| Write { body: body("v:a:trades", "trade", 7), ..write })
        .collect();
    store.publish(P, &claim, &batch).await.unwrap();
    for n in 0..600 {
        let name = format!("job:{n:03}");
        let event = Append { body: body(&name, "job \"x\"", n), ..append(&name, None, "") };
        store.append(P, &[event], Seq::ZERO).await.unwrap();
    }
    store.append(P, &[append("bad:1", None, "no event")], Seq::ZERO).await.unwrap();
    store.mark(P, &claim, &[marker("v:b:trades", first, None)]).await.unwrap();

    let all = store.channels("").await.unwrap();
    assert_eq!(all.len(), 601, "those with an event that can be read");
    assert!(all.is_sorted_by_key(|head| head.channel.clone()));
    let trades = store.channels("v:").await.unwrap();
    let expected =
        ChannelHead { channel: channel("v:a:trades"), seq: first.next(), ts_ms: 7, event: "trade".to_owned() };
    assert_eq!(trades, vec![expected]);
    let jobs = store.channels("job:59").await.unwrap();
    assert_eq!(jobs.len(), 10);
    assert_eq!((jobs[9].ts_ms, jobs[9].event.as_str()), (599, "job \"x\""));
    assert!(store.channels("job:*").await.unwrap().is_empty(), "a prefix is no pattern");
}

async fn a_lease_has_one_holder(log: Log) {
    let store = &*log.store;
    let ttl = Duration::from_millis(300);
    let mut number = 0;
    // A log seen for the first time may have had a holder.
    wait_until(SECONDS, "the lease is taken", async || {
        match store.take_lease("venue", "a", ttl, Hearing::Unknown).await {
            Ok(lease) => {
                number = lease.number;
                true
            }
            Err(error) => {
                assert_eq!(error, StoreError::Held { by_another: false });
                false
            }
        }
    })
    .await
    .unwrap();
    let held = Err(StoreError::Held { by_another: true });
    assert_eq!(store.take_lease("venue", "b", ttl, Hearing::Unknown).await, held);
    assert_eq!(store.renew_lease("venue", "b", ttl, Hearing::Unknown).await, held);
    store.release_lease("venue", "b").await.unwrap();
    assert_eq!(store.renew_lease("venue", "a", ttl, Hearing::Unknown).await.unwrap().number, number);
    store.release_lease("venue", "a").await.unwrap();
    let free = Err(StoreError::Held { by_another: false });
    assert_eq!(store.renew_lease("venue", "a", ttl, Hearing::Unknown).await, free, "given back");
    let next = store.take_lease("venue", "b", ttl, Hearing::Unknown).await.unwrap();
    assert!(next.continues, "it was handed over");
    assert!(next.number > number);
    let mut continues = true;
    wait_until(SECONDS, "the lease runs out", async || {
        match store.take_lease("venue", "a", ttl, Hearing::Unknown).await {
            Ok(lease) => {
                continues = lease.continues;
                true
            }
            Err(_) => false,
        }
    })
    .await
    .unwrap();
    assert!(!continues, "its holder vanished");
}

async fn a_lease_that_is_taken_twice_says_who_had_it_before_its_owner(log: Log) {
    let store = &*log.store;
    let ttl = Duration::from_millis(50);
    let take = async |owner: &str| {
        let mut taken = None;
        wait_until(SECONDS, "the lease is taken", async || {
            taken = store.take_lease("venue", owner, ttl, Hearing::Unknown).await.ok();
            taken.is_some()
        })
        .await
        .unwrap();
        taken.unwrap()
    };
    let first = take("a").await;
    assert!(first.continues && first.before == 0, "nobody had it");
    let [unheard, heard] = [take("b").await, take("b").await];
    assert!(heard.number > unheard.number);
    for lease in [unheard, heard] {
        assert!(!lease.continues, "its holder vanished, whoever heard that it could be had");
        assert_eq!(lease.before, first.number);
    }
    let again = take("a").await;
    assert!(!again.continues && again.before > first.number, "another one had it in between");
    assert_eq!(take("a").await.before, again.before, "nobody had it in between");
}

async fn who_is_deaf_leaves_the_lease_to_who_hears(log: Log) {
    let store = &*log.store;
    let (ttl, long) = (Duration::from_secs(2), Duration::from_secs(60));
    let (now, for_long) = (Hearing::Hears(Duration::ZERO), Hearing::Deaf(long));
    wait_until(SECONDS, "the lease is taken", async || {
        store.take_lease("venue", "a", ttl, Hearing::Unknown).await.is_ok()
    })
    .await
    .unwrap();
    store.renew_lease("venue", "a", ttl, for_long).await.expect("nobody is there to hear");

    let held = Err(StoreError::Held { by_another: true });
    for nothing_new in [Hearing::Unknown, for_long, Hearing::Hears(long)] {
        assert_eq!(store.take_lease("venue", "b", ttl, nothing_new).await, held);
        store.renew_lease("venue", "a", ttl, for_long).await.expect("the other one has not heard lately");
    }
    assert_eq!(store.take_lease("venue", "b", ttl, now).await, held);
    for unchanged in [Hearing::Unknown, now, Hearing::Deaf(Duration::from_millis(900))] {
        store.renew_lease("venue", "a", ttl, unchanged).await.expect("it has heard as much");
    }
    let left = Err(StoreError::HeardElsewhere);
    assert_eq!(store.renew_lease("venue", "a", ttl, for_long).await, left);
    assert_eq!(store.take_lease("venue", "a", ttl, for_long).await, left, "nor does it take it again");
    let taken = store.take_lease("venue", "b", ttl, now).await.unwrap();
    assert!(!taken.continues, "what the deaf one missed is missing");

    // Nobody is waited for longer than a lease lasts.
    store.release_lease("venue", "b").await.unwrap();
    let ttl = Duration::from_millis(1);
    wait_until(SECONDS, "the deaf one takes it", async || store.take_lease("venue", "a", ttl, for_long).await.is_ok())
        .await
        .unwrap();
}

async fn a_feed_begins_where_it_is_told(log: Log) {
    let store = &*log.store;
    for n in 0..4 {
        store.append(P, &[append("job:1", None, &n.to_string())], Seq::ZERO).await.unwrap();
    }
    let all = feed(store).await;
    let wait = Duration::from_millis(50);
    let mut behind = store.open_feed(P, "gw", 1, FeedStart::Behind(all[1].id)).await.unwrap();
    assert_eq!(behind.next(wait).await.unwrap().entries, all[2..]);
    let mut back = store.open_feed(P, "gw", 2, FeedStart::Back(Duration::from_secs(60))).await.unwrap();
    assert_eq!(back.next(wait).await.unwrap().entries, all);
    let mut future = store.open_feed(P, "gw2", 1, FeedStart::Behind(FeedId { ms: u64::MAX >> 1, n: 0 })).await.unwrap();
    let batch = future.next(wait).await.unwrap();
    assert!(batch.entries.is_empty());
    assert_eq!(batch.check.unwrap().1.id, all[3].id, "the end shows that the reader is ahead of it");
}

async fn an_idle_feed_says_where_it_ends(log: Log) {
    let store = &*log.store;
    let mut reader = store.open_feed(P, "gw", 1, FeedStart::Behind(FeedId::default())).await.unwrap();
    let wait = Duration::from_millis(10);
    let (identity, end) = reader.next(wait).await.unwrap().check.unwrap();
    assert_eq!((end.id, end.number), (FeedId::default(), 0));
    assert_eq!(store.ends(P, &[], None, Seq::ZERO).await.unwrap().identity, identity);
    let events = [append("job:1", None, "x")];
    let (batch, written) = tokio::join!(reader.next(SECONDS), store.append(P, &events, Seq::ZERO));
    assert_eq!(batch.unwrap().entries[0].seq, written.unwrap()[0], "a waiting reader is woken");
    let (_, end) = reader.next(wait).await.unwrap().check.unwrap();
    assert_eq!(end.number, 1);
}
