//! A server of key sets whose answers tests choose.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::routing::get;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the server answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A key set with these keys, by `kid` and name in `fixtures/keys/jwk.json`.
    Keys(Vec<(&'static str, &'static str)>),
    /// These bytes, as JSON.
    Bytes(Vec<u8>),
    /// A key set that claims to be HTML.
    WrongType,
    /// To be found elsewhere on this server.
    Redirect,
    /// An error.
    Status(u16),
    /// The head, and then nothing.
    Hang,
}

pub(crate) struct KeyServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
    followed: AtomicUsize,
}

impl KeyServer {
    pub(crate) async fn start(answer: Answer) -> Self {
        let shared =
            Arc::new(Shared { answer: Mutex::new(answer), asked: AtomicUsize::new(0), followed: AtomicUsize::new(0) });
        let router = Router::new()
            .route("/keys", get(answer_keys))
            .route("/elsewhere", get(answer_elsewhere))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// How often the set was asked for.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// How often a redirect was followed.
    pub(crate) fn followed(&self) -> usize {
        self.shared.followed.load(Ordering::SeqCst)
    }

    /// Ends the server, and with it its open connections.
    pub(crate) async fn stop(self) {
        self.serving.abort();
        assert!(self.serving.await.unwrap_err().is_cancelled());
    }
}

fn key_set(keys: &[(&str, &str)]) -> String {
    let known: Value = serde_json::from_str(include_str!("../../fixtures/keys/jwk.json")).unwrap();
    let member = |(kid, name): &(&str, &str)| {
        let mut jwk = known[*name].clone();
        jwk["kid"] = (*kid).into();
        jwk
    };
    json!({ "keys": keys.iter().map(member).collect::<Vec<_>>() }).to_string()
}

async fn answer_keys(State(shared): State<Arc<Shared>>) -> Response<Body> {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let answer = shared.answer.lock().unwrap().clone();
    let json = Response::builder().header("content-type", "application/json");
    match answer {
        Answer::Keys(keys) => json.body(key_set(&keys).into()).unwrap(),
        Answer::Bytes(bytes) => json.body(bytes.into()).unwrap(),
        Answer::WrongType => {
            Response::builder().header("content-type", "text/html").body("{\"keys\":[]}".into()).unwrap()
        }
        Answer::Redirect => {
            Response::builder().status(302).header("location", "/elsewhere").body(Body::empty()).unwrap()
        }
        Answer::Status(status) => {
            Response::builder().status(StatusCode::from_u16(status).unwrap()).body("{\"keys\":[]}".into()).unwrap()
        }
        Answer::Hang => json.body(Body::from_stream(stream::pending::<Result<String, std::io::Error>>())).unwrap(),
    }
}

async fn answer_elsewhere(State(shared): State<Arc<Shared>>) -> Response<Body> {
    shared.followed.fetch_add(1, Ordering::SeqCst);
    Response::builder().header("content-type", "application/json").body(key_set(&[("k2", "rsa-other")]).into()).unwrap()
}
