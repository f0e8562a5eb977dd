//! Batches of several partitions that are published at once, as one call.
//!
//! What a venue says at once lies in many partitions, and each call costs this process and the server as much as two or three events. The
//! partitions of a cluster are on different nodes, so there each batch is a call.

use std::mem;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::call::Call;
use super::done;
use super::error::broken;
use super::link::Link;
use super::reply::array;
use super::script::Script;
use crate::store::{StoreError, Unavailable};

/// As soon as so many events wait, they go: the server can be at work on them while more are made ready, and answers others in between.
const ENOUGH: usize = 32;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Joined {
    /// Of each lane one at most.
    waiting: parking_lot::Mutex<Vec<Waiting>>,
}

/// A batch that waits for others to go with.
struct Waiting {
    batch: Call,
    events: usize,
    tell: oneshot::Sender<Told>,
}

/// What became of a batch.
enum Told {
    /// It was answered, or not.
    Answer(Result<(), StoreError>),
    /// The server refused the call for one of its batches: each is to be tried by itself.
    Again(Call),
}

/// What whoever let a batch wait has to do.
enum Duty {
    /// It is the first: take what waits when others have had the chance to enter.
    Lead,
    /// It is enough: publish these.
    Publish(Vec<Waiting>),
    /// Somebody else does.
    Nothing,
}

impl Joined {
    /// Runs the script `publish` with a batch of `events`, and with those that are published at the same time.
    ///
    /// # Cancel safety
    ///
    /// Whether the batch is written is unknown then; so it may be for others, which are told.
    pub(super) async fn publish(
        &self,
        link: &Link,
        publish: &Script,
        batch: Call,
        events: usize,
    ) -> Result<(), StoreError> {
        if link.is_clustered() {
            return alone(link, publish, &batch).await;
        }
        let (tell, told) = oneshot::channel();
        match self.enter(Waiting { batch, events, tell }) {
            Duty::Lead => {
                let given_up = GivesUp(self);
                // Whoever was woken together with this one enters now.
                yield_now().await;
                mem::forget(given_up);
                run(link, publish, self.take()).await;
            }
            Duty::Publish(batches) => run(link, publish, batches).await,
            Duty::Nothing => {}
        }
        match told.await {
            Ok(Told::Answer(answer)) => answer,
            Ok(Told::Again(batch)) => alone(link, publish, &batch).await,
            Err(_) => Err(Unavailable { kind: "io", message: "the call was given up".to_owned() }.into()),
        }
    }

    fn enter(&self, batch: Waiting) -> Duty {
        let mut waiting = self.waiting.lock();
        waiting.push(batch);
        match waiting.iter().map(|batch| batch.events).sum::<usize>() {
            ENOUGH.. => Duty::Publish(mem::take(&mut *waiting)),
            _ if waiting.len() == 1 => Duty::Lead,
            _ => Duty::Nothing,
        }
    }

    fn take(&self) -> Vec<Waiting> {
        mem::take(&mut *self.waiting.lock())
    }
}

/// Whoever leads is gone: so is what waits for it, and is told.
struct GivesUp<'a>(&'a Joined);

impl Drop for GivesUp<'_> {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// Publishes batches by one call, and tells each what became of it.
async fn run(link: &Link, publish: &Script, batches: Vec<Waiting>) {
    if batches.is_empty() {
        return;
    }
    let answers = call(link, publish, batches.iter().map(|waiting| &waiting.batch)).await;
    let may_be_another = batches.len() > 1;
    let mut answers = answers.map(Vec::into_iter);
    for Waiting { batch, tell, .. } in batches {
        let told = match &mut answers {
            Ok(answers) => Told::Answer(answers.next().unwrap_or_else(|| Err(broken("a batch was not answered")))),
            Err(StoreError::Unavailable(refused)) if may_be_another && refused.is_reply() => Told::Again(batch),
            Err(error) => Told::Answer(Err(error.clone())),
        };
        // Whoever waited may be gone.
        let _ = tell.send(told);
    }
}

/// Publishes one batch by a call of its own.
async fn alone(link: &Link, publish: &Script, batch: &Call) -> Result<(), StoreError> {
    call(link, publish, [batch]).await?.pop().unwrap_or_else(|| Err(broken("a batch was not answered")))
}

/// What the script answers to each batch.
async fn call(
    link: &Link,
    publish: &Script,
    batches: impl IntoIterator<Item = &Call>,
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let mut call = Call::default();
    batches.into_iter().for_each(|batch| call.join(batch));
    let reply = publish.run(link, &call).await?;
    Ok(array(&reply)?.iter().map(done).collect())
}
