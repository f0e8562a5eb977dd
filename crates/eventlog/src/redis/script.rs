//! The scripts: one call each, so that what is checked and what is written are one moment.

use bytes::Bytes;
use fred::types::Value;
use fred::util::redis_keyslot;

use super::call::Call;
use super::link::{At, Link, Reply};
use super::reply::text;
use crate::store::StoreError;

const PRELUDE: &str = include_str!("prelude.lua");

/// Behind the hash and the number of keys.
const FIRST_KEY: usize = 2;

/// One script, known to the server by its hash.
#[derive(Debug, Clone)]
pub(super) struct Script {
    body: Bytes,
    hash: Bytes,
    is_read_only: bool,
}

/// All scripts of the log.
#[derive(Debug, Clone)]
pub(super) struct Scripts {
    pub(super) ends: Script,
    pub(super) fence: Script,
    pub(super) publish: Script,
    pub(super) mark: Script,
    pub(super) append: Script,
    pub(super) candles: Script,
    pub(super) range: Script,
    pub(super) channels: Script,
    pub(super) look: Script,
    pub(super) lease: Script,
    pub(super) trim: Script,
}

impl Scripts {
    /// Loads the scripts and learns their hashes.
    pub(super) async fn load(link: &Link) -> Result<Self, StoreError> {
        Ok(Self {
            ends: Script::load(link, include_str!("ends.lua"), false).await?,
            fence: Script::load(link, include_str!("fence.lua"), false).await?,
            publish: Script::load(link, include_str!("publish.lua"), false).await?,
            mark: Script::load(link, include_str!("mark.lua"), false).await?,
            append: Script::load(link, include_str!("append.lua"), false).await?,
            candles: Script::load(link, include_str!("candles.lua"), false).await?,
            range: Script::load(link, include_str!("range.lua"), true).await?,
            channels: Script::load(link, include_str!("channels.lua"), true).await?,
            look: Script::load(link, include_str!("look.lua"), true).await?,
            lease: Script::load(link, include_str!("lease.lua"), false).await?,
            trim: Script::load(link, include_str!("trim.lua"), false).await?,
        })
    }
}

impl Script {
    async fn load(link: &Link, source: &str, is_read_only: bool) -> Result<Self, StoreError> {
        let body = Bytes::from(format!("{PRELUDE}\n{source}"));
        let mut script = Self { body, hash: Bytes::new(), is_read_only };
        let hash = link.call("SCRIPT", At::Anywhere, script.loading()).await?;
        script.hash = text(&hash)?.to_owned().into();
        Ok(script)
    }

    /// Runs the script. A server that does not know it, as after a start or a promotion, is told: it has then done nothing yet, so
    /// this writes nothing twice.
    pub(super) async fn run(&self, link: &Link, call: &Call) -> Reply {
        let command = if self.is_read_only { "EVALSHA_RO" } else { "EVALSHA" };
        let values = || call.values(self.hash.clone());
        match link.call(command, At::Argument(FIRST_KEY), values()).await {
            Err(unavailable) if unavailable.message.starts_with("NOSCRIPT") => {
                let values = values();
                let key = values.get(FIRST_KEY).and_then(Value::as_bytes).unwrap_or_default();
                link.call("SCRIPT", At::Slot(redis_keyslot(key)), self.loading()).await?;
                link.call(command, At::Argument(FIRST_KEY), values).await
            }
            reply => reply,
        }
    }

    /// What loads it, behind `SCRIPT`. Roles may do that, and run scripts by their hash alone.
    fn loading(&self) -> Vec<Value> {
        vec!["LOAD".into(), self.body.clone().into()]
    }
}
