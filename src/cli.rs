//! The command line: what can be said, in which words. The contract is section 2 of `docs/cli.md`.

use std::net::SocketAddr;
use std::path::PathBuf;

use akis_eventlog::RedisStore;
use akis_service::config::{Config, Flag, Mistake, Sources};
use clap::{Args, Parser, Subcommand};

use crate::cmd::{self, token};
use crate::failure::{Failure, both};

/// Akis: a live data plane for trading user interfaces.
///
/// Results go to stdout, everything else to stderr. Exit code 0: done; 1: it failed; 2: wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "akis", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Everything in one process: venues, normalizer, log, gateway, and a page at `/`.
    Dev(cmd::dev::DevArgs),
    /// One gateway replica. Needs Redis.
    Gateway(cmd::gateway::GatewayArgs),
    /// Connectors and normalizer for the configured venues. Needs Redis.
    Normalizer(cmd::normalizer::NormalizerArgs),
    /// Prints a token (JWT) and nothing else.
    Token(cmd::token::TokenArgs),
    /// Publishes one event through a gateway and prints its seq.
    Publish(cmd::publish::PublishArgs),
    /// Subscribes through a gateway and prints one envelope a line; comes back and resumes by itself.
    Tail(cmd::tail::TailArgs),
    /// A venue's stand-in: speaks the venue's own protocol.
    Sim(cmd::sim::SimArgs),
    /// Records what a venue sends.
    Record(cmd::record::RecordArgs),
    /// Plays recordings through the normalizer and prints the events it would publish.
    Normalize(cmd::normalize::NormalizeArgs),
    /// Reads and validates the configuration and prints it, secrets hidden.
    CheckConfig(cmd::check_config::CheckConfigArgs),
    /// Asks the admin port whether the process is ready: exit code 0 or 1.
    Healthcheck(cmd::healthcheck::HealthcheckArgs),
    /// Asks a gateway to drain and waits until it has.
    Drain(cmd::drain::DrainArgs),
}

/// Where the configuration file is.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file (TOML) [default: akis.toml in the working directory when it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads the configuration from the file, the environment and flags, or says all that is wrong with it.
    pub(crate) fn load(&self, flags: impl IntoIterator<Item = Option<Flag>>) -> Result<Config, Failure> {
        self.load_for(flags, &[], |_, _| Vec::new())
    }

    /// Reads it for a role that has defaults of its own. What `check` finds wrong is told together with everything else; it gets
    /// what is wrong so far, because what was refused is not in the configuration.
    pub(crate) fn load_for(
        &self,
        flags: impl IntoIterator<Item = Option<Flag>>,
        defaults: &[(&'static str, &'static str)],
        check: impl FnOnce(&Config, &[Mistake]) -> Vec<String>,
    ) -> Result<Config, Failure> {
        // What is not UTF-8 cannot be one of our names, nor a value that we take.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let flags = flags.into_iter().flatten().collect();
        let (config, mistakes) =
            Config::read(&Sources { file: self.config.clone(), environment, flags, defaults: defaults.to_vec() });
        let mut lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        lines.extend(RedisStore::check_url(config.redis.url.expose()).err().map(|error| format!("redis.url: {error}")));
        lines.extend(check(&config, &mistakes));
        if lines.is_empty() { Ok(config) } else { Err(Failure::Usage(lines)) }
    }
}

