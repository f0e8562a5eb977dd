//! Runs a session for its frames alone, as a recording needs it.

use std::sync::Arc;

use akis_connectors::{Ports, RawFrame, Settings, Stats, Venue, Wall};
use akis_model::Kind;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::mapper::{Output, mapper};
use crate::run::{FRAMES, REQUESTS, RunError, ticks};

/// Runs the session of a venue and hands on everything that comes in, until `cancel` or until nobody takes it.
///
/// What a mapper would ask for is asked for, so that the frames can be played again: every book has its snapshots.
///
/// # Errors
///
/// [`RunError::NoMapper`] and [`RunError::Session`] at the start, [`RunError::Broken`] when the session panicked.
pub async fn observe(
    venue: &'static Venue,
    settings: Settings,
    frames: mpsc::Sender<RawFrame>,
    cancel: CancellationToken,
) -> Result<(), RunError> {
    let mut mapper = mapper(venue.recorded_as).ok_or(RunError::NoMapper(venue.name))?;
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|&kind| settings.wants(kind)).collect();
    mapper.admit(Some(&settings.symbols), &kinds);

    let cancel = cancel.child_token();
    let (frames_in, mut came) = mpsc::channel(FRAMES);
    let (requests, requests_out) = mpsc::channel(REQUESTS);
    let ports = Ports { frames: frames_in, requests: requests_out, stats: Arc::new(Stats::default()) };
    let session = tokio::spawn((venue.session)(&settings, ports, cancel.clone()));

    let (mut ticks, mut wall) = (ticks(), Wall::default());
    let mut output = Output::default();
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            _ = ticks.tick() => mapper.on_tick(wall.now_ms(), &mut output),
            frame = came.recv() => {
                let Some(frame) = frame else { break };
                mapper.on_frame(&frame, &mut output);
                if frames.send(frame).await.is_err() {
                    break;
                }
            }
        }
        for request in std::mem::take(&mut output).requests {
            // Full or ended: the mapper asks again.
            let _ = requests.try_send(request);
        }
    }
    cancel.cancel();
    Ok(session.await??)
}
