//! Why a command did not do its work, and the exit code that says so.

use std::process::ExitCode;

/// A command's failure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage or configuration, one line for each mistake: exit code 2.
    Usage(Vec<String>),
    /// It failed: exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// A single mistake in how the command was called.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(vec![message.into()])
    }

    /// Says on stderr what went wrong, a line for each, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Usage(mistakes) => {
                for mistake in mistakes {
                    eprintln!("error: {mistake}");
                }
                ExitCode::from(2)
            }
            Self::Failed(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(1)
            }
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
