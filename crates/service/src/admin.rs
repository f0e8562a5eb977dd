//! The admin port: liveness, readiness, metrics, drain. Has no authentication, so it listens on loopback unless told
//! otherwise.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prometheus::TextEncoder;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::openmetrics;
use crate::telemetry::Telemetry;

/// Says whether this process can do its work, or why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the admin port shows and does.
#[derive(Clone)]
pub struct Admin {
    /// Behind `/metrics`.
    pub telemetry: Telemetry,
    /// Behind `/readyz`.
    pub readiness: Readiness,
    /// Behind `POST /drain`.
    pub drain: Drain,
}

/// An orderly stop: who wants one asks, who does it tells when it is done.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// Cancelled: stop in order.
    pub start: CancellationToken,
    /// Cancelled: it is done.
    pub done: CancellationToken,
}

/// Serves the admin port until `stop`, and answers what is under way before it returns.
///
/// # Errors
///
/// When the listener fails.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) -> anyhow::Result<()> {
    axum::serve(listener, router(admin)).with_graceful_shutdown(stop.cancelled_owned()).await?;
    Ok(())
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/drain", post(drain))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match (admin.readiness)() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let Telemetry { registry, tracer } = &admin.telemetry;
    if openmetrics::is_asked_for(&headers) {
        let text = openmetrics::render(&registry.gather(), &tracer.exemplars());
        return ([(header::CONTENT_TYPE, openmetrics::CONTENT_TYPE)], text).into_response();
    }
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Answers when the drain is done. A page in somebody's browser can reach loopback too, but cannot hide its `Origin`.
async fn drain(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "not from a browser\n").into_response();
    }
    admin.drain.start.cancel();
    admin.drain.done.cancelled().await;
    "drained\n".into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::process::ProcessMetrics;

    fn app(readiness: Result<(), String>) -> (Router, Drain) {
        let telemetry = Telemetry::default();
        ProcessMetrics::register(&telemetry.registry).unwrap();
        let drain = Drain::default();
        let admin = Admin { telemetry, readiness: Arc::new(move || readiness.clone()), drain: drain.clone() };
        (router(admin), drain)
    }

    async fn ask(app: &Router, request: Request<Body>) -> (u16, String) {
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn get(path: &str) -> Request<Body> {
        Request::get(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn liveness_readiness_and_metrics() {
        let (app, _) = app(Err("the log is away".to_owned()));
        assert_eq!(ask(&app, get("/livez")).await, (200, "alive\n".to_owned()));
        assert_eq!(ask(&app, get("/readyz")).await, (503, "the log is away\n".to_owned()));
        let (status, text) = ask(&app, get("/metrics")).await;
        assert_eq!(status, 200);
        assert!(text.contains("process_resident_memory_bytes") && !text.contains("# EOF"), "{text}");
        let open = Request::get("/metrics").header("accept", "application/openmetrics-text;version=1.0.0,*/*;q=0.1");
        let (status, text) = ask(&app, open.body(Body::empty()).unwrap()).await;
        assert_eq!(status, 200);
        assert!(text.contains("process_resident_memory_bytes") && text.ends_with("# EOF\n"), "{text}");
        assert_eq!(ask(&app, get("/drain")).await.0, 405);
    }

    #[tokio::test]
    async fn drain_answers_when_it_is_done() {
        let (app, drain) = app(Ok(()));
        let post = || Request::post("/drain");
        let from_a_page = post().header("origin", "https://evil.example").body(Body::empty()).unwrap();
        assert_eq!(ask(&app, from_a_page).await.0, 403);
        assert!(!drain.start.is_cancelled());
        let worker = drain.clone();
        let role = tokio::spawn(async move {
            worker.start.cancelled().await;
            worker.done.cancel();
        });
        assert_eq!(ask(&app, post().body(Body::empty()).unwrap()).await, (200, "drained\n".to_owned()));
        role.await.unwrap();
    }
}
