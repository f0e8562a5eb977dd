//! The contract of `docs/cli.md` section 3, mistake by mistake.

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn load(toml: &str, environment: &[(&str, &str)], flags: &[Flag]) -> Result<Config, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    std::fs::write(&file, toml).unwrap();
    let sources = Sources {
        file: Some(file),
        environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: flags.to_vec(),
        defaults: Vec::new(),
    };
    let directory = format!("{}/", dir.path().display());
    let (config, mistakes) = Config::read(&sources);
    let mistakes: Vec<String> = mistakes.iter().map(|m| m.to_string().replace(&directory, "")).collect();
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
}

#[test]
fn an_empty_file_gives_the_defaults_of_the_contract() {
    let config = load("", &[], &[]).unwrap();
    assert_eq!(config.redis.url.expose(), "redis://127.0.0.1:6379");
    assert_eq!((config.log.prefix.as_str(), config.log.partitions), ("akis", 16));
    assert_eq!(config.gateway.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.gateway.limits, Limits::default());
    assert_eq!(config.telemetry, TelemetryConfig { otlp: None, sample_one_in: 1000, logs: false });
    assert!(config.auth.secret.is_none() && config.venues.0.is_empty() && config.log_format.is_none());
}

#[test]
fn telemetry_is_configured_by_address_and_rate() {
    let variables = [
        ("AKIS_TELEMETRY__OTLP", "http://me:pw@collector:4317"),
        ("AKIS_TELEMETRY__SAMPLE_ONE_IN", "0"),
        ("AKIS_TELEMETRY__LOGS", "true"),
    ];
    let config = load("", &variables, &[]).unwrap();
    assert_eq!(config.telemetry.otlp.as_ref().map(ServerUrl::expose), Some("http://me:pw@collector:4317"));
    assert_eq!((config.telemetry.sample_one_in, config.telemetry.logs), (0, true));
    let shown = config.to_toml();
    assert!(shown.contains("collector:4317") && !shown.contains("pw@"), "{shown}");
    let wrong = load("[telemetry]\notlp = \"collector:4317\"\nsample_one_in = -1\n", &[], &[]).unwrap_err();
    assert!(wrong.len() == 2 && wrong.iter().all(|mistake| mistake.contains("telemetry.")), "{wrong:?}");
}

#[test]
fn a_whole_file_is_read() {
    let toml = format!(
        r#"
        log_format = "json"
        [redis]
        url = "rediss://me:pw@h:1"
        [log]
        prefix = "x"
        partitions = 0x10
        [gateway]
        listen = "[::1]:1"
        replica = "r-1"
        origins = ["https://app.example.com"]
        patterns = true
        trusted_proxies = ["10.0.0.0/8", "2001:db8::1"]
        coalesce = "0ms"
        heartbeat = "1s"
        drain = "1m"
        [gateway.limits]
        channels = 7
        message_bytes = "1KiB"
        [auth]
        secret = "{SECRET}"
        issuer = "i"
        [auth.roles.desk]
        channels = ["binance:*"]
        limits = {{ channels = 50, messages_per_second = 5 }}
        [venues.binance]
        symbols = ["BTCUSDT", "币安人生USDT"]
        kinds = ["trades", "1m"]
        ws_url = "ws://127.0.0.1:1"
        [venues.bist]
        enabled = false
        "#
    );
    let config = load(&toml, &[], &[]).unwrap();
    assert_eq!((config.gateway.coalesce, config.gateway.patterns), (Duration::ZERO, true));
    assert_eq!(config.gateway.trusted_proxies, ["10.0.0.0/8", "2001:db8::1/128"].map(|text| text.parse().unwrap()));
    assert_eq!(config.gateway.limits.message_bytes, 1024);
    assert_eq!(config.auth.roles["desk"].limits, RoleLimits { channels: Some(50), messages_per_second: Some(5) });
    let (name, venue) = config.venues.enabled().next().unwrap();
    assert_eq!((name, venue.kinds.as_slice()), ("binance", [Kind::Trades, Kind::Candles].as_slice()));
    assert_eq!(config.venues.enabled().count(), 1, "bist is not enabled");
}

