//! SoupBinTCP: connections that end, logins that are refused, sessions that are gone.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_day_comes_once_and_in_order_over_broken_connections() {
    let sim = Sim::days(12.0).await;
    // The stand-in cuts every client, so the other reader begins when that is over; it still gets everything.
    let mut session = Session::start(sim.soup());
    session.until(|heard| heard.count() > 100).await;
    for fault in [
        json!({ "fault": "cut" }),
        json!({ "fault": "half_message" }),
        json!({ "fault": "refuse_login", "times": 1, "reason": "not_authorised" }),
        json!({ "fault": "cut" }),
    ] {
        let (live, is_refusal) = (session.heard.live.len(), fault["fault"] == "refuse_login");
        sim.fault(fault).await;
        if !is_refusal {
            // Messages of the connection before may still be on their way: only the next one has taken the refusal.
            session.until(|heard| heard.live.len() > live).await;
        }
    }
    let ((), all) = tokio::join!(session.until(|heard| heard.ended), sim.messages());
    assert!(session.heard.first_day() == all, "{}", session.heard.summary());
    assert_eq!(session.heard.lost, 0);
    assert!(session.heard.live.len() >= 4, "{:?}", session.heard.live);
    assert!(session.stats.lost.get() >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_tried_again_and_says_nothing_meanwhile() {
    let sim = Sim::start(generated(), Day::Present).await;
    sim.fault(json!({ "fault": "refuse_login", "times": 3, "reason": "not_authorised" })).await;
    let mut session = Session::start(sim.soup());
    session.until(|heard| heard.count() > 50).await;
    assert!(session.heard.closed.is_empty());
    assert!(session.heard.live[0] >= 4, "three connections came to nothing: {:?}", session.heard.live);
    assert_eq!(session.stats.opened.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_gone_gives_way_to_the_one_that_runs() {
    let sim = Sim::start(generated(), Day::Present).await;
    let mut session = Session::start(sim.soup());
    session.until(|heard| heard.count() > 50).await;
    sim.fault(json!({ "fault": "new_session" })).await;
    session.until(|heard| heard.days.len() == 2 && heard.days[1].1.len() > 50).await;
    assert!(session.heard.days[1].1.contains_key(&1), "from its first message");
    // Told wrongly that its session is not there, it finds it again and brings nothing twice.
    sim.fault(json!({ "fault": "refuse_login", "times": 1, "reason": "no_session" })).await;
    sim.fault(json!({ "fault": "cut" })).await;
    let (count, closed) = (session.heard.count(), session.heard.closed.len());
    session.until(|heard| heard.closed.len() > closed && heard.count() > count + 100).await;
    assert_eq!((session.heard.days.len(), session.heard.lost), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_given_up_after_three_seconds() {
    let sim = Sim::start(generated(), Day::Present).await;
    let mut session = Session::start(sim.soup());
    session.until(|heard| heard.count() > 50).await;
    sim.fault(json!({ "fault": "silence", "ms": 3_500 })).await;
    session.until(|heard| !heard.closed.is_empty()).await;
    let count = session.heard.count();
    session.until(|heard| heard.count() > count + 50).await;
    assert_eq!(session.heard.lost, 0);
}
