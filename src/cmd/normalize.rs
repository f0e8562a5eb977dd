//! `akis normalize`: recordings in, the events they give out. Pure: the same files give the same output.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::path::PathBuf;

use akis_normalizer::{ReplayError, replay};
use anyhow::{Context, anyhow};

use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct NormalizeArgs {
    /// Recordings, played in order as one run.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Publish as seldom as a live normalizer does.
    #[arg(long)]
    throttle: bool,
}

pub(crate) fn run(args: NormalizeArgs) -> Result<(), Failure> {
    let open = |path: &PathBuf| -> anyhow::Result<BufReader<File>> {
        Ok(BufReader::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?))
    };
    // All of them first: a wrong name is told before anything is printed.
    let files = args.files.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let playing = Cell::new(None);
    let files = args.files.iter().zip(files).map(|(path, file)| {
        playing.set(Some(path));
        file
    });
    let played = replay(files, args.throttle, &mut out);
    let flushed = out.flush();
    match (played, flushed) {
        (Err(ReplayError::Write(error)), _) | (Ok(_), Err(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        (Err(error @ ReplayError::Write(_)), _) => Err(anyhow!(error).into()),
        (Err(error @ (ReplayError::Recording(_) | ReplayError::UnknownMarket { .. })), _) => {
            let file = playing.get().map(|path| path.display().to_string()).unwrap_or_default();
            Err(anyhow!(error).context(format!("cannot play {file}")).into())
        }
        (Ok(_), Err(error)) => Err(anyhow!(error).context("cannot write to stdout").into()),
        (Ok(summary), Ok(())) => {
            eprintln!("{summary}");
            Ok(())
        }
    }
}
