//! Doors for the fuzz targets in `fuzz/`, which feed what is private otherwise. Only there when cargo-fuzz builds, and for
//! the tests, which play the corpus.

use crate::{binance, bist};

/// Reads a line as everything that a session with Binance, and its stand-in, may have to read.
pub fn binance_line(line: &str) {
    binance::fuzz_line(line);
}

/// Reads pieces as what comes over one SoupBinTCP connection, and each of them as a datagram of a line, as a request to the
/// rewinder and as a login.
///
/// # Panics
///
/// When a line of MoldUDP64 is handed on with a number that goes back.
pub fn bist_pieces(pieces: &[&[u8]]) {
    bist::fuzz_pieces(pieces);
}

#[cfg(test)]
mod tests {
    /// The files of a target's corpus.
    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let corpus = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> =
            std::fs::read_dir(corpus).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(!files.is_empty(), "the corpus is there");
        files
    }

    #[test]
    fn lines_of_the_corpus_harm_nothing() {
        for file in corpus("binance_frame") {
            std::str::from_utf8(&file).unwrap().lines().for_each(super::binance_line);
        }
    }

    #[test]
    fn pieces_of_the_corpus_harm_nothing() {
        for file in corpus("bist_feed") {
            let (mut pieces, mut rest) = (Vec::new(), &file[1..]);
            while let [_, length, after @ ..] = rest {
                let (piece, later) = after.split_at(usize::from(*length).min(after.len()));
                pieces.push(piece);
                rest = later;
            }
            assert!(pieces.len() > 1);
            super::bist_pieces(&pieces);
        }
    }
}
