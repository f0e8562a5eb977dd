//! A recording in the place of the generated markets.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::frames;
use super::hub::{Frame, Hub, Outgoing};
use super::instrument::Instrument;
use super::query::Target;
use super::rest::{self, Answer, Refusal, Reply};
use crate::recording::{Header, Reader, RecordingError};
use crate::{Content, RawFrame};

/// How many frames are read ahead of the moment that is being played.
const READ_AHEAD: usize = 1024;

/// How many requests may wait for a reply that the recording has further on.
const MOST_WAITING: usize = 256;

/// What a reply is about, see [`Target::subject`].
type Subject = (String, Vec<(String, String)>);

/// Who waits for a reply.
struct Asker {
    reply: oneshot::Sender<Reply>,
    used_weight: u32,
}

impl Asker {
    fn answer(self, answer: Answer, now: i64) {
        // Who asked may be gone by now; then nobody minds.
        let _ = self.reply.send(Reply::new(answer, self.used_weight, now));
    }
}

/// A recording that is being played.
///
/// Time stands still until somebody subscribes, and while a client's queue is more than half full: nothing is lost
/// to a fast playback. A reply is given out once its moment has come; requests wait for it.
pub(super) struct Playback {
    header: Header,
    frames: mpsc::Receiver<RawFrame>,
    ahead: Option<RawFrame>,
    speed: f64,
    /// The recording's moment in milliseconds; `None` before the first frame is due.
    position: Option<f64>,
    /// When the position was last moved, by our clock.
    moved_at: i64,
    is_over: bool,
    /// Recorded connections that are open.
    open: HashSet<u32>,
    replies: HashMap<Subject, (u16, String)>,
    waiting: Vec<(Subject, Asker)>,
}

/// The wrapper of a recorded frame.
#[derive(Deserialize)]
struct Wrapped<'a> {
    stream: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Playback {
    /// Opens a recording and begins to read it on a thread of its own.
    pub(super) fn open(file: &Path, speed: f64) -> Result<Self, RecordingError> {
        let (header, reader) = Reader::open(BufReader::new(File::open(file)?))?;
        let (sender, frames) = mpsc::channel(READ_AHEAD);
        // It ends with the file, or at the next frame once the receiver is gone.
        tokio::task::spawn_blocking(move || {
            for frame in reader {
                let outcome = frame.map(|frame| sender.blocking_send(frame));
                match outcome {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(error) => warn!(%error, "a line of the recording is skipped"),
                }
            }
        });
        Ok(Self {
            header,
            frames,
            ahead: None,
            speed,
            position: None,
            moved_at: 0,
            is_over: false,
            open: HashSet::new(),
            replies: HashMap::new(),
            waiting: Vec::new(),
        })
    }

    /// What the recording says about itself.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Plays what is due at `now`.
    pub(super) fn advance(&mut self, now: i64, hub: &mut Hub) {
        hub.now = now;
        let passed = (now - std::mem::replace(&mut self.moved_at, now)) as f64;
        if self.is_over || (self.position.is_none() && !hub.has_readers()) || hub.is_congested() {
            return;
        }
        if let Some(position) = &mut self.position {
            *position += passed * self.speed;
        }
        while !hub.is_congested() {
            let Some(frame) = self.next() else { return };
            let at = frame.received_at as f64;
            let position = *self.position.get_or_insert(at);
            if at > position {
                self.ahead = Some(frame);
                return;
            }
            self.play(frame.content, hub);
        }
    }

    /// Answers a request, now or when the recording has come to it.
    pub(super) fn answer(&mut self, target: &Target, reply: oneshot::Sender<Reply>, used_weight: u32) {
        let asker = Asker { reply, used_weight };
        let subject = target.subject();
        let answer = match self.replies.get(&subject) {
            Some(recorded) => as_answer(recorded),
            None if target.route() == "/exchangeInfo" => Ok(self.exchange_info(target)),
            None if self.is_over => Err(Refusal::unknown_path()),
            None if self.waiting.len() >= MOST_WAITING => Err(Refusal::new(503, -1000, "Too many requests wait.")),
            None => {
                self.waiting.push((subject, asker));
                return;
            }
        };
        asker.answer(answer, self.moved_at);
    }

    /// Whether the recording is one of this symbol, as far as it says so.
    pub(super) fn has(&self, symbol: &str) -> bool {
        self.header.symbols.as_ref().is_none_or(|symbols| symbols.iter().any(|found| found == symbol))
    }

    /// The next frame; `None` when none has been read yet or the recording is over.
    fn next(&mut self) -> Option<RawFrame> {
        if let Some(frame) = self.ahead.take() {
            return Some(frame);
        }
        match self.frames.try_recv() {
            Ok(frame) => Some(frame),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => {
                self.is_over = true;
                for (_, asker) in self.waiting.drain(..) {
                    asker.answer(Err(Refusal::unknown_path()), self.moved_at);
                }
                None
            }
        }
    }

    fn play(&mut self, content: Content, hub: &mut Hub) {
        match content {
            Content::Text { connection, text } => {
                self.open.insert(connection);
                play_text(text, hub);
            }
            Content::Reply { target, status, body } => self.play_reply(&target, status, body),
            Content::Closed { connection, code } => {
                self.open.remove(&connection);
                // While another recorded connection is open, this was a rotation and nothing was missed.
                if self.open.is_empty() {
                    match code {
                        1006 => hub.cut_all(),
                        code => hub.send_all(|_| Outgoing::Close(code, String::new())),
                    }
                }
            }
            // The venue sends none.
            Content::Binary { .. } => {}
        }
    }

    fn play_reply(&mut self, target: &str, status: u16, body: String) {
        let Some(target) = Target::parse(target) else { return };
        let subject = target.subject();
        let recorded = (status, body);
        for (_, asker) in self.waiting.extract_if(.., |(wanted, _)| *wanted == subject) {
            asker.answer(as_answer(&recorded), self.moved_at);
        }
        self.replies.insert(subject, recorded);
    }

    /// The recording may have none, so it is made from the names.
    fn exchange_info(&self, target: &Target) -> String {
        let symbols = self.header.symbols.iter().flatten();
        let named = |symbol: &String| Instrument::named(target.market(), symbol);
        let infos: Vec<_> = symbols.map(|symbol| frames::symbol_info(&named(symbol), "TRADING")).collect();
        rest::exchange_info_body(target, self.header.started_at, &infos)
    }
}

/// Sends a recorded frame on. One without a wrapper is a reply to a control message: who plays it asked nothing.
fn play_text(text: String, hub: &mut Hub) {
    let Ok(Wrapped { stream, data }) = serde_json::from_str(&text) else { return };
    if !hub.wants(stream) {
        return;
    }
    let (name, kind) = stream.split_once('@').unwrap_or((stream, ""));
    hub.publish(Frame {
        stream,
        symbol: &name.to_ascii_uppercase(),
        is_diff: matches!(kind, "depth" | "depth@100ms"),
        data: data.get().to_owned(),
        wrapped: Some(text.clone()),
    });
}

fn as_answer((status, body): &(u16, String)) -> Answer {
    match status {
        200 => Ok(body.clone()),
        status => Err(Refusal::new(*status, -1000, "The recording has a failure here.")),
    }
}
