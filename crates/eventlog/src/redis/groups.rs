//! Consumer groups of the feeds: `gw:<replica>:<generation>`, one for each connection of each replica.

use std::time::Duration;

use super::keys::Keys;
use super::link::{At, Link, Reply};
use super::reply::{array, field, number, text};
use crate::store::{FeedId, Partition, StoreError};

/// The one consumer of a group.
pub(super) const CONSUMER: &str = "reader";

/// The group of one connection of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) replica: String,
    pub(super) generation: u64,
}

impl Group {
    pub(super) fn name(&self) -> String {
        format!("gw:{}:{}", self.replica, self.generation)
    }

    /// Parses a name; `None` for groups of others.
    fn parse(name: &str) -> Option<Self> {
        let (replica, generation) = name.strip_prefix("gw:")?.rsplit_once(':')?;
        Some(Self { replica: replica.to_owned(), generation: generation.parse().ok()? })
    }

    /// Makes the group behind `start`, and the feed with it when there is none. One of the same name, left by a
    /// connection that was given up, is made anew.
    pub(super) async fn create(&self, link: &Link, feed: &str, start: FeedId) -> Result<(), StoreError> {
        let start = format!("{}-{}", start.ms, start.n);
        match self.command(link, "CREATE", feed, &[&start, "MKSTREAM"]).await {
            Err(unavailable) if unavailable.kind == "BUSYGROUP" => {
                self.destroy(link, feed).await?;
                self.command(link, "CREATE", feed, &[&start, "MKSTREAM"]).await?;
            }
            reply => {
                reply?;
            }
        }
        // The consumer's idle time is what tells the age of a group that was never read.
        self.command(link, "CREATECONSUMER", feed, &[CONSUMER]).await?;
        Ok(())
    }

    /// Removes the group; a blocked reader of it is told `NOGROUP`.
    pub(super) async fn destroy(&self, link: &Link, feed: &str) -> Result<(), StoreError> {
        self.command(link, "DESTROY", feed, &[]).await?;
        Ok(())
    }

    /// Whether nobody has read it for `grace`.
    async fn is_idle(&self, link: &Link, feed: &str, grace: Duration) -> Result<bool, StoreError> {
        let args = vec!["CONSUMERS".into(), feed.into(), self.name().into()];
        let reply = link.call("XINFO", At::Argument(1), args).await?;
        for consumer in array(&reply)? {
            let idle_ms = field(consumer, "idle")?.map_or(Ok(0), number)?;
            if u128::from(idle_ms) < grace.as_millis() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn command(&self, link: &Link, action: &'static str, feed: &str, rest: &[&str]) -> Reply {
        let mut args = vec![action.into(), feed.into(), self.name().into()];
        args.extend(rest.iter().map(|&arg| arg.into()));
        link.call("XGROUP", At::Argument(1), args).await
    }
}

/// The groups of a feed that replicas have made.
async fn list(link: &Link, feed: &str) -> Result<Vec<Group>, StoreError> {
    let reply = match link.call("XINFO", At::Argument(1), vec!["GROUPS".into(), feed.into()]).await {
        Err(unavailable) if unavailable.message.starts_with("ERR no such key") => return Ok(Vec::new()),
        reply => reply?,
    };
    let mut groups = Vec::new();
    for group in array(&reply)? {
        if let Some(name) = field(group, "name")? {
            groups.extend(Group::parse(text(name)?));
        }
    }
    Ok(groups)
}

/// Removes the groups of `replica` from a feed, except that of the generation `keep`.
pub(super) async fn remove(link: &Link, feed: &str, replica: &str, keep: Option<u64>) -> Result<(), StoreError> {
    for group in list(link, feed).await? {
        if group.replica == replica && Some(group.generation) != keep {
            group.destroy(link, feed).await?;
        }
    }
    Ok(())
}

/// Removes the groups of replicas whose key is gone and that nobody has read for `grace`.
pub(super) async fn sweep(link: &Link, keys: &Keys, partition: Partition, grace: Duration) -> Result<(), StoreError> {
    let feed = keys.feed(partition);
    for group in list(link, &feed).await? {
        let key = keys.replica(&group.replica);
        let is_alive = number(&link.call("EXISTS", At::Argument(0), vec![key.into()]).await?)? == 1;
        if !is_alive && group.is_idle(link, &feed, grace).await? {
            tracing::info!(group = %group.name(), %partition, "removing the group of a replica that is gone");
            group.destroy(link, &feed).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups_are_taken_apart_from_the_end() {
        let group = Group { replica: "gw-1:x".to_owned(), generation: 12 };
        assert_eq!(group.name(), "gw:gw-1:x:12");
        assert_eq!(Group::parse("gw:gw-1:x:12"), Some(group));
        for other in ["gw:only", "mirror", "gw:a:b", "gw:a:-1"] {
            assert_eq!(Group::parse(other), None, "{other}");
        }
    }
}
