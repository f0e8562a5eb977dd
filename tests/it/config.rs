//! `akis check-config`: everything that is wrong at once, and nothing that is secret.

use crate::cli::{SECRET, akis, run};

#[test]
fn three_mistakes_are_three_messages_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let toml = "[gateway]\nlisten = \"here\"\nhartbeat = \"5s\"\n[log]\npartitions = 1000\n";
    std::fs::write(dir.path().join("akis.toml"), toml).unwrap();
    for args in [&["check-config"][..], &["gateway"], &["normalizer"], &["dev"], &["healthcheck"]] {
        let (code, stdout, stderr) = run(akis(dir.path()).args(args).env("AKIS_AUTH__SECRET", SECRET));
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}");
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.contains("no venue is enabled")).collect();
        assert_eq!(lines.len(), 3, "{args:?}: {stderr}");
        assert!(stderr.contains("akis.toml:3): unknown key, did you mean gateway.heartbeat?"), "{stderr}");
    }
}

#[test]
fn what_a_role_lacks_is_told_with_what_is_wrong_and_not_where_it_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, venue) = ("neither auth.secret", "no venue is enabled");
    for (toml, role, expected) in [
        ("[gateway]\nlisten = \"here\"", "gateway", &["gateway.listen", keys][..]),
        ("[gateway]\nlistn = \"here\"", "normalizer", &["gateway.listn", venue]),
        ("[auth]\nsecret = 1", "gateway", &["auth.secret (akis.toml:2)"]),
        ("[[auth.keys]]\nid = \"a\"\nalg = \"ES256\"\njwks = \"ftp://h\"", "gateway", &["auth.keys[0]"]),
        ("[venues.binance]\nsymbols = []", "normalizer", &["an enabled venue needs symbols"]),
        ("[auth", "gateway", &["no TOML"]),
        ("[auth", "normalizer", &["no TOML"]),
    ] {
        std::fs::write(dir.path().join("akis.toml"), toml).unwrap();
        let (code, stdout, stderr) = run(akis(dir.path()).arg(role));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", expected.len()), "{toml}: {stderr}");
        assert!(expected.iter().all(|part| stderr.contains(part)), "{toml}: {stderr}");
    }
}

