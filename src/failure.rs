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

    /// Both together: wrong usage as soon as one of them is.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Usage(mut mistakes), other) => {
                mistakes.extend(other.lines());
                Self::Usage(mistakes)
            }
            (failed, Self::Usage(mistakes)) => Self::Usage(failed.lines().into_iter().chain(mistakes).collect()),
            (failed @ Self::Failed(_), Self::Failed(_)) => failed,
        }
    }

    fn lines(self) -> Vec<String> {
        match self {
            Self::Usage(mistakes) => mistakes,
            Self::Failed(error) => vec![format!("{error:#}")],
        }
    }

    /// Says on stderr what went wrong, a line for each, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let code = match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        };
        for line in self.lines() {
            eprintln!("error: {line}");
        }
        ExitCode::from(code)
    }
}

/// Two results, or all that is wrong with either.
pub(crate) fn both<A, B>(a: Result<A, Failure>, b: Result<B, Failure>) -> Result<(A, B), Failure> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(a.and(b)),
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => Err(failure),
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
