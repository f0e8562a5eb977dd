//! `akis drain`: asks a gateway to send its clients away, and waits until it has.

use anyhow::{Context, anyhow};

use crate::cli::AdminClient;
use crate::failure::Failure;
use crate::http;

#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    admin: AdminClient,
}

pub(crate) async fn run(args: DrainArgs) -> Result<(), Failure> {
    let url = format!("http://{}/drain", args.admin.address()?);
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
