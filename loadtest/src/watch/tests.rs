//! Clients of a watch against a scripted server.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::wire::server_frame;

const SOON: Duration = Duration::from_secs(10);

/// The side of the gateway.
struct Server(TcpStream);

impl Server {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        let mut server = Self(stream);
        server.hear("\r\n\r\n").await;
        server.0.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
        server
    }

    /// Reads until the client has said this, and gives all that it said.
    async fn hear(&mut self, wanted: &str) -> String {
        let mut heard = Vec::new();
        let wanted = wanted.as_bytes();
        while !heard.windows(wanted.len()).any(|window| window == wanted) {
            let read = timeout(SOON, self.0.read_buf(&mut heard)).await.unwrap().unwrap();
            assert!(read > 0, "ended after {}", String::from_utf8_lossy(&heard));
        }
        String::from_utf8_lossy(&heard).into_owned()
    }

    async fn say(&mut self, event: &str, channel: &str, seq: u64, data: &Value) {
        let text =
            format!(r#"{{"v":1,"seq":{seq},"ts":1,"event":"{event}","channel":"{channel}","ok":true,"data":{data}}}"#);
        self.0.write_all(&server_frame(text.as_bytes())).await.unwrap();
    }
}

/// Runs a script beside one client, and gives what was reported of it.
async fn watch(script: impl AsyncFnOnce(TcpListener)) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let args = WatchArgs {
        urls: vec![Url::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap()],
        token: "token".to_owned(),
        clients: 1,
        channels: vec!["a:1".to_owned()],
        seconds: None,
    };
    let ledger = Rc::new(RefCell::new(Ledger::new(&args.channels, 1, Instant::now()).unwrap()));
    let set = LocalSet::new();
    start(&set, &args, &ledger);
    set.run_until(script(listener)).await;
    ledger.borrow_mut().mark("", Instant::now());
    ledger.borrow().report()
}

#[tokio::test]
async fn a_draining_connection_is_replaced_before_it_ends_and_a_cut_one_is_resumed() {
    let report = watch(async |listener| {
        let mut first = Server::accept(&listener).await;
        first.hear(r#""snapshot":false}],"type":"subscribe"}"#).await;
        first.say("subscribed", "a:1", 4, &json!({})).await;
        first.say("e", "a:1", 5, &json!({})).await;
        first.say("draining", "system", 0, &json!({ "reconnectAfterMs": 1, "deadlineMs": 9000 })).await;
        let mut second = Server::accept(&listener).await;
        second.hear(r#"{"after":5,"channel":"a:1"}"#).await;
        first.hear("\u{3}").await;
        second.say("subscribed", "a:1", 5, &json!({ "recovered": true })).await;
        second.say("e", "a:1", 6, &json!({})).await;
        second.0.shutdown().await.unwrap();
        let mut third = Server::accept(&listener).await;
        third.hear(r#"{"after":6,"channel":"a:1"}"#).await;
        third.say("subscribed", "a:1", 6, &json!({ "recovered": true })).await;
        third.say("e", "a:1", 8, &json!({})).await;
        third.say("e", "a:1", 8, &json!({})).await;
        third.say("subscribe_error", "a:1", 0, &json!({})).await;
        while timeout(SOON, third.0.read(&mut [0; 64])).await.unwrap().is_ok_and(|read| read > 0) {}
    })
    .await;
    let total = &report["total"];
    let counts =
        ["deliveries", "replaced", "cuts", "silentLosses", "duplicates", "wrong"].map(|name| total[name].as_u64());
    assert_eq!(counts, [4, 1, 2, 1, 1, 0].map(Some), "{report}");
    assert!(report["failures"][0].as_str().unwrap().contains("refused"), "{report}");
}

#[tokio::test]
async fn a_refused_client_tries_again_unless_it_never_helps() {
    let report = watch(async |listener| {
        for answer in ["503 Service Unavailable", "401 Unauthorized"] {
            let (mut stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.unwrap();
            while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
        }
    })
    .await;
    assert_eq!(report["total"]["refusals"], 2);
    assert!(report["failures"][0].as_str().unwrap().contains("401"), "{report}");
}
