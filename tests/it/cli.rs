//! What needs no server: help, usage, tokens, and the error of a port in use.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A recording of another venue than Binance and Borsa Istanbul.
const BTCTURK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/connectors/fixtures/btcturk/frames_2022-2026.jsonl");

/// `akis` in a directory without a configuration, with nothing of ours in the environment.
pub(crate) fn akis(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_akis"));
    command.current_dir(directory);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AKIS_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

/// Runs to the end and gives exit code, stdout and stderr.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn every_subcommand_has_help() {
    let dir = tempfile::tempdir().unwrap();
    let (code, help, _) = run(akis(dir.path()).arg("--help"));
    assert_eq!(code, 0);
    for name in [
        "dev",
        "gateway",
        "normalizer",
        "token",
        "publish",
        "tail",
        "sim",
        "record",
        "normalize",
        "check-config",
        "healthcheck",
        "drain",
    ] {
        assert!(help.contains(&format!("  {name} ")), "{name} is missing in {help}");
        let (code, text, stderr) = run(akis(dir.path()).args([name, "--help"]));
        assert_eq!((code, stderr.as_str()), (0, ""), "{name}");
        assert!(text.contains("Usage: akis"), "{text}");
        if name == "dev" {
            assert!(text.contains("[default: in memory]") && !text.contains("redis.url"), "{text}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["nonsense"][..],
        &["token"],
        &["tail"],
        &["tail", "not a channel"],
        &["tail", "a:b", "--count", "0"],
        &["tail", "a:b", "--after", "1", "--since", "1"],
        &["tail", "a:b", "--after", "9007199254740992"],
        &["tail", "a:b"],
        &["publish", "a:b", "e", "{}"],
        &["publish", "a:b", "e", "[]", "--token", "t"],
        &["publish", "a b", "e", "{", "--token", "t"],
        &["tail", "a:b", "--token", "t", "--url", "localhost:8080"],
        &["tail", "a:b", "--token", "t", "--url", "http://"],
        &["publish", "a:b", "e", "{}", "--token", "t", "--url", "ftp://u:pa55@h"],
        &["token", "--sub", "a", "--channels", "bin*:x"],
        &["gateway"],
        &["normalizer"],
        &["drain", "--delay", "soon"],
        &["healthcheck", "--admin", "9090"],
        &["healthcheck", "--admin", "http://localhost:9090"],
        &["sim", "nasdaq"],
        &["sim", "binance", "--line-a", "127.0.0.1:26400"],
        &["sim", "binance", "--speed", "2"],
        &["sim", "bist", "--line-b", "127.0.0.1:26401"],
        &["sim", "binance", "--listen", "127.0.0.1:0", "--symbols", "btcusdt"],
        &["sim", "btcturk", "--listen", "127.0.0.1:0", "--symbols", ""],
        &["sim", "bist", "--listen", "127.0.0.1:0", "--speed", "nan"],
        &["sim", "binance", "--listen", "127.0.0.1:0", "--from", BTCTURK],
        &["sim", "bist", "--listen", "127.0.0.1:0", "--from", BTCTURK],
        &["sim", "btcturk", "--listen", "127.0.0.1:0", "--from", BTCTURK, "--speed", "0"],
        &["sim", "btcturk", "--listen", "127.0.0.1:0", "--from", BTCTURK, "--speed=-1"],
        &["sim", "btcturk", "--listen", "127.0.0.1:0", "--from", BTCTURK, "--speed", "inf"],
        &["dev", "--venues", "none"],
        &["record", "nasdaq", "--out", "f"],
    ] {
        let (code, stdout, stderr) = run(akis(dir.path()).args(args));
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && !stderr.contains("pa55"), "{args:?}: {stderr}");
    }
}

#[test]
fn mistakes_of_several_arguments_are_told_together() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("short"), "short").unwrap();
    std::fs::write(dir.path().join("broken.toml"), "[gateway]\nlistn = \"127.0.0.1:1\"\n").unwrap();
    for (args, expected) in [
        (&["token", "--sub", "a", "--key", "short", "--channels", "bad*"][..], ["--key must hold", "\"bad*\""]),
        (&["token", "--sub", "a", "--key", "missing", "--channels", "bad*"], ["cannot read --key", "\"bad*\""]),
        (&["publish", "a:b", "e", "{"], ["JSON cannot be read", "a token is needed"]),
        (
            &["publish", "a:b", "e", "{}", "--url", "ftp://h", "--config", "broken.toml"],
            ["--url must begin", "unknown key, did you mean gateway.listen?"],
        ),
        (&["tail", "a:b", "bad!channel", "worse channel", "--token", "t"], ["\"bad!channel\"", "\"worse channel\""]),
        (&["tail", "bad!channel"], ["\"bad!channel\"", "a token is needed"]),
    ] {
        let (code, stdout, stderr) = run(akis(dir.path()).args(args));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", 2), "{args:?}: {stderr}");
        assert!(expected.iter().all(|part| stderr.contains(part)), "{args:?}: {stderr}");
    }
}

