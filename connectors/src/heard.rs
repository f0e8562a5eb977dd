//! What a session yields, as tests listen to it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::frame::{Content, RawFrame};

const WITHIN: Duration = Duration::from_secs(20);

/// The frames of a session.
pub(crate) struct Heard(pub(crate) mpsc::Receiver<RawFrame>);

impl Heard {
    /// The connection and the text of the next frame that has this in it.
    pub(crate) async fn next(&mut self, wanted: &str) -> (u32, String) {
        let listening = async {
            loop {
                let content = self.0.recv().await.expect("the session goes on").content;
                if let Content::Text { connection, text } = content
                    && text.contains(wanted)
                {
                    return (connection, text);
                }
            }
        };
        timeout(WITHIN, listening).await.expect(wanted)
    }

    /// Listens until a connection ends.
    pub(crate) async fn until_closed(&mut self, wanted: u32) {
        let listening = async {
            loop {
                let content = self.0.recv().await.expect("the session goes on").content;
                if matches!(content, Content::Closed { connection, .. } if connection == wanted) {
                    return;
                }
            }
        };
        timeout(WITHIN, listening).await.expect("the old connection gives way");
    }
}
