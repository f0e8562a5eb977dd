//! The scripts: one call each, so that what is checked and what is written are one moment.

use bytes::Bytes;

use super::call::Call;
use super::link::{At, Link, Reply};
use super::reply::text;
use crate::store::StoreError;

const PRELUDE: &str = include_str!("prelude.lua");

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
        })
    }
}

impl Script {
    async fn load(link: &Link, source: &str, is_read_only: bool) -> Result<Self, StoreError> {
        let body = Bytes::from(format!("{PRELUDE}\n{source}"));
        let hash = link.call("SCRIPT", At::Anywhere, vec!["LOAD".into(), body.clone().into()]).await?;
        Ok(Self { hash: text(&hash)?.to_owned().into(), body, is_read_only })
    }

    /// Runs the script. A server that does not know it is told its body: it has then done nothing yet, so this writes nothing
    /// twice.
    pub(super) async fn run(&self, link: &Link, call: &Call) -> Reply {
        let (by_hash, by_body) = if self.is_read_only { ("EVALSHA_RO", "EVAL_RO") } else { ("EVALSHA", "EVAL") };
        match link.call(by_hash, At::Argument(2), call.values(self.hash.clone())).await {
            Err(unavailable) if unavailable.message.starts_with("NOSCRIPT") => {
                link.call(by_body, At::Argument(2), call.values(self.body.clone())).await
            }
            reply => reply,
        }
    }
}
