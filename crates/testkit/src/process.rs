//! Processes under test: output captured line by line, signals, ended with the value.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::wait_until;

/// A running program, whose lines on stdout and stderr are kept in the order in which they came.
pub struct Process {
    child: Child,
    lines: watch::Receiver<Vec<String>>,
}

impl Process {
    /// Starts `program` with `args`, and with `env` added to the environment.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn spawn(program: impl AsRef<OsStr>, args: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        Self::start(Command::new(program).args(args).envs(env.iter().copied()))
    }

    /// Starts a command whose directory and environment are already set up.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let (sender, lines) = watch::channel(Vec::new());
        let sender = Arc::new(sender);
        if let Some(stdout) = child.stdout.take() {
            capture(stdout, Arc::clone(&sender));
        }
        if let Some(stderr) = child.stderr.take() {
            capture(stderr, sender);
        }
        Ok(Self { child, lines })
    }

    /// Everything it has said so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Waits for a line that contains `text`, said before or after this call, and gives the first one.
    ///
    /// # Errors
    ///
    /// When none comes in time or the output ends; everything that was said is in the message.
    pub async fn wait_for_line(&mut self, text: &str, within: Duration) -> Result<String> {
        let mut lines = self.lines.clone();
        let has_it = |lines: &Vec<String>| lines.iter().any(|line| line.contains(text));
        let found = timeout(within, lines.wait_for(has_it)).await;
        if let Ok(Ok(lines)) = found
            && let Some(line) = lines.iter().find(|line| line.contains(text))
        {
            return Ok(line.clone());
        }
        bail!("no line with {text:?} within {within:?}, only:\n{}", self.lines().join("\n"))
    }

    /// Asks it to end, with SIGTERM.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn terminate(&self) -> Result<()> {
        signal(self.child.id(), "TERM")
    }

    /// Asks it to end as a terminal does, with SIGINT.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn interrupt(&self) -> Result<()> {
        signal(self.child.id(), "INT")
    }

    /// Ends it at once, with SIGKILL, and waits for that.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Stops it where it stands, with SIGSTOP.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        signal(self.child.id(), "STOP")
    }

    /// Lets it go on, with SIGCONT.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        signal(self.child.id(), "CONT")
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    ///
    /// When it still runs after the time given.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let mut status = None;
        let child = &mut self.child;
        wait_until(within, "the process has ended", async || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        })
        .await
        .with_context(|| self.lines.borrow().join("\n"))?;
        status.context("the process has ended without a status")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills a child and takes its status, so that nothing of it stays behind.
pub(crate) fn end(child: &mut Child) {
    // Both fail only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// Sends a signal by its name. The shell knows how everywhere; `std` only knows SIGKILL.
pub(crate) fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().context("run sh")?;
    if !status.success() {
        bail!("send SIG{name} to process {pid}: {status}");
    }
    Ok(())
}

/// Collects lines on a thread that ends with the output. The channel holds all of them: a test is short.
fn capture(output: impl Read + Send + 'static, lines: Arc<watch::Sender<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            lines.send_modify(|lines| lines.push(line));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_captured_and_the_end_is_seen() {
        let mut process =
            Process::spawn("sh", &["-c", "echo $WORD; echo err >&2; exit 3"], &[("WORD", "out")]).unwrap();
        assert_eq!(process.wait_for_line("out", Duration::from_secs(5)).await.unwrap(), "out");
        assert_eq!(process.wait_for_line("err", Duration::from_secs(5)).await.unwrap(), "err");
        assert!(process.wait_for_line("more", Duration::from_secs(5)).await.is_err());
        assert_eq!(process.wait(Duration::from_secs(5)).await.unwrap().code(), Some(3));
    }
}
