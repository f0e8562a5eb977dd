//! `akis drain`: asks a gateway to send its clients away, and waits until it has.

use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::cli::AdminClient;
use crate::failure::Failure;
use crate::http;

#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    admin: AdminClient,
    /// Wait before asking, until balancers have learned that the gateway goes away: 5s.
    #[arg(long, value_name = "DURATION", value_parser = super::token::duration)]
    delay: Option<Duration>,
}

pub(crate) async fn run(args: DrainArgs) -> Result<(), Failure> {
    let url = format!("http://{}/drain", args.admin.address()?);
    if let Some(delay) = args.delay {
        tokio::time::sleep(delay).await;
    }
    // No time-out: the gateway knows how long it drains, and its end closes the connection.
    let response =
        http::client()?.post(&url).send().await.with_context(|| format!("no answer from the admin port at {url}"))?;
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    if status.is_success() {
        eprintln!("drained");
        return Ok(());
    }
    Err(anyhow!("not drained: {}", http::explain(status.as_u16(), &body)).into())
}
