//! The wall clock of a server, to be set while it runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Preloaded into the server.
const SOURCE: &str = include_str!("clock.c");

/// A clock that is right until it is set.
#[derive(Debug)]
pub(crate) struct Clock {
    dir: TempDir,
}

impl Clock {
    /// Makes one, with the C compiler that Rust links with.
    ///
    /// # Errors
    ///
    /// When it cannot be compiled.
    pub(crate) fn new() -> Result<Self> {
        let clock = Self { dir: tempfile::tempdir().context("make a directory for the clock")? };
        let source = clock.path("clock.c");
        fs::write(&source, SOURCE).context("write the clock's source")?;
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(clock.path("clock.so")).arg(source);
        ensure!(compile.status().context("run cc")?.success(), "cc cannot compile the clock");
        clock.set(0)?;
        Ok(clock)
    }

    /// Puts a process that is about to be started under this clock.
    pub(crate) fn rule(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.path("clock.so")).env("AKIS_CLOCK_FILE", self.path("offset"));
    }

    /// Sets it so many seconds off.
    ///
    /// # Errors
    ///
    /// When its file cannot be written.
    pub(crate) fn set(&self, seconds: i64) -> Result<()> {
        // In place: the file is mapped by whoever runs under the clock.
        let mut file = fs::File::options().write(true).create(true).truncate(false).open(self.path("offset"))?;
        std::io::Write::write_all(&mut file, &seconds.to_ne_bytes()).context("set the clock")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
