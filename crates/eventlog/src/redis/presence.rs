//! Letting those who stand by see that the holder of a lease is there.
//!
//! It is subscribed to a channel of its own that nobody publishes to. Redis ends a subscription with its connection, and
//! the kernel ends that with the process: whoever is killed is missed long before the lease has run out. One that
//! hangs, or whose node has lost its power, still has it until then.

use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::interfaces::{ClientLike, PubsubInterface};
use fred::types::ConnectHandle;
use fred::types::config::Config;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use super::error::from_client;
use super::link::subscriber;
use crate::store::Unavailable;

/// How long it may take: renewing the lease waits for it.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The subscriptions of one process: opened with the first, and again whenever the connection was lost.
pub(super) struct Presence {
    config: Config,
    link: tokio::sync::Mutex<Link>,
}

#[derive(Default)]
struct Link {
    subscriber: Option<Subscriber>,
    has_warned: bool,
}

/// A client and its tasks, which end with it.
struct Subscriber {
    client: SubscriberClient,
    connection: ConnectHandle,
    renewing: JoinHandle<()>,
}

impl Presence {
    pub(super) fn new(config: &Config) -> Self {
        Self { config: config.clone(), link: tokio::sync::Mutex::default() }
    }

    /// Subscribes to `channel`. When that fails, whoever stands by waits until the lease has run out, and the next renewal
    /// tries again.
    pub(super) async fn show(&self, channel: String) {
        let mut link = self.link.lock().await;
        let shown = timeout(TIMEOUT, link.subscribe(&self.config, channel)).await;
        let why = match shown {
            Ok(Ok(())) => return,
            Ok(Err(unavailable)) => unavailable.message,
            Err(_) => {
                // Else what was asked for in vain would pile up in it.
                link.subscriber = None;
                "no answer".to_owned()
            }
        };
        if !std::mem::replace(&mut link.has_warned, true) {
            warn!(
                why,
                "Redis refuses a subscription (SSUBSCRIBE): when this process is killed, one that stands by waits until its lease has run out"
            );
        }
    }
}

impl Link {
    async fn subscribe(&mut self, config: &Config, channel: String) -> Result<(), Unavailable> {
        let subscriber = match &mut self.subscriber {
            Some(subscriber) => subscriber,
            none => none.insert(Subscriber::open(config).await?),
        };
        subscriber.client.ssubscribe(channel).await.map_err(|error| from_client(&error))
    }
}

impl Subscriber {
    async fn open(config: &Config) -> Result<Self, Unavailable> {
        let client = subscriber(config).map_err(|error| from_client(&error))?;
        let connection = client.init().await.map_err(|error| from_client(&error))?;
        let renewing = client.manage_subscriptions();
        Ok(Self { client, connection, renewing })
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.renewing.abort();
        self.connection.abort();
    }
}
