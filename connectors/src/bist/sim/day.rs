//! The trading day: which phase begins when.

use std::time::Duration;

/// What the whole market does. Names of states on the wire are those that were seen in recorded data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Orders are collected for the opening.
    Opening,
    /// They are matched at one price.
    OpeningMatch,
    /// Every order is matched when it comes.
    Continuous,
    /// Nothing, before the closing.
    Margin,
    /// Orders are collected for the closing.
    Closing,
    /// They are matched at one price.
    ClosingMatch,
    /// Nothing, after the closing.
    ClosingMargin,
    /// Trades at the closing price only.
    AtClose,
    /// The day is over.
    End,
}

impl Phase {
    /// The state of a book in this phase.
    pub(super) fn state(self) -> &'static str {
        match self {
            Self::Opening => "P_ACS_EMR_TP_PY_EIY",
            Self::OpeningMatch | Self::ClosingMatch => MATCHING,
            Self::Continuous => CONTINUOUS,
            Self::Margin => "P_MARJ_YAYIN",
            Self::Closing => "P_KAPANIS_EMIR_TPL",
            Self::ClosingMargin => "P_MARJ_YAYIN_KAPANIS",
            Self::AtClose => "P_KAPANIS_FIY_ISLEM",
            Self::End => "P_GUNSONU",
        }
    }
}

/// The state of a book while it is matched at one price.
pub(super) const MATCHING: &str = "P_ESLESTIRME";

/// The state of a book in continuous trading.
pub(super) const CONTINUOUS: &str = "P_SUREKLI_ISLEM";

/// The state of a book that a circuit breaker has stopped.
pub(super) const HALTED: &str = "P_DK_TEKFIY_EMIR_TPL";

/// Something that is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// A phase begins for all.
    Phase(Phase),
    /// A circuit breaker stops the first instrument.
    Halt,
    /// It is matched at one price and goes on.
    Resume,
    /// The last instrument is listed, in the middle of the day.
    List,
}

/// The plans of a day with how long after its beginning each is due.
pub(super) type Plans = Vec<(Duration, Plan)>;

/// The equity day of Borsa Istanbul, from 09:40 to 18:10.
pub(super) fn whole() -> Plans {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    vec![
        (minutes(0), Plan::Phase(Phase::Opening)),
        (minutes(15), Plan::Phase(Phase::OpeningMatch)),
        (minutes(20), Plan::Phase(Phase::Continuous)),
        (minutes(140), Plan::List),
        (minutes(200), Plan::Halt),
        (minutes(215), Plan::Resume),
        (minutes(500), Plan::Phase(Phase::Margin)),
        (minutes(501), Plan::Phase(Phase::Closing)),
        (minutes(505), Plan::Phase(Phase::ClosingMatch)),
        (minutes(507), Plan::Phase(Phase::ClosingMargin)),
        (minutes(508), Plan::Phase(Phase::AtClose)),
        (minutes(510), Plan::Phase(Phase::End)),
    ]
}

/// A day for people who want to see prices now: a short opening, and no closing.
pub(super) fn continuous() -> Plans {
    let seconds = Duration::from_secs;
    vec![
        (seconds(0), Plan::Phase(Phase::Opening)),
        (seconds(3), Plan::Phase(Phase::OpeningMatch)),
        (seconds(4), Plan::Phase(Phase::Continuous)),
        (seconds(60), Plan::List),
        (seconds(120), Plan::Halt),
        (seconds(150), Plan::Resume),
    ]
}
