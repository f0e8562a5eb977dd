//! GLIMPSE: snapshots when something is lost for good.

use super::*;

/// Loses messages on both lines while the rewinder does not answer.
async fn lose(sim: &Sim) {
    sim.fault(json!({ "fault": "rewinder_loss", "requests": 8 })).await;
    sim.fault(json!({ "fault": "loss", "line": "both", "packets": 2 })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_told_and_followed_by_a_snapshot_from_behind_it() {
    let sim = Sim::start(generated(), Day::Present).await;
    let mut session = Session::start(sim.mold());
    session.until(|heard| heard.count() > 100).await;
    lose(&sim).await;
    session.until(|heard| heard.lost > 0).await;
    let behind = *session.heard.days[0].1.last_key_value().unwrap().0;
    session.until(|heard| heard.closed.iter().any(|(_, code)| *code == 1000)).await;
    let (connection, _) = session.heard.closed[0];
    let goes_on_at = session.heard.goes_on_at(connection).expect("a whole snapshot");
    assert!(goes_on_at > behind - 100, "{goes_on_at} is behind the loss before {behind}");
    session.until(|heard| heard.days[0].1.contains_key(&goes_on_at)).await;
    assert!(session.heard.snapshots[&connection].starts_with(&[0, 31, b'A']), "from the accepted login on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_dies_or_is_refused_is_taken_again() {
    let sim = Sim::start(generated(), Day::Present).await;
    let mut session = Session::start(sim.mold());
    session.until(|heard| heard.count() > 100).await;
    sim.fault(json!({ "fault": "refuse_login", "times": 1, "reason": "not_authorised" })).await;
    sim.fault(json!({ "fault": "glimpse_dies", "times": 1, "messages": 9 })).await;
    lose(&sim).await;
    session.until(|heard| heard.closed.len() == 2).await;
    let [(dead, dead_code), (whole, whole_code)] = session.heard.closed[..] else { panic!("two snapshots") };
    assert_eq!((dead_code, whole_code), (1006, 1000));
    assert_eq!(session.heard.goes_on_at(dead), None);
    assert!(session.heard.goes_on_at(whole).is_some());
    assert!(session.stats.refused.get() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_can_be_asked_for() {
    let sim = Sim::start(generated(), Day::Present).await;
    let mut session = Session::start(sim.mold());
    session.until(|heard| heard.count() > 100).await;
    for symbol in ["THYAO", "GARAN"] {
        session.requests.send(Request::Book { symbol: symbol.into() }).await.unwrap();
    }
    session.until(|heard| !heard.closed.is_empty()).await;
    assert!(session.heard.goes_on_at(session.heard.closed[0].0).is_some());
    assert_eq!(session.heard.lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_comes_byte_by_byte_holds_up_nothing() {
    let sim = Sim::start(generated(), Day::Present).await;
    let mut session = Session::start(sim.mold());
    session.until(|heard| heard.count() > 100).await;
    sim.fault(json!({ "fault": "slow_loris", "times": 1 })).await;
    session.requests.send(Request::Book { symbol: "THYAO".into() }).await.unwrap();
    session.until(|heard| !heard.snapshots.is_empty()).await;
    let count = session.heard.count();
    session.until(|heard| heard.count() > count + 400).await;
    let bytes: usize = session.heard.snapshots.values().map(Vec::len).sum();
    assert!(session.heard.closed.is_empty() && bytes < 200, "{bytes} bytes of it in a second");
    assert_eq!(session.heard.lost, 0);
}