/// `--listen`.
#[derive(Debug, Args)]
pub(crate) struct ListenFlag {
    /// Where clients come [default: gateway.listen, 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

impl ListenFlag {
    pub(crate) fn flag(&self) -> Option<Flag> {
        flag("--listen", "gateway.listen", self.listen.as_ref())
    }
}

/// `--admin`.
#[derive(Debug, Args)]
pub(crate) struct AdminFlag {
    /// The admin port [default: admin.listen, 127.0.0.1:9090].
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

impl AdminFlag {
    pub(crate) fn flag(&self) -> Option<Flag> {
        flag("--admin", "admin.listen", self.admin.as_ref())
    }
}

/// `--redis`.
#[derive(Debug, Args)]
pub(crate) struct RedisFlag {
    /// Where Redis is [default: redis.url, redis://127.0.0.1:6379].
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

impl RedisFlag {
    pub(crate) fn flag(&self) -> Option<Flag> {
        redis_flag(self.redis.as_ref())
    }
}

/// `--redis` of whatever command has it.
pub(crate) fn redis_flag(value: Option<&String>) -> Option<Flag> {
    flag("--redis", "redis.url", value)
}

/// How the tools reach a gateway.
#[derive(Debug, Args)]
pub(crate) struct GatewayClient {
    #[command(flatten)]
    file: ConfigFile,
    /// The gateway [default: http:// and gateway.listen].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The token to show [default: one that is signed with auth.secret, where that is set].
    #[arg(long, value_name = "JWT", env = "AKIS_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// A gateway and the token to show it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// `http://` or `https://`, without a slash at the end. It may hold a password.
    pub(crate) url: String,
    /// What of it people are shown.
    pub(crate) shown: String,
    pub(crate) token: String,
}

impl GatewayClient {
    /// Finds the gateway and the token, or says all that is missing. Without a token, whoever has `auth.secret` gets one
    /// for these channels.
    pub(crate) fn target(&self, channels: &[String], publish: &[String]) -> Result<Target, Failure> {
        let url = self.url.as_deref().map(gateway_url).transpose();
        let (url, (listen, token)) = both(url, self.configured(channels, publish))?;
        Ok(match url {
            Some(url) => Target {
                shown: url.origin().ascii_serialization(),
                url: url.as_str().trim_end_matches('/').to_owned(),
                token,
            },
            None => {
                let url = format!("http://{}", crate::net::reachable(listen));
                Target { shown: url.clone(), url, token }
            }
        })
    }

    /// Where a gateway listens and the token, as far as the command line does not say them both.
    fn configured(&self, channels: &[String], publish: &[String]) -> Result<(SocketAddr, String), Failure> {
        let config = match (&self.url, &self.token) {
            (Some(_), Some(_)) => Config::default(),
            _ => self.file.load([])?,
        };
        let token = match &self.token {
            Some(token) => Some(token.clone()),
            None => token::for_tool(&config.auth, channels, publish)?,
        };
        let missing = || Failure::usage("a token is needed: give --token or set AKIS_TOKEN (akis token makes one)");
        Ok((config.gateway.listen, token.ok_or_else(missing)?))
    }
}

/// How the tools reach an admin port.
#[derive(Debug, Args)]
pub(crate) struct AdminClient {
    #[command(flatten)]
    file: ConfigFile,
    /// The admin port, an address or a host name with a port [default: admin.listen, 127.0.0.1:9090].
    #[arg(long, value_name = "HOST:PORT", value_parser = admin_port)]
    admin: Option<String>,
}

impl AdminClient {
    /// Where the admin port is.
    pub(crate) fn address(&self) -> Result<String, Failure> {
        let config = self.file.load([])?;
        let given = self.admin.as_ref().map(|given| given.parse().map_err(|_| given.clone()));
        Ok(match given.unwrap_or(Ok(config.admin.listen)) {
            Ok(address) => crate::net::reachable(address).to_string(),
            Err(name) => name,
        })
    }
}

/// The address of a gateway on the command line, in the usual spelling. It is not repeated: it may hold a password.
fn gateway_url(text: &str) -> Result<reqwest::Url, Failure> {
    let url = reqwest::Url::parse(text).map_err(|error| Failure::usage(format!("--url is no URL: {error}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(Failure::usage("--url must begin with http:// or https://")),
    }
}

/// An admin port on the command line: what a URL can hold between `http://` and the path.
fn admin_port(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if matches!(port, Some(Ok(_))) && !text.contains(['/', '@', '?', '#']) {
        Ok(text.to_owned())
    } else {
        Err("write it like 127.0.0.1:9090 or akis-gateway-admin:9090".to_owned())
    }
}

fn flag(name: &'static str, key: &'static str, value: Option<&String>) -> Option<Flag> {
    value.map(|value| Flag { name, key, value: value.clone() })
}
