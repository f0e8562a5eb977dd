//! Puts together what one write takes.

use std::sync::Arc;

use bytes::Bytes;

use crate::run::Run;
use crate::session::Output;
use crate::ws::deflate::Deflater;
use crate::ws::put_text;

/// What a shard keeps of the buffer between writes.
const KEPT_BYTES: usize = 256 << 10;

/// What a client takes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Style {
    /// Several envelopes in one frame.
    pub(super) is_packed: bool,
    /// Compressed messages. Only what many may get is compressed: runs of events.
    pub(super) is_deflated: bool,
}

/// The buffer that all connections of a shard share: contiguous frames of one connection at a time.
#[derive(Debug, Default)]
pub(super) struct Gather {
    frames: Vec<u8>,
    /// Envelopes of a client that takes several in one frame, as an array that is still open.
    packed: Vec<u8>,
    packed_envelopes: usize,
    style: Style,
    deflater: Deflater,
}

impl Gather {
    /// Begins with nothing.
    pub(super) fn begin(&mut self, style: Style) {
        self.frames.clear();
        self.frames.shrink_to(KEPT_BYTES);
        self.packed.clear();
        self.packed.shrink_to(KEPT_BYTES);
        self.packed_envelopes = 0;
        self.style = style;
    }

    /// Adds a whole frame; envelopes that were added before come after it.
    pub(super) fn put(&mut self, add: impl FnOnce(&mut Vec<u8>)) {
        add(&mut self.frames);
    }

    /// Everything that was added, as whole frames.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.close_packed();
        &self.frames
    }

    fn close_packed(&mut self) {
        match self.packed_envelopes {
            0 => {}
            // Bare: without the bracket.
            1 => put_text(&mut self.frames, self.packed.get(1..).unwrap_or_default()),
            _ => {
                self.packed.push(b']');
                put_text(&mut self.frames, &self.packed);
            }
        }
        self.packed.clear();
        self.packed_envelopes = 0;
    }

    fn pack(&mut self, envelope: &[u8]) {
        self.packed.push(if self.packed_envelopes == 0 { b'[' } else { b',' });
        self.packed.extend_from_slice(envelope);
        self.packed_envelopes += 1;
    }
}

impl Output for Gather {
    fn envelope(&mut self, envelope: &Bytes) {
        if self.style.is_packed {
            self.pack(envelope);
        } else {
            put_text(&mut self.frames, envelope);
        }
    }

    fn run(&mut self, run: &Arc<Run>) {
        if self.style.is_deflated {
            self.close_packed();
            let frames = run.deflated_frames(self.style.is_packed, &mut self.deflater);
            self.frames.extend_from_slice(frames);
        } else if self.style.is_packed {
            run.events().iter().for_each(|event| self.pack(&event.envelope));
        } else {
            self.frames.extend_from_slice(run.frames());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(mut frames: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        while let [0x81, len, rest @ ..] = frames {
            let (payload, rest) = rest.split_at(usize::from(*len));
            all.push(String::from_utf8(payload.to_vec()).unwrap());
            frames = rest;
        }
        all
    }

    #[test]
    fn envelopes_are_packed_only_where_the_client_takes_that() {
        let mut gather = Gather::default();
        for (is_packing, n, expected) in
            [(false, 2, vec!["{}", "{}"]), (true, 0, vec![]), (true, 1, vec!["{}"]), (true, 3, vec!["[{},{},{}]"])]
        {
            gather.begin(Style { is_packed: is_packing, is_deflated: false });
            for _ in 0..n {
                gather.envelope(&Bytes::from_static(b"{}"));
            }
            assert_eq!(payloads(gather.finish()), expected);
        }
    }
}
