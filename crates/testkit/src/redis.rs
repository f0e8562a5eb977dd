//! A `redis-server` of its own for each test.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::process::{end, signal};
use crate::wait_until;

/// How long a server may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often another port is tried, when somebody else took the one that was free a moment ago.
const START_ATTEMPTS: usize = 5;

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Keeps an append-only file, so that [`RedisServer::restart`] finds everything again.
    pub appendonly: bool,
    /// Has a wall clock of its own, for [`RedisServer::set_clock`].
    pub has_clock: bool,
    /// More of the command line: `--maxmemory 10mb`.
    pub args: Vec<String>,
}

/// A running server. It ends with the value.
pub struct RedisServer {
    dir: TempDir,
    port: u16,
    options: RedisOptions,
    clock: Option<Clock>,
    child: Child,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk.
    ///
    /// # Errors
    ///
    /// When `redis-server` is not installed or does not start; its log is in the message.
    pub async fn start() -> Result<Self> {
        Self::start_with(RedisOptions::default()).await
    }

    /// Starts a server.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::start`].
    pub async fn start_with(options: RedisOptions) -> Result<Self> {
        let mut failure = None;
        for _ in 0..START_ATTEMPTS {
            let dir = tempfile::tempdir().context("make a directory for Redis")?;
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let clock = options.has_clock.then(Clock::new).transpose()?;
            let child = spawn(&dir, port, &options, clock.as_ref())?;
            let mut server = Self { dir, port, options: options.clone(), clock, child };
            match server.wait_ready().await {
                Ok(()) => return Ok(server),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| anyhow::anyhow!("redis-server was not started")))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Kills the server, with SIGKILL.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Kills the server when it runs, and starts it again on the same port, with what it kept on disk.
    ///
    /// # Errors
    ///
    /// When it does not come back.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.child = spawn(&self.dir, self.port, &self.options, self.clock.as_ref())?;
        self.wait_ready().await
    }

    /// Kills the server when it runs, and starts an empty one on the same port.
    ///
    /// # Errors
    ///
    /// When it does not come back.
    pub async fn restart_empty(&mut self) -> Result<()> {
        self.kill();
        self.dir = tempfile::tempdir().context("make a directory for Redis")?;
        self.restart().await
    }

    /// Stops the server where it stands: connections stay open, and nothing answers.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        signal(self.child.id(), "STOP")
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        signal(self.child.id(), "CONT")
    }

    /// Sets the server's wall clock so many seconds off, at once; it stays so when the server is started again.
    ///
    /// # Errors
    ///
    /// When it was started without [`RedisOptions::has_clock`].
    pub fn set_clock(&self, seconds: i64) -> Result<()> {
        self.clock.as_ref().context("the server has no clock of its own")?.set(seconds)
    }

    /// Makes this server a replica of the one at `primary`, which may be a proxy, and waits until it is in step.
    ///
    /// # Errors
    ///
    /// When it does not get there.
    pub async fn replica_of(&self, primary: SocketAddr) -> Result<()> {
        let (host, port) = (primary.ip().to_string(), primary.port().to_string());
        self.command(&["REPLICAOF", &host, &port]).await?;
        wait_until(DEADLINE, "the replica is in step", async || {
            let info = self.command(&["INFO", "replication"]).await;
            info.is_ok_and(|info| info.contains("master_link_status:up"))
        })
        .await
    }

    /// Makes this server a primary.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub async fn promote(&self) -> Result<()> {
        self.command(&["REPLICAOF", "NO", "ONE"]).await?;
        Ok(())
    }

    /// Sends one command on a connection of its own. Arrays become lines, null an empty line.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, does not answer in time, or answers with an error.
    pub async fn command(&self, args: &[&str]) -> Result<String> {
        timeout(DEADLINE, self.ask(args)).await.context("redis-server does not answer")?
    }

    async fn ask(&self, args: &[&str]) -> Result<String> {
        let mut request = format!("*{}\r\n", args.len());
        for arg in args {
            request.push_str(&format!("${}\r\n{arg}\r\n", arg.len()));
        }
        let mut stream = BufReader::new(TcpStream::connect(self.address()).await?);
        stream.write_all(request.as_bytes()).await?;
        let mut lines = Vec::new();
        // How many values are still to come; an array adds its elements.
        let mut pending = 1_u64;
        while pending > 0 {
            pending -= 1;
            let mut head = String::new();
            stream.read_line(&mut head).await?;
            let head = head.trim_end();
            match head.split_at_checked(1) {
                Some(("-", message)) => bail!("{}: {message}", args.join(" ")),
                Some(("$", length)) => lines.push(read_string(&mut stream, length).await?),
                Some(("*", length)) => pending += length.parse::<u64>().unwrap_or(0),
                Some((_, value)) => lines.push(value.to_owned()),
                None => bail!("the connection was closed"),
            }
        }
        Ok(lines.join("\n"))
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let address = self.address();
        wait_until(DEADLINE, "redis-server answers", async || {
            // One that has ended does not get ready any more; one that asks for a password is ready.
            let pong = self.command(&["PING"]).await.unwrap_or_else(|error| error.to_string());
            !matches!(self.child.try_wait(), Ok(None)) || pong == "PONG" || pong.contains("NOAUTH")
        })
        .await?;
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            bail!("redis-server on {address} ended ({status}):\n{log}");
        }
        Ok(())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