#[test]
fn a_gateway_is_found_in_any_spelling_of_its_scheme() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let args = ["publish", "a:b", "e", "{}", "--token", "t", "--url", &format!("HTTP://{free}/")];
    let (code, _, stderr) = run(akis(dir.path()).args(args));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&format!("no answer from http://{free}:")), "{stderr}");
}

#[test]
fn a_password_in_the_address_of_a_gateway_is_not_repeated_when_it_cannot_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://alice:hunter2@{free}/");
    let args = ["publish", "a:b", "e", "{}", "--token", "t", "--url", &url];
    let (code, _, stderr) = run(akis(dir.path()).args(args));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&format!("no answer from http://{free}:")) && !stderr.contains("hunter2"), "{stderr}");

    let mut tail = akis(dir.path());
    tail.args(["tail", "a:b", "--token", "t", "--url", &url]).stderr(Stdio::piped());
    let mut tail = tail.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(tail.stderr.take().unwrap()).read_line(&mut line).unwrap();
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(line.contains(&format!("cannot connect to http://{free}:")) && !line.contains("hunter2"), "{line}");
}

#[test]
fn a_stand_in_tells_where_it_is_only_when_it_has_what_it_plays() {
    let dir = tempfile::tempdir().unwrap();
    for venue in ["binance", "btcturk", "bist"] {
        let args = ["sim", venue, "--listen", "127.0.0.1:0", "--from", "/nowhere"];
        let (code, stdout, stderr) = run(akis(dir.path()).args(args));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1), "{stderr}");
        assert!(stderr.contains("/nowhere"), "{stderr}");
    }
}

#[test]
fn a_token_is_printed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["token", "--sub", "alice", "--channels", "binance:*,job:*", "--publish", "job:*", "--ttl", "2h"];
    let (code, stdout, stderr) = run(akis(dir.path()).args(args).env("AKIS_AUTH__SECRET", SECRET));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::decode::<serde_json::Value>(stdout.trim_end(), &key, &Validation::new(Algorithm::HS256));
    let claims = token.unwrap().claims;
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["channels"], serde_json::json!(["binance:*", "job:*"]));
    assert_eq!(claims["publish"], serde_json::json!(["job:*"]));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 7200);
}

