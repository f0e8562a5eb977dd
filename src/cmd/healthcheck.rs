//! `akis healthcheck`: the admin port's `/readyz` as an exit code, for containers without a shell.

use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::cli::AdminClient;
use crate::failure::Failure;
use crate::http;

/// Shorter than the time-outs that orchestrators give a check.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct HealthcheckArgs {
    #[command(flatten)]
    admin: AdminClient,
}

pub(crate) async fn run(args: HealthcheckArgs) -> Result<(), Failure> {
    let url = format!("http://{}/readyz", args.admin.address()?);
    let response = http::client()?
        .get(&url)
        .timeout(TIMEOUT)
        .send()
        .await
        .with_context(|| format!("no answer from the admin port at {url}"))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let body = response.bytes().await.unwrap_or_default();
    Err(anyhow!("not ready: {}", http::explain(status.as_u16(), &body)).into())
}
