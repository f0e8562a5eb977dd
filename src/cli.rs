//! The command line: what can be said, in which words. The contract is section 2 of `docs/cli.md`.

use std::net::SocketAddr;
use std::path::PathBuf;

use akis_service::config::{Config, Flag, Mistakes, Sources};
use clap::{Args, Parser, Subcommand};

use crate::cmd;

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
    /// Reads the configuration from the file, the environment and flags.
    pub(crate) fn load(&self, flags: impl IntoIterator<Item = Option<Flag>>) -> Result<Config, Mistakes> {
        // What is not UTF-8 cannot be one of our names, nor a value that we take.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Config::load(&Sources { file: self.config.clone(), environment, flags: flags.into_iter().flatten().collect() })
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
    pub(crate) redis: Option<String>,
}

impl RedisFlag {
    pub(crate) fn flag(&self) -> Option<Flag> {
        flag("--redis", "redis.url", self.redis.as_ref())
    }
}

/// How the tools reach a gateway.
#[derive(Debug, Args)]
pub(crate) struct GatewayClient {
    #[command(flatten)]
    file: ConfigFile,
    /// The gateway [default: http:// and gateway.listen].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The token to show.
    #[arg(long, value_name = "JWT", env = "AKIS_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// A gateway and the token to show it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// `http://` or `https://`, without a slash at the end.
    pub(crate) url: String,
    pub(crate) token: String,
}

impl GatewayClient {
    /// Finds the gateway and the token, or says all that is missing.
    pub(crate) fn target(&self) -> Result<Target, crate::failure::Failure> {
        let mut mistakes = Vec::new();
        let url = match &self.url {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => url.clone(),
            Some(url) => {
                mistakes.push(format!("--url must begin with http:// or https://, not {url:?}"));
                String::new()
            }
            None => format!("http://{}", crate::net::reachable(self.file.load([])?.gateway.listen)),
        };
        if self.token.is_none() {
            mistakes.push("a token is needed: give --token or set AKIS_TOKEN (akis token makes one)".to_owned());
        }
        match &self.token {
            Some(token) if mistakes.is_empty() => {
                Ok(Target { url: url.trim_end_matches('/').to_owned(), token: token.clone() })
            }
            _ => Err(crate::failure::Failure::Usage(mistakes)),
        }
    }
}

/// How the tools reach an admin port.
#[derive(Debug, Args)]
pub(crate) struct AdminClient {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    admin: AdminFlag,
}

impl AdminClient {
    /// The admin port's address.
    pub(crate) fn address(&self) -> Result<SocketAddr, Mistakes> {
        Ok(crate::net::reachable(self.file.load([self.admin.flag()])?.admin.listen))
    }
}

fn flag(name: &'static str, key: &'static str, value: Option<&String>) -> Option<Flag> {
    value.map(|value| Flag { name, key, value: value.clone() })
}