#[test]
fn a_token_can_be_signed_with_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let (code, stdout, _) = run(akis(dir.path()).args(["token", "--sub", "a", "--key", "key"]));
    assert_eq!((code, stdout.matches('.').count()), (0, 2));
    std::fs::write(&file, "short").unwrap();
    assert_eq!(run(akis(dir.path()).args(["token", "--sub", "a", "--key", "key"])).0, 2);
    let (code, _, stderr) = run(akis(dir.path()).args(["token", "--sub", "a"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("AKIS_AUTH__SECRET"), "{stderr}");
}

#[test]
fn a_private_key_signs_by_the_alg_and_under_the_name_of_its_public_half() {
    let dir = tempfile::tempdir().unwrap();
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway/fixtures/keys");
    let header = |name: &str| {
        let (code, stdout, stderr) =
            run(akis(dir.path()).args(["token", "--sub", "a", "--key", &format!("{keys}/{name}.pem")]));
        assert_eq!((code, stderr.as_str()), (0, ""), "{name}");
        let token = stdout.trim_end();
        let (alg, public) = match name {
            "ec" => (Algorithm::ES256, DecodingKey::from_ec_pem(&std::fs::read(format!("{keys}/ec.pub.pem")).unwrap())),
            "ed" => (Algorithm::EdDSA, DecodingKey::from_ed_pem(&std::fs::read(format!("{keys}/ed.pub.pem")).unwrap())),
            _ => (
                jsonwebtoken::decode_header(token).unwrap().alg,
                DecodingKey::from_rsa_pem(&std::fs::read(format!("{keys}/{name}.pub.pem")).unwrap()),
            ),
        };
        let decoded = jsonwebtoken::decode::<serde_json::Value>(token, &public.unwrap(), &Validation::new(alg));
        let header = decoded.unwrap().header;
        (header.alg, header.kid)
    };
    assert_eq!(header("rsa"), (Algorithm::RS256, None), "without a configuration");
    let toml = format!(
        "[[auth.keys]]\nid = \"r1\"\nalg = \"RS512\"\npem = \"{keys}/rsa.pub.pem\"\n\
         [[auth.keys]]\nid = \"e1\"\nalg = \"ES256\"\npem = \"{keys}/ec.pub.pem\"\n\
         [[auth.keys]]\nid = \"s1\"\nalg = \"PS256\"\njwks = \"https://id.example.com/keys\"\n"
    );
    std::fs::write(dir.path().join("akis.toml"), toml).unwrap();
    assert_eq!(header("rsa"), (Algorithm::RS512, Some("r1".to_owned())));
    assert_eq!(header("rsa-other"), (Algorithm::PS256, None), "what the key set is used with");
    assert_eq!(header("ec"), (Algorithm::ES256, Some("e1".to_owned())));
    assert_eq!(header("ed"), (Algorithm::EdDSA, None));
    let (code, _, stderr) =
        run(akis(dir.path()).args(["token", "--sub", "a", "--key", &format!("{keys}/rsa.pub.pem")]));
    assert!(code == 2 && stderr.contains("no private key"), "{stderr}");
}

#[test]
fn a_port_in_use_is_one_line_with_the_port_and_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = taken.local_addr().unwrap().port().to_string();
    for (args, flag) in [
        (vec!["dev", "--venues", "sim", "--admin", "127.0.0.1:0", "--listen", &address], "--listen"),
        (vec!["dev", "--venues", "sim", "--listen", "127.0.0.1:0", "--admin", &address], "--admin"),
        (vec!["gateway", "--admin", "127.0.0.1:0", "--listen", &address], "--listen"),
        (vec!["gateway", "--listen", "127.0.0.1:0", "--admin", &address], "--admin"),
        (vec!["sim", "binance", "--listen", &address], "--listen"),
    ] {
        let (code, stdout, stderr) = run(akis(dir.path()).args(&args).env("AKIS_AUTH__SECRET", SECRET));
        assert_eq!((code, stdout.as_str()), (1, ""), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&format!("port {port} is in use")) && stderr.contains(flag), "{stderr}");
    }
}

#[test]
fn a_missing_admin_port_is_not_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for command in ["healthcheck", "drain"] {
        let (code, stdout, stderr) = run(akis(dir.path()).args([command, "--admin", &free]));
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains("no answer from the admin port"), "{stderr}");
    }
}

#[test]
fn recordings_play_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let recording = concat!(
        r#"{"akis":"recording","v":1,"venue":"binance","market":"spot","startedAt":1}"#,
        "\n",
        r#"{"at":1,"conn":1,"text":"{\"stream\":\"btcusdt@aggTrade\",\"data\":{\"e\":\"aggTrade\",\"E\":1,\"s\":\"BTCUSDT\",\"a\":7,\"p\":\"1.50\",\"q\":\"2\",\"f\":1,\"l\":1,\"T\":1,\"m\":true,\"M\":true}}"}"#,
        "\n",
        r#"{"at":2,"conn":1,"text":"{"}"#,
        "\n"
    );
    std::fs::write(dir.path().join("r.jsonl"), recording).unwrap();
    let (code, first, stderr) = run(akis(dir.path()).args(["normalize", "r.jsonl"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(first.contains(r#""seq":1"#) && first.contains(r#""price":"1.5""#), "{first}");
    assert!(stderr.contains("skipped"), "{stderr}");
    assert_eq!(run(akis(dir.path()).args(["normalize", "r.jsonl"])).1, first);
    let (code, stdout, stderr) = run(akis(dir.path()).args(["normalize", "missing.jsonl"]));
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    for (name, content) in
        [("none.jsonl", "{}\n"), ("other.jsonl", &recording.replace(r#""market":"spot""#, r#""market":"moon""#))]
    {
        std::fs::write(dir.path().join(name), content).unwrap();
        let (code, _, stderr) = run(akis(dir.path()).args(["normalize", "r.jsonl", name]));
        assert_eq!(code, 1);
        assert!(stderr.contains(&format!("cannot play {name}")), "{stderr}");
    }
}

#[test]
fn a_recording_of_nothing_is_a_failure_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let toml =
        format!("[venues.btcturk]\nsymbols = [\"BTCTRY\"]\nws_url = \"ws://{free}\"\nrest_url = \"http://{free}\"\n");
    std::fs::write(dir.path().join("akis.toml"), toml).unwrap();
    let args = ["record", "btcturk", "--out", "r.jsonl", "--for", "1s"];
    let (code, _, stderr) = run(akis(dir.path()).args(args));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("nothing was recorded: btcturk was not reached"), "{stderr}");
    assert!(!dir.path().join("r.jsonl").exists());
}
