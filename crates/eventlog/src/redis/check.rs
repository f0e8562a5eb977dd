//! What is checked before a log is used: the server's version, its eviction policy, the number of partitions.

use fred::types::Value;

use super::error::ConnectError;
use super::keys::Keys;
use super::link::{At, Link};
use super::reply::{optional, text};
use crate::store::StoreError;

/// Checks the servers, and stores the number of partitions in a new log.
pub(super) async fn check(link: &Link, keys: &Keys, partitions: u16) -> Result<(), ConnectError> {
    // Each of them has a part of the log.
    for primary in link.primaries() {
        check_version(&info(link, primary, "server").await?)?;
        check_eviction(&info(link, primary, "memory").await?)?;
    }
    match other_shape(link, keys, partitions).await? {
        Some(stored) => Err(ConnectError::Partitions { stored, configured: partitions }),
        None => Ok(()),
    }
}

/// The number of partitions that the log has, when it is another one. A new log is given this one.
pub(super) async fn other_shape(link: &Link, keys: &Keys, partitions: u16) -> Result<Option<String>, StoreError> {
    // Read before it is written, so that a server out of memory can still be read from.
    let key = keys.partitions();
    let stored = match ask(link, "GET", vec![key.as_str().into()]).await? {
        Some(stored) => Some(stored),
        None => {
            let partitions = i64::from(partitions).into();
            ask(link, "SET", vec![key.as_str().into(), partitions, "NX".into(), "GET".into()]).await?
        }
    };
    Ok(stored.filter(|stored| *stored != partitions.to_string()))
}

async fn info(link: &Link, at: At, section: &'static str) -> Result<String, ConnectError> {
    let reply = link.call("INFO", at, vec![section.into()]).await?;
    Ok(text(&reply)?.to_owned())
}

async fn ask(link: &Link, command: &'static str, args: Vec<Value>) -> Result<Option<String>, StoreError> {
    let reply = link.call(command, At::Argument(0), args).await?;
    optional(&reply, |frame| text(frame).map(str::to_owned))
}

/// Valkey gives the version of Redis that it stands for, which is 7.2 at least.
fn check_version(info: &str) -> Result<(), ConnectError> {
    let version = field(info, "redis_version").unwrap_or("of an unknown version");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major >= 7) { Ok(()) } else { Err(ConnectError::Version(version.to_owned())) }
}

/// `INFO` is allowed where `CONFIG` often is not, and says the same.
fn check_eviction(info: &str) -> Result<(), ConnectError> {
    match field(info, "maxmemory_policy") {
        Some("noeviction") => Ok(()),
        policy => Err(ConnectError::Eviction(policy.unwrap_or("unknown").to_owned())),
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_and_eviction_are_refused() {
        assert_eq!(check_version("# Server\r\nredis_version:7.0.15\r\n"), Ok(()));
        assert_eq!(check_version("redis_version:10.1.0\r\n"), Ok(()));
        assert_eq!(check_version("redis_version:6.2.14\r\n"), Err(ConnectError::Version("6.2.14".to_owned())));
        assert!(check_version("").is_err());
        assert_eq!(check_eviction("maxmemory:0\r\nmaxmemory_policy:noeviction\r\n"), Ok(()));
        let lru = "maxmemory_policy:allkeys-lru\r\n";
        assert_eq!(check_eviction(lru), Err(ConnectError::Eviction("allkeys-lru".to_owned())));
    }
}