#[test]
fn each_mistake_is_told_with_its_place() {
    for (toml, expected) in [
        ("[gateway]\nlisten = \"here\"", "gateway.listen (t.toml:2): must be an IP address"),
        ("[gateway]\nheartbeat = 5", "must be a duration such as"),
        (
            "[gateway]\nheartbeat = \"5 parsecs\"",
            "must be a duration such as \"250ms\", \"20s\" or \"1h\", not \"5 parsecs\"",
        ),
        ("[gateway]\nheartbeat = \"0s\"", "must be from 100ms to 1m"),
        ("[gateway]\ncoalesce = \"50ms\"", "gateway.coalesce must not be longer than gateway.coalesce_max"),
        ("[gateway]\ncoalesce_max = \"1ms\"", "gateway.coalesce must not be longer than gateway.coalesce_max"),
        ("[gateway]\norigins = [\"app.example.com\"]", "is no origin"),
        ("[gateway]\norigins = [\"https://app.example.com/\"]", "is no origin"),
        ("[gateway]\norigins = \"https://a.b\"", "must be a list"),
        ("[gateway]\ntrusted_proxies = [\"haproxy\"]", "\"haproxy\" is no network: write it like \"10.0.0.0/8\""),
        ("[gateway]\ntrusted_proxies = [\"10.0.0.0/33\"]", "is no network"),
        ("[gateway]\nreplica = \"a b\"", "must be 1 to 64"),
        ("[gateway.limits]\nmessage_bytes = \"64kB\"", "must be a size such as \"64KiB\""),
        ("[gateway.limits]\nchannels = 0", "must be a whole number from 1"),
        ("[gateway.limits]\nchannels = -1", "must be a whole number from 1"),
        ("[gateway.limits]\nburst = 1.5", "not a fraction"),
        ("[gateway.limits]\nburst = \"5\"", "must be a whole number"),
        (
            "[gateway.limits]\nchanels = 1",
            "gateway.limits.chanels (t.toml:2): unknown key, did you mean gateway.limits.channels?",
        ),
        ("gatewy = 1", "unknown key, did you mean gateway?"),
        ("gateway = 1", "must be a table"),
        ("[log]\npartitions = 0", "must be a whole number from 1 to 256"),
        ("[log]\npartitions = 257", "must be a whole number from 1 to 256"),
        ("[log]\nprefix = \"{a}\"", "must be 1 to 64"),
        ("[redis]\nurl = \"http://h\"", "must begin with one of redis://"),
        ("[redis]\nurl = \"redis://\"", "without a host"),
        ("[redis]\nurl = \"127.0.0.1\"", "is no URL"),
        ("[auth]\nsecret = \"short\"", "must have 32 bytes or more"),
        ("[auth.roles.desk]\nchannels = [\"bin*:x\"]", "\"bin*:x\" is no pattern"),
        ("[[auth.keys]]\nid = \"a\"\nalg = \"HS256\"\njwks = \"https://h\"", "alg must be one of RS256"),
        (
            "[[auth.keys]]\nid = \"a\"\nalgo = \"RS256\"\njwks = \"https://h\"",
            "unknown key \"algo\", did you mean alg?",
        ),
        ("[[auth.keys]]\nid = \"a\"\nalg = \"RS256\"", "exactly one of pem and jwks"),
        ("[[auth.keys]]\nid = \"a\"\nalg = \"RS256\"\npem = \"/nowhere\"", "cannot be read"),
        ("[[auth.keys]]\nid = \"a\"\nalg = \"RS256\"\njwks = \"http://h\"", "must be an https:// URL"),
        ("[venues.binance]\nenabled = true", "an enabled venue needs symbols"),
        ("[venues.binance]\nsymbols = [\"A B\"]", "is no symbol"),
        ("[venues.binance]\nsymbols = [\"A\"]\nkinds = [\"session\"]", "is no kind of this venue"),
        ("[venues.binance]\nsymbols = [\"A\"]\npart = \"3/2\"", "must be a part and their number"),
        ("[venues.binance]\nsymbols = [\"A\"]\nws_url = \"http://h\"", "must begin with one of ws://, wss://"),
        ("[telemetry]\nlogs = true", "telemetry.logs (t.toml:2): needs telemetry.otlp"),
        ("[telemetry]\nlogs = 1", "must be true or false"),
        ("log_format = \"xml\"", "must be \"text\" or \"json\""),
        ("[gateway", "no TOML"),
        ("a = 1\na = 2", "duplicate key"),
    ] {
        let mistakes = load(toml, &[], &[]).expect_err(toml);
        assert!(mistakes.iter().any(|m| m.contains(expected)), "{toml:?} gave {mistakes:?}");
    }
}

