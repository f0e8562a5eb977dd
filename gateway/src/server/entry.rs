//! Lets a request in, whatever it asks for: its place, its token, its subject's place.

use akis_model::ErrorCode;
use axum::http::StatusCode;
use axum::http::request::Parts;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::admission::{Denial, Place, Seat, SubjectPlace};
use super::upgrade::authorize_request;
use super::{App, Remote};
use crate::auth::Grant;
use crate::clock::Now;
use crate::problem::Problem;

/// A request that was let in. Gives its places back when dropped.
pub(crate) struct Visitor {
    /// What its token gives.
    pub(crate) grant: Grant,
    place: Place,
    subject_place: SubjectPlace,
}

impl Visitor {
    /// Gives what a socket takes along: its places, and a token that it is served.
    pub(super) fn into_seat(self, served: TaskTrackerToken) -> (Grant, Seat) {
        (self.grant, Seat::new(self.place, self.subject_place, served))
    }
}

/// Lets a request in, or says why not.
///
/// # Errors
///
/// The [`Problem`] that the client is answered with.
pub(crate) fn admit(app: &App, head: &Parts, now: Now) -> Result<Visitor, Problem> {
    let metrics = &app.context.surroundings.metrics;
    let deny = |denial: Denial| {
        metrics.refused(denial.as_str());
        Problem::from(denial)
    };
    let Some(Remote(remote)) = head.extensions.get().copied() else {
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::InternalError, "no remote address"));
    };
    let place = app.admissions.enter(remote.ip(), &head.headers, now.instant).map_err(deny)?;
    let grant = authorize_request(app, &head.headers, &head.uri, now).inspect_err(|_| metrics.refused("token"))?;
    let subject_place = app.admissions.enter_subject(&grant.subject).map_err(deny)?;
    Ok(Visitor { grant, place, subject_place })
}

/// Lets a request in that will be served for long.
///
/// # Errors
///
/// As [`admit`], and when this replica is going away.
pub(crate) fn admit_to_stay(app: &App, head: &Parts, now: Now) -> Result<Visitor, Problem> {
    if app.context.drain.is_cancelled() {
        app.context.surroundings.metrics.refused(Denial::Draining.as_str());
        return Err(Problem::from(Denial::Draining));
    }
    admit(app, head, now)
}
