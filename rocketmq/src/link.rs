//! Connections to name servers and brokers: one link per address, made anew after each failure.
//!
//! The client library keeps a circuit breaker per address that stays open for 30 s after five failed connects, and
//! it goes on using a connection whose peer has silently gone. Both would keep us away from a RocketMQ that is
//! back. So a link that failed is thrown away, and a new one is only made once a plain TCP connect has shown
//! that somebody listens: the library never sees a dead address.

mod connection;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rocketmq_client_rust::{ClientRuntime, ClientRuntimeConfig, TelemetryHandle};
use rocketmq_protocol::RemotingCommand;
use rocketmq_runtime::{RuntimeConfig, RuntimeOwner, ShutdownDeadline};

use connection::Link;

use crate::Error;

/// An address that could not be connected is not tried again before this has passed.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long a link that was thrown away may go on with the requests of others.
const RETIREMENT: Duration = Duration::from_secs(5);

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Requests with small answers, and sends.
    Requests,
    /// Pulls. They have a connection of their own, so that their large answers don't delay the sends. And the
    /// library's client caps the body of a frame at 4 MiB, which is less than a pull that returns one message of
    /// 4 MiB with its properties: this link takes larger ones.
    Pulls,
}

/// All links of one backbone.
pub(crate) struct Links {
    owner: Mutex<Option<RuntimeOwner>>,
    runtime: Arc<ClientRuntime>,
    instance: String,
    domains: AtomicU64,
    slots: Mutex<HashMap<(Purpose, String), Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    current: Mutex<Option<Arc<Link>>>,
    /// Held while a link is being made, so that it is made once.
    making: tokio::sync::Mutex<Option<(Instant, Error)>>,
}

impl Links {
    pub(crate) fn new(instance: &str) -> Result<Links, Error> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(2));
        let owner = RuntimeOwner::plan(RuntimeConfig::for_parallelism("rocketmq-client", threads))
            .map_err(|error| internal(&format!("{error:?}")))?
            .build()
            .map_err(|error| internal(&format!("{error:?}")))?;
        let runtime = ClientRuntime::try_new(
            owner.root_context().component("client"),
            ClientRuntimeConfig {
                shutdown_timeout: Duration::from_secs(2),
                ..Default::default()
            },
            TelemetryHandle::noop(),
        )
        .map_err(|error| internal(&error.to_string()))?;
        Ok(Links {
            owner: Mutex::new(Some(owner)),
            runtime,
            instance: instance.to_owned(),
            domains: AtomicU64::new(1),
            slots: Mutex::default(),
        })
    }

    /// Sends one request and waits for its answer, whatever its code.
    pub(crate) async fn call(
        &self,
        purpose: Purpose,
        address: &str,
        request: RemotingCommand,
        limit: Duration,
    ) -> Result<RemotingCommand, Error> {
        let slot = self.slot(purpose, address);
        let current = lock(&slot.current).clone();
        let link = match current {
            Some(link) => link,
            None => self.make(&slot, purpose, address).await?,
        };
        let outcome = self.invoke(&link, request, limit).await;
        if matches!(outcome, Err(Error::Unavailable { .. } | Error::Timeout)) {
            discard(&slot, &link);
        }
        outcome
    }

    fn slot(&self, purpose: Purpose, address: &str) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        Arc::clone(slots.entry((purpose, address.to_owned())).or_default())
    }

    async fn make(
        &self,
        slot: &Arc<Slot>,
        purpose: Purpose,
        address: &str,
    ) -> Result<Arc<Link>, Error> {
        let mut failed = slot.making.lock().await;
        if let Some(link) = lock(&slot.current).clone() {
            return Ok(link);
        }
        if let Some((when, error)) = failed.as_ref()
            && when.elapsed() < CONNECT_PAUSE
        {
            return Err(error.clone());
        }
        match self.open(purpose, address).await {
            Ok(link) => {
                *failed = None;
                let link = Arc::new(link);
                *lock(&slot.current) = Some(Arc::clone(&link));
                if purpose == Purpose::Pulls {
                    link.is_watched_by(watch::watch(slot, &link));
                }
                Ok(link)
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Ends everything within `limit`.
    pub(crate) async fn shutdown(&self, limit: Duration) {
        let deadline = ShutdownDeadline::after(limit);
        let slots: Vec<_> = lock(&self.slots).drain().map(|(_, slot)| slot).collect();
        let links: Vec<_> = slots
            .iter()
            .filter_map(|slot| lock(&slot.current).take())
            .collect();
        let owner = lock(&self.owner).take();
        let finish = async {
            for link in links {
                link.close(Duration::from_millis(300)).await;
            }
            self.runtime.shutdown_until(deadline).await;
            if let Some(owner) = owner.as_ref() {
                owner.shutdown_tasks_until(deadline).await;
            }
        };
        if tokio::time::timeout(limit, finish).await.is_err() {
            log::debug!("the RocketMQ client did not end in {limit:?}; leaving it");
        }
        if let Some(owner) = owner {
            owner.shutdown_background();
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // A runtime must not be dropped inside another one; this way of ending it may.
        if let Some(owner) = lock(&self.owner).take() {
            owner.shutdown_background();
        }
    }
}

/// Takes the link out of use. False when it was not in use.
fn take_out(slot: &Slot, link: &Arc<Link>) -> bool {
    let mut current = lock(&slot.current);
    let is_current = current
        .as_ref()
        .is_some_and(|found| Arc::ptr_eq(found, link));
    if is_current {
        *current = None;
    }
    is_current
}

/// Takes the link out of use, and closes it once the requests that others have on it are through.
fn discard(slot: &Slot, link: &Arc<Link>) {
    if !take_out(slot, link) {
        return;
    }
    let link = Arc::clone(link);
    tokio::spawn(async move {
        let deadline = Instant::now() + RETIREMENT;
        while Arc::strong_count(&link) > 1 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        link.close(Duration::from_secs(2)).await;
    });
}

fn internal(reason: &str) -> Error {
    Error::Unavailable {
        reason: format!("the client library does not start: {reason}"),
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
