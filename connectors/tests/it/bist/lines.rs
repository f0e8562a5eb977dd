//! MoldUDP64: what happens to lines and to the rewinder.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_day_comes_once_and_in_order_whatever_happens_to_the_lines() {
    let sim = Sim::days(8.0).await;
    let mut session = Session::start(sim.mold());
    let faults = async {
        for line in ["a", "b", "both"].repeat(3) {
            for fault in [
                json!({ "fault": "loss", "line": line, "packets": 3 }),
                json!({ "fault": "duplicate", "line": line, "packets": 3 }),
                json!({ "fault": "reorder", "line": line, "packets": 4 }),
                json!({ "fault": "delay", "line": line, "packets": 3, "ms": 60 }),
                json!({ "fault": "half_packet", "line": line }),
                json!({ "fault": "wrong_sequence", "line": line }),
                json!({ "fault": "wrong_session", "line": line }),
                json!({ "fault": "silence", "line": line, "ms": 40 }),
                json!({ "fault": "rewinder_loss", "requests": 2 }),
            ] {
                sim.fault(fault).await;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }
    };
    let ((), (), all) = tokio::join!(faults, session.until(|heard| heard.ended), sim.messages());
    assert_eq!(session.heard.lost, 0);
    assert!(all.len() > 2_000, "{}", all.len());
    assert!(session.heard.first_day() == all, "each message once and in order: {}", session.heard.summary());
    assert!(session.stats.requests.get() > 0, "the rewinder was asked");
    assert!(session.stats.malformed.get() > 0, "halves of packets are counted");
    assert!(session.stats.other_session.get() > 0, "packets of other sessions are counted");
    assert!(session.heard.snapshots.is_empty(), "nothing was lost, so no snapshot is needed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_late_gets_the_beginning_from_the_rewinder() {
    let sim = Sim::days(6.0).await;
    let mut early = Session::start(sim.mold());
    early.until(|heard| heard.count() > 500).await;
    early.stop().await;
    let mut session = Session::start(sim.mold());
    let ((), all) = tokio::join!(session.until(|heard| heard.ended), sim.messages());
    assert!(session.heard.first_day() == all, "{}", session.heard.summary());
    assert_eq!(session.heard.lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_of_both_lines_is_told_and_what_came_meanwhile_is_fetched() {
    let sim = Sim::start(generated(), Day::Present).await;
    let mut session = Session::start(sim.mold());
    session.until(|heard| heard.count() > 100).await;
    sim.fault(json!({ "fault": "silence", "line": "both", "ms": 4_000 })).await;
    // The first packet after it belongs to nobody.
    sim.fault(json!({ "fault": "wrong_session", "line": "both" })).await;
    session.until(|heard| !heard.closed.is_empty()).await;
    let (first, count) = (session.heard.live[0], session.heard.count());
    assert_eq!(session.heard.closed, [(first, 1006)]);
    assert_eq!((session.stats.open.get(), session.stats.lost.get()), (0, 1));
    session.until(|heard| heard.count() > count + 100).await;
    assert_eq!(session.heard.live.len(), 2, "it is another connection now");
    assert_eq!((session.heard.lost, session.heard.days.len()), (0, 1));
    assert_eq!(session.stats.other_session.get(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_line_is_enough() {
    let sim = Sim::start(generated(), Day::Present).await;
    for left in ["a", "b"] {
        let silent = if left == "a" { "b" } else { "a" };
        sim.fault(json!({ "fault": "silence", "line": silent, "ms": 600_000 })).await;
        sim.fault(json!({ "fault": "silence", "line": left, "ms": 0 })).await;
        let mut session = Session::start(sim.mold());
        session.until(|heard| heard.count() > 300).await;
        assert_eq!((session.heard.lost, session.heard.closed.len()), (0, 0), "{left}");
        session.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_session_follows_the_end_of_the_first() {
    let sim = Sim::start(generated(), Day::Present).await;
    let mut session = Session::start(sim.mold());
    session.until(|heard| heard.count() > 50).await;
    sim.fault(json!({ "fault": "new_session" })).await;
    session.until(|heard| heard.ended).await;
    session.until(|heard| heard.days.len() == 2 && heard.days[1].1.len() > 50).await;
    assert!(session.heard.days.iter().all(|(_, messages)| messages.contains_key(&1)), "both from their first message");
    assert_eq!(session.heard.lost, 0);
}

#[tokio::test]
async fn faults_that_cannot_be_are_refused_and_checks_are_answered() {
    let sim = Sim::start(generated(), Day::Present).await;
    let ready = sim.http.get(format!("http://{}/readyz", sim.at.control)).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    for fault in [json!({ "fault": "no_such" }), json!({ "fault": "loss", "line": "c", "packets": 1 }), json!("x")] {
        assert_eq!(sim.fault_status(&fault).await, 400, "{fault}");
    }
}
