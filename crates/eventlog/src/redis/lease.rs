//! Calls about the leases of publishers.

use std::time::Duration;

use fred::types::Resp3Frame;

use super::call::Call;
use super::reply::{number, tuple};
use super::{RedisStore, refusal};
use crate::hearing::{HEARD_LATER, Hearing};
use crate::store::{HANDOVER, Lease, StoreError};

/// For how long a holder's subscription has to be gone before its lease is free: it is given time to connect again. One that
/// stands by and asks every 250 ms has it within a second.
const GONE: Duration = Duration::from_millis(500);

impl RedisStore {
    /// See [`Store::take_lease`](crate::Store::take_lease) and [`Store::renew_lease`](crate::Store::renew_lease).
    pub(super) async fn call_lease(
        &self,
        action: &'static str,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        let mut call = self.lease_call(publisher, action, owner);
        call.args.push(ttl.as_millis());
        call.args.push(HANDOVER.as_millis());
        let (hearing, ago) = match hearing {
            Hearing::Unknown => ("unknown", Duration::ZERO),
            Hearing::Hears(ago) => ("hears", ago),
            Hearing::Deaf(ago) => ("deaf", ago.saturating_sub(HEARD_LATER)),
        };
        call.args.push(hearing);
        call.args.push(ago.as_millis());
        call.args.push(self.keys.presence(publisher, ""));
        call.args.push(GONE.as_millis());
        let reply = self.scripts.lease.run(&self.link, &call).await?;
        let Resp3Frame::Array { .. } = &reply else { return Err(refusal(&reply)) };
        let [lease, continues, before, is_seen] = tuple(&reply)?;
        // Not when it is taken: nothing is to come before the first event.
        if action == "renew" && number(is_seen)? == 0 {
            self.presence.show(self.keys.presence(publisher, owner)).await;
        }
        Ok(Lease { number: number(lease)?, continues: number(continues)? == 1, before: number(before)? })
    }

    /// See [`Store::release_lease`](crate::Store::release_lease).
    pub(super) async fn give_back_lease(&self, publisher: &str, owner: &str) -> Result<(), StoreError> {
        self.scripts.lease.run(&self.link, &self.lease_call(publisher, "release", owner)).await?;
        Ok(())
    }

    fn lease_call(&self, publisher: &str, action: &str, owner: &str) -> Call {
        let mut call = Call::on([self.keys.lease(publisher), self.keys.lease_term(publisher)]);
        call.args.push(action);
        call.args.push(owner);
        call
    }
}