#[test]
fn all_mistakes_of_all_sources_are_reported_together() {
    let toml = "[gateway]\nlisten = \"x\"\nlisen = \"y\"\n[log]\npartitions = 1000\n[auth]\nsecret = \"hunter2\"";
    let environment = [("AKIS_GATEWAY__DRAIN", "soon"), ("AKIS_REDIS_URL", "redis://h")];
    let flags = [Flag { name: "--admin", key: "admin.listen", value: "nowhere".to_owned() }];
    let mistakes = load(toml, &environment, &flags).unwrap_err();
    assert_eq!(mistakes.len(), 7, "{mistakes:#?}");
    let all = mistakes.join("\n");
    for expected in [
        "gateway.lisen",
        "AKIS_GATEWAY__DRAIN",
        "AKIS_REDIS_URL: unknown variable, did you mean AKIS_REDIS__URL?",
        "--admin",
    ] {
        assert!(all.contains(expected), "{expected} is missing in {all}");
    }
    assert!(!all.contains("hunter2"), "a secret was printed: {all}");
}

#[test]
fn a_secret_without_its_quotes_is_not_shown_either() {
    for (table, key) in [
        ("auth", "secret"),
        ("venues.bist", "password"),
        ("redis", "url"),
        ("telemetry", "otlp"),
        ("venues.binance", "ws_url"),
        ("venues.binance", "rest_url"),
    ] {
        for value in ["9876543210", "[9876543210]", "{ a = 9876543210 }"] {
            let mistakes = load(&format!("[{table}]\n{key} = {value}"), &[], &[]).unwrap_err().join("\n");
            assert!(
                mistakes.contains(&format!("{table}.{key} (t.toml:2): must be text in quotes, not this")),
                "{mistakes}"
            );
            assert!(!mistakes.contains("9876543210"), "{mistakes}");
        }
    }
}

#[test]
fn a_variable_that_is_none_is_answered_with_one() {
    for (name, expected) in [
        ("AKIS_GATEWAY", "AKIS_GATEWAY: is a table and no variable: those of its keys begin with AKIS_GATEWAY__"),
        ("AKIS_AUTH__ROLES__DESK", "those of its keys begin with AKIS_AUTH__ROLES__DESK__"),
        ("AKIS_TOKN", "did you mean AKIS_TOKEN?"),
        ("AKIS_LOGFORMAT", "did you mean AKIS_LOG_FORMAT?"),
        ("AKIS_FOO", "AKIS_FOO: unknown variable, did you mean AKIS_"),
        ("AKIS_PORT", "AKIS_PORT: unknown variable, did you mean AKIS_"),
        ("AKIS_CONFIG", "AKIS_CONFIG: unknown variable, did you mean AKIS_"),
    ] {
        let mistakes = load("", &[(name, "x")], &[]).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains(expected), "{mistakes:?}");
        assert!(!mistakes[0].contains("AKIS_LOG?"), "{mistakes:?}");
    }
}

#[test]
fn flags_override_variables_and_variables_the_file() {
    let toml = "[gateway]\nlisten = \"127.0.0.1:1\"\n[log]\npartitions = 1\nprefix = \"file\"";
    let environment = [
        ("AKIS_GATEWAY__LISTEN", "127.0.0.1:2"),
        ("AKIS_LOG__PARTITIONS", "2"),
        ("AKIS_VENUES__BINANCE__SYMBOLS", "BTCUSDT, ETHUSDT"),
        ("AKIS_VENUES__BINANCE__ENABLED", "true"),
        ("AKIS_AUTH__SECRET", SECRET),
        ("AKIS_TOKEN", "a.b.c"),
        ("AKIS_SERVICE_HOST", "10.0.0.1"),
        ("AKIS_GATEWAY_PORT", "tcp://10.0.0.1:8080"),
        ("AKIS_GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("HOME", "/"),
    ];
    let flags = [Flag { name: "--listen", key: "gateway.listen", value: "127.0.0.1:3".to_owned() }];
    let config = load(toml, &environment, &flags).unwrap();
    assert_eq!(config.gateway.listen.port(), 3);
    assert_eq!((config.log.partitions, config.log.prefix.as_str()), (2, "file"));
    assert_eq!(config.venues.get("binance").unwrap().symbols, ["BTCUSDT", "ETHUSDT"]);
}

#[test]
fn a_command_has_defaults_of_its_own_that_anything_overrides() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    let drain = |toml: &str, variable: Option<&str>| {
        std::fs::write(&file, toml).unwrap();
        let (config, mistakes) = Config::read(&Sources {
            file: Some(file.clone()),
            environment: variable
                .map(|value| ("AKIS_GATEWAY__DRAIN".to_owned(), value.to_owned()))
                .into_iter()
                .collect(),
            flags: Vec::new(),
            defaults: vec![("gateway.drain", "1s")],
        });
        assert_eq!(mistakes, []);
        config.gateway.drain.as_secs()
    };
    assert_eq!(drain("", None), 1);
    assert_eq!(drain("[gateway]\nheartbeat = \"1s\"", None), 1);
    assert_eq!(drain("[gateway]\ndrain = \"20s\"", None), 20, "what is everybody else's default");
    assert_eq!(drain("", Some("20s")), 20);
}

