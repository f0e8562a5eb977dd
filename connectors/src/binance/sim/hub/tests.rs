use super::*;

fn client(queue_frames: usize, combined: bool) -> (Client, mpsc::Receiver<Outgoing>, CancellationToken) {
    let (queue, frames) = mpsc::channel(queue_frames);
    let cut = CancellationToken::new();
    (Client { combined, queue, cut: cut.clone(), streams: Vec::new(), route: Route::All }, frames, cut)
}

fn diff(data: &str) -> Frame<'_> {
    Frame { stream: "btcusdt@depth", symbol: "BTCUSDT", is_diff: true, data: data.into(), wrapped: None }
}

fn texts(frames: &mut mpsc::Receiver<Outgoing>) -> Vec<String> {
    let text = |outgoing| match outgoing {
        Outgoing::Text(text) => text.to_string(),
        Outgoing::Half(text) => format!("half of {text}"),
        Outgoing::Close(code, reason) => format!("close {code} {reason}"),
    };
    std::iter::from_fn(|| frames.try_recv().ok()).map(text).collect()
}

#[test]
fn a_slow_client_is_cut_and_others_keep_up() {
    let mut hub = Hub::default();
    let (slow, mut slow_frames, slow_cut) = client(2, false);
    let (quick, mut quick_frames, quick_cut) = client(10, true);
    hub.join(1, slow, vec!["btcusdt@depth".into()]);
    hub.join(2, quick, vec!["btcusdt@depth".into()]);
    for n in 0..5 {
        hub.publish(diff(&n.to_string()));
    }
    assert!(slow_cut.is_cancelled() && !quick_cut.is_cancelled());
    assert_eq!(texts(&mut slow_frames), ["0", "1"]);
    let wrapped = |n| format!(r#"{{"stream":"btcusdt@depth","data":{n}}}"#);
    assert_eq!(texts(&mut quick_frames), (0..5).map(wrapped).collect::<Vec<_>>());
}

#[test]
fn streams_end_with_their_last_reader() {
    let mut hub = Hub::default();
    let (one, mut frames, _) = client(10, false);
    hub.join(1, one, vec!["btcusdt@depth".into()]);
    hub.control(1, r#"{"method":"SUBSCRIBE","params":["btcusdt@depth","a","a"],"id":1}"#);
    hub.control(1, r#"{"method":"LIST_SUBSCRIPTIONS","id":2}"#);
    hub.control(1, r#"{"method":"UNSUBSCRIBE","params":["btcusdt@depth","never"],"id":3}"#);
    assert_eq!(
        texts(&mut frames),
        [r#"{"result":null,"id":1}"#, r#"{"result":["btcusdt@depth","a"],"id":2}"#, r#"{"result":null,"id":3}"#,]
    );
    assert!(!hub.wants("btcusdt@depth") && hub.wants("a"));
    hub.leave(1);
    assert!(!hub.has_readers());
}

#[test]
fn the_1025th_stream_costs_all_of_them() {
    let mut hub = Hub::default();
    let (one, mut frames, _) = client(10, false);
    hub.join(1, one, (0..1024).map(|n| n.to_string()).collect());
    hub.control(1, r#"{"method":"SUBSCRIBE","params":["7"],"id":1}"#);
    hub.control(1, r#"{"method":"SUBSCRIBE","params":["one more"],"id":2}"#);
    assert_eq!(
        texts(&mut frames),
        [
            r#"{"result":null,"id":1}"#,
            r#"{"code":4,"id":2,"msg":"Too many subscriptions"}"#,
            "close 1008 Invalid request",
        ]
    );
    assert!(!hub.has_readers());
}

#[test]
fn pending_faults_wait_for_a_diff_of_their_symbol() {
    let mut hub = Hub::default();
    let (one, mut frames, _) = client(10, false);
    hub.join(1, one, vec!["btcusdt@depth".into(), "btcusdt@trade".into()]);
    hub.faults.once(Once::DropDiff, "BTCUSDT".into());
    hub.publish(Frame { stream: "btcusdt@trade", is_diff: false, ..diff("trade") });
    hub.publish(diff("dropped"));
    hub.faults.once(Once::Duplicate, "BTCUSDT".into());
    hub.publish(diff("twice"));
    hub.faults.silence(5, Some("BTCUSDT".into()));
    hub.publish(diff("silent"));
    hub.now = 5;
    hub.publish(diff("after"));
    hub.faults.silence(6, None);
    hub.publish(diff("silent"));
    assert_eq!(texts(&mut frames), ["trade", "twice", "twice", "after"]);
    hub.now = 6;
    hub.faults.once(Once::Reorder, "BTCUSDT".into());
    hub.publish(diff("late"));
    hub.publish(diff("early"));
    assert_eq!(texts(&mut frames), ["early", "late"]);
    hub.faults.delay(8, Some("BTCUSDT".into()));
    hub.publish(diff("held"));
    hub.publish(diff("held too"));
    hub.release();
    assert!(texts(&mut frames).is_empty());
    hub.now = 8;
    hub.release();
    hub.publish(diff("now"));
    assert_eq!(texts(&mut frames), ["held", "held too", "now"]);
}

#[test]
fn a_stream_that_has_stopped_goes_on_when_it_is_asked_for_again() {
    let mut hub = Hub::default();
    let (one, mut frames, _) = client(10, false);
    hub.join(1, one, vec!["btcusdt@depth".into(), "btcusdt@trade".into()]);
    hub.stall("btcusdt@depth".into());
    hub.publish(diff("lost"));
    hub.publish(Frame { stream: "btcusdt@trade", is_diff: false, ..diff("trade") });
    hub.control(1, r#"{"method":"SUBSCRIBE","params":["btcusdt@depth"],"id":1}"#);
    hub.publish(diff("lost: it is subscribed already"));
    hub.control(1, r#"{"method":"UNSUBSCRIBE","params":["btcusdt@depth"],"id":2}"#);
    hub.control(1, r#"{"method":"SUBSCRIBE","params":["btcusdt@depth"],"id":3}"#);
    hub.publish(diff("again"));
    let mut heard = texts(&mut frames);
    heard.retain(|text| !text.contains("result"));
    assert_eq!(heard, ["trade", "again"]);
}
