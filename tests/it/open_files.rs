//! Limits of open files, as containers set them.

use std::process::Command;

use akis_testkit::Process;

use crate::cli::{SECRET, akis};
use crate::system::SOON;

/// A gateway takes so many connections here.
const CONNECTIONS: &str = "2000";

/// Starts a role under limits of open files, as `ulimit` takes them, and waits until it has begun.
async fn start(limits: &str, role: &str) -> Process {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("akis.toml"), "[venues.binance]\nsymbols = [\"BTCUSDT\"]\n").unwrap();
    let program = akis(dir.path()).get_program().to_owned();
    let mut command = Command::new("sh");
    command.current_dir(dir.path());
    command.env("AKIS_AUTH__SECRET", SECRET).env("AKIS_GATEWAY__LIMITS__CONNECTIONS", CONNECTIONS);
    command.args(["-c", &format!("ulimit {limits}; exec \"$@\""), "sh"]).arg(program).arg(role);
    command.args(["--admin", "127.0.0.1:0", "--redis", "redis://127.0.0.1:1", "--config", "akis.toml"]);
    if role == "gateway" {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    let mut process = Process::start(&mut command).unwrap();
    process.wait_for_line("admin port", SOON).await.unwrap();
    process
}

fn soft_limit(process: &Process) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_role_may_open_as_many_files_as_its_hard_limit_says() {
    for role in ["gateway", "normalizer"] {
        let process = start("-Sn 256; ulimit -Hn 4096", role).await;
        assert_eq!(soft_limit(&process), "4096", "{role}");
    }
}

#[tokio::test]
async fn a_gateway_says_when_it_may_open_fewer_files_than_it_takes_connections() {
    // Said before the line that is waited for.
    for (limits, is_warned) in [("-Sn 1024; ulimit -Hn 1024", true), ("-Sn 1024; ulimit -Hn 4096", false)] {
        let gateway = start(limits, "gateway").await;
        let said = gateway.lines();
        let warning = said.iter().find(|line| line.contains("--ulimit nofile=2200"));
        assert_eq!(warning.is_some(), is_warned, "{said:?}");
        assert!(warning.is_none_or(|line| line.contains("1024") && line.contains(CONNECTIONS)), "{said:?}");
    }
}