#[test]
fn what_is_sound_is_read_beside_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    let toml = "[log]\nprefix = 5\npartitions = 8\n[venues.binance]\nsymbols = [\"A\"]\n[venues.bist]\nsymbols = [\"B\"]\nline_a = 5";
    std::fs::write(&file, toml).unwrap();
    let (config, mistakes) = Config::read(&Sources { file: Some(file), ..Sources::default() });
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert_eq!((config.log.prefix.as_str(), config.log.partitions), ("akis", 8));
    let venues: Vec<&str> = config.venues.enabled().map(|(name, _)| name).collect();
    assert_eq!(venues, ["binance"], "one whose keys are not known cannot be looked at");
}

#[test]
fn a_wrong_value_that_is_overridden_is_no_mistake() {
    let config = load("[log]\npartitions = 1000", &[("AKIS_LOG__PARTITIONS", "8")], &[]);
    assert_eq!(config.unwrap().log.partitions, 8);
}

#[test]
fn what_is_printed_hides_secrets_and_reads_back() {
    let toml = format!(
        "[redis]\nurl = \"redis://me:pa55@h:1\"\n[auth]\nsecret = \"{SECRET}\"\n[auth.roles.desk]\nchannels = [\"a:*\"]\n\
         [venues.binance]\nsymbols = [\"BTCUSDT\"]\nrest_url = \"http://u:pa55@h\""
    );
    let config = load(&toml, &[], &[]).unwrap();
    let shown = config.to_toml();
    assert!(!shown.contains("pa55") && !shown.contains(SECRET), "{shown}");
    assert!(!format!("{config:?}").contains(SECRET), "the debug form tells the secret");
    let again = load(&shown, &[("AKIS_AUTH__SECRET", SECRET)], &[]).unwrap();
    assert_eq!(again.to_toml(), shown, "every printed key is known and means the same");
}

#[test]
fn what_only_one_venue_has_is_printed_but_for_its_password() {
    let toml = "[venues.bist]\nsymbols = [\"THYAO\"]\ntransport = \"moldudp64\"\nline_a = \"233.113.216.1:21001\"\n\
                line_b = \"233.113.216.2:21001\"\ninterface = \"10.0.0.1\"\nsoup = \"feed.example:9450\"\nusername = \"USER\"\n\
                half_days = \"2026-10-28T12:40\"\nglimpse = \"tcp://u:pa55@h:1\"\npassword = \"pa55\"\n";
    let shown = load(toml, &[], &[]).unwrap().to_toml();
    for line in toml.lines().skip(2).filter(|line| !line.contains("pa55")) {
        assert!(shown.contains(line), "{line} is missing in {shown}");
    }
    assert!(!shown.contains("pa55") && shown.contains("glimpse = \"tcp://u:***@h:1\""), "{shown}");
    assert_eq!(load(&shown, &[], &[]).unwrap().to_toml(), shown);
}

#[test]
fn a_syntax_error_does_not_show_the_line() {
    let mistakes = load("[auth]\nsecret = \"hunter2", &[], &[]).unwrap_err();
    assert!(mistakes.iter().any(|m| m.contains("no TOML")), "{mistakes:?}");
    assert!(!mistakes.join(" ").contains("hunter2"), "{mistakes:?}");
}

#[test]
fn a_named_file_must_be_there() {
    let sources = Sources { file: Some("/nowhere/akis.toml".into()), ..Sources::default() };
    let mistakes = Config::read(&sources).1;
    assert_eq!(mistakes.len(), 1);
    let mistakes = mistakes[0].to_string();
    assert!(mistakes.starts_with("/nowhere/akis.toml: cannot be read"), "{mistakes}");
}
