//! `akis token`: a JWT and nothing else.

mod signer;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_model::Pattern;
use akis_service::config::{AuthConfig, parse_duration};
use anyhow::Context;
use serde::Serialize;

use crate::cli::ConfigFile;
use crate::failure::{Failure, both};

pub(crate) use self::signer::Signer;

/// How long a token is good that a tool makes for itself.
const TOOL_TTL: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Whose token it is.
    #[arg(long, value_name = "SUBJECT")]
    sub: String,
    /// Patterns it may subscribe to; repeat, or separate by commas.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    channels: Vec<String>,
    /// Patterns it may publish to; repeat, or separate by commas.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    publish: Vec<String>,
    /// How long it is good for: 30s, 15m, 1h.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// File to sign with, instead of auth.secret: a private key in PEM (PKCS#8), or an HS256 secret.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// The claims that are written. Section 5 of the protocol.
#[derive(Debug, Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    channels: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    publish: &'a [String],
}

/// What a token says, apart from when it was made.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) sub: &'a str,
    pub(crate) issuer: Option<&'a str>,
    pub(crate) audience: Option<&'a str>,
    pub(crate) channels: &'a [String],
    pub(crate) publish: &'a [String],
    pub(crate) ttl: Duration,
}

pub(crate) fn run(args: TokenArgs) -> Result<(), Failure> {
    let config = args.file.load([])?;
    let patterns = args.channels.iter().chain(&args.publish);
    let wrong: Vec<String> =
        patterns.filter_map(|pattern| Pattern::parse(pattern).err()).map(|error| error.to_string()).collect();
    let patterns = if wrong.is_empty() { Ok(()) } else { Err(Failure::Usage(wrong)) };
    let signer = match (&args.key, &config.auth.secret) {
        (Some(file), _) => Signer::from_file(file, &config.auth.keys),
        (None, Some(secret)) => Ok(Signer::from_secret(secret)),
        (None, None) => {
            Err(Failure::usage("nothing to sign with: set auth.secret (AKIS_AUTH__SECRET) or give --key FILE"))
        }
    };
    let ((), signer) = both(patterns, signer)?;
    let token = sign(
        &signer,
        &Terms {
            sub: &args.sub,
            issuer: config.auth.issuer.as_deref(),
            audience: config.auth.audience.as_deref(),
            channels: &args.channels,
            publish: &args.publish,
            ttl: args.ttl,
        },
    )?;
    Ok(writeln!(std::io::stdout(), "{token}").context("cannot write the token")?)
}

/// Signs a token that begins now.
pub(crate) fn sign(signer: &Signer, terms: &Terms<'_>) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
    let claims = Claims {
        sub: terms.sub,
        iat: now,
        exp: now.saturating_add(terms.ttl.as_secs()),
        iss: terms.issuer,
        aud: terms.audience,
        channels: terms.channels,
        publish: terms.publish,
    };
    signer.sign(&claims)
}

/// A token for the other tools, good for [`TOOL_TTL`]; `None` without a secret to sign with.
pub(crate) fn for_tool(auth: &AuthConfig, channels: &[String], publish: &[String]) -> anyhow::Result<Option<String>> {
    let Some(secret) = &auth.secret else { return Ok(None) };
    let terms = Terms {
        sub: "akis",
        issuer: auth.issuer.as_deref(),
        audience: auth.audience.as_deref(),
        channels,
        publish,
        ttl: TOOL_TTL,
    };
    sign(&Signer::from_secret(secret), &terms).map(Some)
}

/// Reads a duration of the command line.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write it like 30s, 15m or 1h".to_owned())
}
