//! A recording in the place of the generated markets.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::frames;
use super::hub::{Frame, Hub};
use super::instrument::Instrument;
use super::query::Target;
use super::rest::{self, Answer, Refusal, Reply};
use crate::Content;
use crate::recording::Header;
use crate::sim::client::Outgoing;
use crate::sim::player::Player;
use crate::sim::replies::{Recorded, Replies};
use crate::symbols::is_symbol;

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
/// to a fast playback. A reply is given out once its moment has come; requests wait for it. Only what was looked up
/// before anything came over a connection is there at once.
pub(super) struct Playback {
    player: Player,
    replies: Replies<Subject, Asker>,
}

/// The wrapper of a recorded frame.
#[derive(Deserialize)]
struct Wrapped<'a> {
    stream: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Playback {
    /// Nothing has been played yet.
    pub(super) fn new(player: Player) -> Self {
        Self { player, replies: Replies::default() }
    }

    /// What the recording says about itself.
    pub(super) fn header(&self) -> &Header {
        self.player.header()
    }

    /// Plays what is due at `now`.
    pub(super) fn advance(&mut self, now: i64, hub: &mut Hub) {
        hub.move_to(now);
        let waits = !self.player.has_begun() && !hub.has_readers();
        let stands_still = waits || hub.is_congested();
        self.player.move_to(now, stands_still);
        while let Some(frame) = self.player.next_lookup() {
            self.play(frame.content, hub);
        }
        while !stands_still
            && !hub.is_congested()
            && let Some(frame) = self.player.next_due()
        {
            self.play(frame.content, hub);
        }
        if self.player.is_over() {
            for asker in self.replies.give_up() {
                asker.answer(Err(Refusal::unknown_path()), now);
            }
        }
    }

    /// Answers a request, now or when the recording has come to it.
    pub(super) fn answer(&mut self, target: &Target, reply: oneshot::Sender<Reply>, used_weight: u32) {
        let asker = Asker { reply, used_weight };
        let subject = target.subject();
        let answer = match self.replies.latest(&subject) {
            Some(recorded) => as_answer(recorded),
            None if target.route() == "/exchangeInfo" => Ok(self.exchange_info(target)),
            None if self.player.is_over() => Err(Refusal::unknown_path()),
            None => {
                if let Err(asker) = self.replies.wait(subject, asker, |asker| asker.reply.is_closed()) {
                    asker.answer(Err(Refusal::new(503, -1000, "Too many requests wait.")), self.player.moved_at());
                }
                return;
            }
        };
        asker.answer(answer, self.player.moved_at());
    }

    /// Whether the recording is one of this symbol, as far as it says so.
    pub(super) fn has(&self, symbol: &str) -> bool {
        self.player.has(symbol)
    }

    fn play(&mut self, content: Content, hub: &mut Hub) {
        match content {
            Content::Text { text, .. } => play_text(text, hub),
            Content::Reply { target, status, body } => self.play_reply(&target, status, body),
            Content::Closed { code, .. } if self.player.is_unconnected() => match code {
                1006 => hub.cut_all(),
                code => hub.send_all(|_| Outgoing::Close(code, String::new())),
            },
            Content::Closed { .. } => {}
            // The venue sends none.
            Content::Binary { .. } => {}
        }
    }

    fn play_reply(&mut self, target: &str, status: u16, body: String) {
        let Some(target) = Target::parse(target) else { return };
        let recorded = (status, body);
        let answer = as_answer(&recorded);
        for asker in self.replies.take(target.subject(), recorded) {
            asker.answer(answer.clone(), self.player.moved_at());
        }
    }

    /// The recording may have none, so it is made from the names.
    fn exchange_info(&self, target: &Target) -> String {
        let symbols = self.header().symbols.iter().flatten().filter(|symbol| is_symbol(symbol));
        let named = |symbol: &String| Instrument::named(target.market(), symbol);
        let infos: Vec<_> = symbols.map(|symbol| frames::symbol_info(&named(symbol), "TRADING")).collect();
        rest::exchange_info_body(target, self.header().started_at, &infos)
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

fn as_answer((status, body): &Recorded) -> Answer {
    match status {
        200 => Ok(body.clone()),
        status => Err(Refusal::new(*status, -1000, "The recording has a failure here.")),
    }
}