async fn read_string(stream: &mut BufReader<TcpStream>, length: &str) -> Result<String> {
    let Ok(length) = length.parse::<usize>() else { return Ok(String::new()) };
    let mut value = vec![0; length + 2];
    stream.read_exact(&mut value).await?;
    value.truncate(length);
    Ok(String::from_utf8_lossy(&value).into_owned())
}

fn spawn(dir: &TempDir, port: u16, options: &RedisOptions, clock: Option<&Clock>) -> Result<Child> {
    let log = File::create(dir.path().join("log")).context("make the log of Redis")?;
    let port = port.to_string();
    let appendonly = if options.appendonly { "yes" } else { "no" };
    let mut command = Command::new("redis-server");
    command
        // `everysec` puts a write off while the disk is busy, and a kill then loses what was acknowledged.
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", appendonly])
        .args(["--appendfsync", "always"])
        // A replica is in step at once, and a lost link is noticed within seconds.
        .args(["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--repl-timeout", "5"])
        .args(&options.args)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null());
    if let Some(clock) = clock {
        clock.rule(&mut command);
    }
    match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("redis-server is not installed: apt-get install redis-server")
        }
        started => started.context("start redis-server"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[tokio::test]
    async fn an_append_only_server_comes_back_with_its_data_and_an_empty_one_without() {
        let options = RedisOptions { appendonly: true, ..RedisOptions::default() };
        let mut server = RedisServer::start_with(options).await.unwrap();
        server.command(&["SET", "key", "value"]).await.unwrap();
        server.restart().await.unwrap();
        assert_eq!(server.command(&["GET", "key"]).await.unwrap(), "value");
        server.restart_empty().await.unwrap();
        assert_eq!(server.command(&["GET", "key"]).await.unwrap(), "");
        assert!(server.command(&["NONSENSE"]).await.is_err());
    }

    #[tokio::test]
    async fn a_replica_follows_until_it_is_promoted() {
        let (primary, replica) = (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
        primary.command(&["SET", "key", "value"]).await.unwrap();
        replica.replica_of(primary.address()).await.unwrap();
        assert_eq!(replica.command(&["GET", "key"]).await.unwrap(), "value");
        replica.promote().await.unwrap();
        assert_eq!(replica.command(&["SET", "key", "other"]).await.unwrap(), "OK");
    }

    #[tokio::test]
    async fn a_clock_is_set_while_the_server_runs() {
        let options = RedisOptions { has_clock: true, ..RedisOptions::default() };
        let mut server = RedisServer::start_with(options).await.unwrap();
        let is_off_by = async |server: &RedisServer, seconds: i64| {
            let told = server.command(&["EVAL", "return redis.call('TIME')[1]", "0"]).await.unwrap();
            let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
            (told.parse::<i64>().unwrap() - here - seconds).abs() < 30
        };
        assert!(is_off_by(&server, 0).await);
        for seconds in [3600, -3600] {
            server.set_clock(seconds).unwrap();
            assert!(is_off_by(&server, seconds).await);
        }
        server.restart().await.unwrap();
        assert!(is_off_by(&server, -3600).await);
        assert!(RedisServer::start().await.unwrap().set_clock(1).is_err());
    }
}