#[test]
fn the_effective_configuration_is_printed_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("other.toml"), "[gateway]\nlisten = \"127.0.0.1:1\"\ndrain = \"3s\"\n").unwrap();
    let (code, stdout, stderr) = run(akis(dir.path())
        .args(["check-config", "--config", "other.toml", "--listen", "127.0.0.1:2", "--redis", "redis://u:hunter2@h"])
        .env("AKIS_AUTH__SECRET", SECRET)
        .env("AKIS_GATEWAY__LIMITS__CHANNELS", "7"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for expected in ["listen = \"127.0.0.1:2\"", "drain = \"3s\"", "channels = 7", "redis://u:***@h"] {
        assert!(stdout.contains(expected), "{expected} is missing in {stdout}");
    }
    assert!(!stdout.contains(SECRET) && !stdout.contains("hunter2"), "{stdout}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = akis(dir.path());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (code, _, stderr) = run(child.arg("check-config").stdout(writer));
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn a_variable_that_nothing_reads_is_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(akis(dir.path()).arg("check-config").env("AKIS_GATEWAY__LISTN", "127.0.0.1:1"));
    assert_eq!(code, 2);
    assert!(
        stderr.contains("AKIS_GATEWAY__LISTN") && stderr.contains("did you mean AKIS_GATEWAY__LISTEN?"),
        "{stderr}"
    );
}

/// Writes a configuration with these keys.
fn with_keys(dir: &std::path::Path, keys: &[(&str, &str, &str)]) {
    let entry =
        |(id, alg, source): &(&str, &str, &str)| format!("[[auth.keys]]\nid = \"{id}\"\nalg = \"{alg}\"\n{source}\n");
    std::fs::write(dir.join("akis.toml"), keys.iter().map(entry).collect::<String>()).unwrap();
}

#[test]
fn keys_that_cannot_check_a_token_are_all_named_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let pem = |name: &str| format!("pem = \"{}/gateway/fixtures/keys/{name}\"", env!("CARGO_MANIFEST_DIR"));
    with_keys(
        dir.path(),
        &[
            ("a", "ES256", "jwks = \"https://id.example.com/keys\""),
            ("b", "ES256", "jwks = \"http://127.0.0.1:1/keys\""),
            ("c", "RS256", &pem("rsa.pub.pem")),
        ],
    );
    let (code, stdout, stderr) = run(akis(dir.path()).arg("check-config"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("https://id.example.com/keys"), "{stdout}");
    with_keys(
        dir.path(),
        &[("a", "ES256", "jwks = \"http://id.example.com/keys\""), ("b", "HS256", &pem("ec.pub.pem"))],
    );
    let (code, _, stderr) = run(akis(dir.path()).arg("check-config"));
    assert_eq!((code, stderr.lines().count()), (2, 2), "{stderr}");
    assert!(stderr.contains("https://") && stderr.contains("alg must be one of"), "{stderr}");
    with_keys(dir.path(), &[("a", "ES256", &pem("rsa.pub.pem")), ("b", "RS256", &pem("rsa-short.pub.pem"))]);
    for command in ["check-config", "gateway", "dev"] {
        let (code, stdout, stderr) = run(akis(dir.path()).arg(command));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", 2), "{command}: {stderr}");
        assert!(stderr.contains("is no key for ES256") && stderr.contains("2048 bits"), "{stderr}");
    }
}

#[test]
fn what_a_role_refuses_is_refused_by_check_config() {
    let dir = tempfile::tempdir().unwrap();
    let bist = "[venues.bist]\nsymbols = [\"THYAO\"]\n";
    let line = "line_a = \"127.0.0.1:21001\"\n";
    for (toml, role, expected) in [
        (format!("{bist}transport = \"udp\""), "normalizer", &["venues.bist: transport: \"udp\" is neither"][..]),
        (format!("{bist}line_a = \"nonsense\""), "normalizer", &["venues.bist: line_a: \"nonsense\" is not"]),
        (
            format!(
                "{bist}{line}half_days = \"tomorrow\"\nusername = \"toolongname\"\npassword = \"muchtoolongpassword\""
            ),
            "normalizer",
            &["half_days: \"tomorrow\"", "username: must be at most 6", "password: must be at most 10"],
        ),
        (bist.to_owned(), "normalizer", &["venues.bist: line_a: must be set"]),
        (format!("{bist}transport = \"soupbintcp\""), "normalizer", &["venues.bist: soup: must be set"]),
        (
            "[venues.binance]\nsymbols = [\"top:abc\", \"top:0\"]".to_owned(),
            "normalizer",
            &["\"top:abc\" must be top: and a number", "\"top:0\" must be top: and a number"],
        ),
        ("[redis]\nurl = \"redis://h/abc\"".to_owned(), "gateway", &["redis.url: "]),
        ("[redis]\nurl = \"redis-sentinel://h:1\"".to_owned(), "gateway", &["redis.url: "]),
    ] {
        std::fs::write(dir.path().join("akis.toml"), &toml).unwrap();
        for command in ["check-config", role] {
            let (code, stdout, stderr) = run(akis(dir.path()).arg(command).env("AKIS_AUTH__SECRET", SECRET));
            assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", expected.len()), "{toml}: {stderr}");
            assert!(expected.iter().all(|part| stderr.contains(part)), "{toml}: {stderr}");
            assert!(!stderr.contains("muchtoolong"), "{stderr}");
        }
    }
}

#[test]
fn a_venue_without_an_address_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let toml = "[venues.bist]\nsymbols = [\"THYAO\"]\n";
    std::fs::write(dir.path().join("akis.toml"), toml).unwrap();
    for args in [&["record", "bist", "--out", "q.rec"][..], &["dev", "--venues", "live"]] {
        let (code, stdout, stderr) = run(akis(dir.path()).args(args));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", 1), "{args:?}: {stderr}");
        assert!(stderr.contains("venues.bist: line_a: must be set"), "{args:?}: {stderr}");
    }
    assert!(!dir.path().join("q.rec").exists(), "the corrected command would fail");
}

#[test]
fn mistakes_of_all_kinds_are_told_together() {
    let dir = tempfile::tempdir().unwrap();
    let pem = format!("{}/gateway/fixtures/keys/rsa.pub.pem", env!("CARGO_MANIFEST_DIR"));
    let toml = format!(
        "[gateway]\nlisen = \"x\"\n[redis]\nurl = \"redis://h/abc\"\n[venues.binance]\nsymbols = [\"top:0\"]\n\
         [[auth.keys]]\nid = \"a\"\nalg = \"ES256\"\npem = \"{pem}\"\n"
    );
    std::fs::write(dir.path().join("akis.toml"), toml).unwrap();
    for (command, count) in [("check-config", 4), ("dev", 4), ("gateway", 3), ("normalizer", 3)] {
        let (code, stdout, stderr) = run(akis(dir.path()).arg(command));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", count), "{command}: {stderr}");
    }
}
