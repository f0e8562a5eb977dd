//! `akis publish`: one event through a gateway, answered with its seq.

use std::io::Write;
use std::time::Duration;

use akis_model::Channel;
use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cli::GatewayClient;
use crate::failure::{Failure, both};
use crate::http;

/// Longer than the 5 s within which a gateway answers when the log is away.
const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    gateway: GatewayClient,
    /// The channel: job:backtest_123.
    channel: String,
    /// The event's name: job_progress.
    event: String,
    /// The event's data, a JSON object.
    #[arg(value_name = "JSON")]
    data: String,
    /// Makes it idempotent: repeated within 10 minutes it is answered with the first seq.
    #[arg(long)]
    id: Option<String>,
}

#[derive(Serialize)]
struct Item<'a> {
    channel: &'a str,
    event: &'a str,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

#[derive(Deserialize)]
struct Published {
    seq: u64,
}

pub(crate) async fn run(args: PublishArgs) -> Result<(), Failure> {
    let target = args.gateway.target(&[], std::slice::from_ref(&args.channel));
    let (body, target) = both(body(&args), target)?;
    let response = http::client()?
        .post(format!("{}/v1/publish", target.url))
        .bearer_auth(&target.token)
        .header("content-type", "application/json")
        .timeout(TIMEOUT)
        .body(body)
        .send()
        .await
        .with_context(|| format!("no answer from {}", target.shown))?;
    let status = response.status();
    let answer = response.bytes().await.context("the answer was cut off")?;
    if !status.is_success() {
        return Err(anyhow!("not published: {}", http::explain(status.as_u16(), &answer)).into());
    }
    let published: Published = serde_json::from_slice(&answer).context("cannot read the gateway's answer")?;
    Ok(writeln!(std::io::stdout(), "{}", published.seq).context("cannot write the seq")?)
}

/// The request, checked as far as it can be without a gateway.
fn body(args: &PublishArgs) -> Result<String, Failure> {
    let mut mistakes = Vec::new();
    if let Err(error) = Channel::parse(&args.channel) {
        mistakes.push(format!("{:?} is no channel: {error}", args.channel));
    }
    let data = match serde_json::from_str::<Box<RawValue>>(&args.data) {
        Ok(data) if data.get().starts_with('{') => Some(data),
        Ok(_) => {
            mistakes.push("JSON must be an object, such as '{\"progress\":7}'".to_owned());
            None
        }
        Err(error) => {
            mistakes.push(format!("JSON cannot be read: {error}"));
            None
        }
    };
    let Some(data) = data.filter(|_| mistakes.is_empty()) else { return Err(Failure::Usage(mistakes)) };
    let item = Item { channel: &args.channel, event: &args.event, data: &data, id: args.id.as_deref() };
    Ok(serde_json::to_string(&item).context("cannot write the request")?)
}
