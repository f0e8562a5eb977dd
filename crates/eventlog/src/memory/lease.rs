//! Leases of publishers, as the Redis scripts keep them.

use std::collections::HashMap;
use std::time::Duration;

use super::partition::Moment;
use crate::hearing::{HEARD_LATER, Hearing};
use crate::store::{HANDOVER, Identity, Lease, StoreError};

/// The leases of one log.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases(HashMap<String, State>);

#[derive(Debug, Clone)]
struct State {
    /// The log's identity when the lease was last looked at, and since when.
    identity: Identity,
    since_us: u64,
    /// Number of the last lease given, and to whom.
    number: u64,
    owner: String,
    /// Number of the last lease that another owner had.
    before: u64,
    /// When it was given back.
    released_us: Option<u64>,
    /// When somebody who found it held heard last.
    heard_us: Option<u64>,
    holder: Option<(String, u64)>,
}

impl State {
    /// Refuses who may not have the lease: another one has it, or this one is deaf and who waits for it has heard more.
    fn admit(&mut self, moment: &Moment, owner: &str, ttl: Duration, hearing: Hearing) -> Result<(), StoreError> {
        let before = |ago: Duration| moment.now_us.saturating_sub(ago.as_micros() as u64);
        let heard_us = self.heard_us.filter(|&heard_us| heard_us <= moment.now_us);
        let is_held = self.holder.as_ref().is_some_and(|(holder, _)| holder != owner);
        match hearing {
            Hearing::Hears(ago) if is_held => self.heard_us = heard_us.max(Some(before(ago))),
            Hearing::Deaf(ago) if !is_held && heard_us > Some(before(ago.saturating_sub(HEARD_LATER).min(ttl))) => {
                self.holder = None;
                return Err(StoreError::HeardElsewhere);
            }
            _ => {}
        }
        if is_held { Err(StoreError::Held { by_another: true }) } else { Ok(()) }
    }

    /// A new lease of `owner`.
    fn begin(&mut self, moment: &Moment, owner: &str) {
        if self.owner != owner {
            self.before = self.number;
        }
        self.number = moment.now_us.max(self.number + 1);
        owner.clone_into(&mut self.owner);
        self.released_us = None;
    }

    fn hold(&mut self, moment: &Moment, owner: &str, ttl: Duration) {
        self.holder = Some((owner.to_owned(), moment.now_us + ttl.as_micros() as u64));
    }
}

impl Leases {
    /// The state under the present identity, with an expired holder removed.
    fn state(&mut self, moment: &Moment, publisher: &str) -> &mut State {
        let state = self.0.entry(publisher.to_owned()).or_insert_with(|| State {
            identity: moment.identity.clone(),
            since_us: moment.now_us,
            number: 0,
            owner: String::new(),
            before: 0,
            released_us: None,
            heard_us: None,
            holder: None,
        });
        if state.identity != moment.identity {
            state.identity = moment.identity.clone();
            state.since_us = moment.now_us;
        }
        state.holder.take_if(|(_, until_us)| *until_us <= moment.now_us);
        state
    }

    pub(super) fn take(
        &mut self,
        moment: &Moment,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        // In Redis a log seen for the first time may be one that was emptied. Here it is known to be the first.
        let first = !self.0.contains_key(publisher) && moment.is_first_log;
        let state = self.state(moment, publisher);
        state.admit(moment, owner, ttl, hearing)?;
        match &state.holder {
            Some(_) => {}
            None if first => state.since_us = 0,
            None if moment.now_us < state.since_us.saturating_add(ttl.as_micros() as u64) => {
                return Err(StoreError::Held { by_another: false });
            }
            None => {}
        }
        let is_handed_over = |released_us| moment.now_us.saturating_sub(released_us) <= HANDOVER.as_micros() as u64;
        let continues = state.number == 0 || state.released_us.is_some_and(is_handed_over);
        state.begin(moment, owner);
        state.hold(moment, owner, ttl);
        Ok(Lease { number: state.number, continues, before: state.before })
    }

    pub(super) fn renew(
        &mut self,
        moment: &Moment,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        let state = self.state(moment, publisher);
        state.admit(moment, owner, ttl, hearing)?;
        match &state.holder {
            Some(_) => {}
            None if moment.now_us < state.since_us.saturating_add(ttl.as_micros() as u64) => {}
            None => return Err(StoreError::Held { by_another: false }),
        }
        if state.owner != owner {
            state.begin(moment, owner);
        }
        state.hold(moment, owner, ttl);
        Ok(Lease { number: state.number, continues: true, before: state.before })
    }

    pub(super) fn release(&mut self, moment: &Moment, publisher: &str, owner: &str) {
        if let Some(state) = self.0.get_mut(publisher)
            && state.holder.take_if(|(holder, _)| holder == owner).is_some()
        {
            state.released_us = Some(moment.now_us);
        }
    }
}
