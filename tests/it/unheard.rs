//! A process whose log lines nobody takes: stderr is a pipe, and its reader is gone.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use akis_testkit::{RedisServer, wait_until};

use crate::cli::{SECRET, akis};
use crate::system::{SOON, address};

/// Ends with the value, whatever became of the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_gateway_whose_log_lines_nobody_takes_still_tells_its_state_and_ends_when_asked() {
    let mut redis = RedisServer::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut command = akis(dir.path());
    command.args(["gateway", "--redis", &redis.url(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.env("AKIS_AUTH__SECRET", SECRET).env("AKIS_LOG_FORMAT", "json").stderr(Stdio::piped());
    let mut gateway = Ending(command.spawn().unwrap());
    let mut lines = BufReader::new(gateway.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let admin = address(&lines.find(|line| line.contains("admin port")).unwrap());
    drop(lines);

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let is_told = async |status: u16, text: &str| {
        let Ok(answer) = http.get(format!("http://{admin}/readyz")).timeout(SOON).send().await else { return false };
        answer.status().as_u16() == status && answer.text().await.is_ok_and(|told| told.contains(text))
    };
    wait_until(SOON, "it is ready", async || is_told(200, "ready").await).await.unwrap();
    redis.kill();
    wait_until(SOON, "the log is away", async || is_told(503, "the log cannot be reached").await).await.unwrap();

    let asked = Command::new("kill").args(["-TERM", &gateway.0.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let mut code = None;
    let has_ended = async || {
        code = gateway.0.try_wait().unwrap().map(|ended| ended.code());
        code.is_some()
    };
    wait_until(SOON, "it has ended", has_ended).await.unwrap();
    assert_eq!(code, Some(Some(0)));
}
