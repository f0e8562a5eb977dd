//! `akis token`: a JWT and nothing else.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_model::Pattern;
use akis_service::config::{MIN_SECRET_BYTES, Secret, parse_duration};
use anyhow::Context;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::cli::ConfigFile;
use crate::failure::Failure;

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
    /// File with the HS256 secret to sign with, instead of auth.secret.
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
    let mut mistakes: Vec<String> =
        patterns.filter_map(|pattern| Pattern::parse(pattern).err()).map(|error| error.to_string()).collect();
    let secret = match (&args.key, config.auth.secret) {
        (Some(file), _) => Some(read_key(file)?),
        (None, secret) => secret,
    };
    if secret.is_none() {
        mistakes.push("nothing to sign with: set auth.secret (AKIS_AUTH__SECRET) or give --key FILE".to_owned());
    }
    let Some(secret) = secret.filter(|_| mistakes.is_empty()) else { return Err(Failure::Usage(mistakes)) };
    let token = sign(
        &secret,
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
pub(crate) fn sign(secret: &Secret, terms: &Terms<'_>) -> anyhow::Result<String> {
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
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).context("cannot sign the token")
}

fn read_key(file: &std::path::Path) -> Result<Secret, Failure> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read --key {}", file.display()))?;
    // Editors end a file with a line break, which is no part of the secret.
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.contains("-----BEGIN ") {
        return Err(Failure::usage("--key holds PEM, which is not supported by this version; use an HS256 secret"));
    }
    if secret.len() < MIN_SECRET_BYTES {
        return Err(Failure::usage(format!("--key must hold {MIN_SECRET_BYTES} bytes or more")));
    }
    Ok(Secret::new(secret))
}

/// Reads a duration of the command line.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write it like 30s, 15m or 1h".to_owned())
}
