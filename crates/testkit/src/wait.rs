//! Waiting for a condition.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How often the condition is looked at.
const EVERY: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Errors
///
/// When it does not hold `within` the time given; `what` says what was waited for.
pub async fn wait_until(within: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + within;
    while !condition().await {
        if Instant::now() >= deadline {
            bail!("waited {within:?} in vain until {what}");
        }
        sleep(EVERY).await;
    }
    Ok(())
}
