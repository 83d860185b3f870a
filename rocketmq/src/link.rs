//! Connections to name servers and brokers: one link per address, made anew after each failure.
//!
//! The client library keeps a circuit breaker per address that stays open for 30 s after five failed connects, and
//! it goes on using a connection whose peer has silently gone. Both would keep us away from a RocketMQ that is
//! back. So a link that failed is thrown away, and a new one is only made once a plain TCP connect has shown
//! that somebody listens: the library never sees a dead address.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rocketmq_client_rust::{
    ClientConfig, ClientError, ClientInstanceHandle, ClientRuntime, ClientRuntimeConfig,
    TelemetryHandle,
};
use rocketmq_protocol::RemotingCommand;
use rocketmq_runtime::{RuntimeConfig, RuntimeOwner, ShutdownDeadline};
use rocketmq_transport::api::{
    DefaultRequestProcessor, FrameLimits, OutboundRequestOutcome, OutboundRequestRejectionReason,
    RemotingClient, TransportClientConfig,
};
use tokio::net::TcpStream;

use crate::Error;

/// How long a TCP connect may take before the address counts as dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the library may take to make a client. It only starts tasks then; but everybody waits who wants this address.
const START_TIMEOUT: Duration = Duration::from_secs(2);
/// An address that could not be connected is not tried again before this has passed.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// What the library may take for an answer beyond its own time limit before we give up on it.
const GRACE: Duration = Duration::from_millis(500);
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

struct Link {
    address: String,
    port: Port,
}

enum Port {
    /// The library runs one request at a time through a handle: as many handles as requests in flight.
    Handles {
        config: Box<ClientConfig>,
        domain: u64,
        idle: Mutex<Vec<ClientInstanceHandle>>,
    },
    Wide(Arc<RemotingClient<DefaultRequestProcessor>>),
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

    async fn make(&self, slot: &Slot, purpose: Purpose, address: &str) -> Result<Arc<Link>, Error> {
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
                Ok(link)
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn open(&self, purpose: Purpose, address: &str) -> Result<Link, Error> {
        let resolved = reach(address).await?;
        let port = match purpose {
            Purpose::Requests => {
                let mut config = ClientConfig::new();
                // Never used for look-ups, but without it the library would ask the internet for name servers.
                config.set_namesrv_addr(resolved.as_str().into());
                config.set_instance_name(self.instance.as_str().into());
                let domain = self.domains.fetch_add(1, Ordering::Relaxed);
                let handle = ClientInstanceHandle::get_or_create(
                    &self.runtime,
                    domain,
                    config.clone(),
                    None,
                )
                .map_err(|error| classify(&error, address))?;
                tokio::time::timeout(START_TIMEOUT, handle.start())
                    .await
                    .map_err(|_| Error::Timeout)?
                    .map_err(|error| classify(&error, address))?;
                Port::Handles {
                    config: Box::new(config),
                    domain,
                    idle: Mutex::new(vec![handle]),
                }
            }
            Purpose::Pulls => Port::Wide(self.open_wide(address).await?),
        };
        Ok(Link {
            address: resolved,
            port,
        })
    }

    async fn open_wide(
        &self,
        address: &str,
    ) -> Result<Arc<RemotingClient<DefaultRequestProcessor>>, Error> {
        let mut config = TransportClientConfig::default();
        config.connect.timeout = CONNECT_TIMEOUT;
        config.maintenance.idle_scan_interval = None;
        let limits = FrameLimits {
            max_frame_bytes: 64 << 20,
            max_body_bytes: 32 << 20,
            ..FrameLimits::default()
        };
        let client = RemotingClient::builder(
            Arc::new(config),
            DefaultRequestProcessor,
            self.runtime.component("pulls"),
        )
        .frame_limits(limits)
        .and_then(|builder| builder.build())
        .map_err(|error| unavailable(address, &error.to_string()))?;
        let client = Arc::new(client);
        tokio::time::timeout(START_TIMEOUT, client.start())
            .await
            .map_err(|_| Error::Timeout)?
            .map_err(|error| unavailable(address, &error.to_string()))?;
        Ok(client)
    }

    async fn invoke(
        &self,
        link: &Link,
        request: RemotingCommand,
        limit: Duration,
    ) -> Result<RemotingCommand, Error> {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        match &link.port {
            Port::Handles { .. } => {
                let lease = Lease::take(self, link)?;
                let Some(handle) = lease.handle.as_ref() else {
                    return Err(internal("a lease without a handle"));
                };
                let target = link.address.as_str().into();
                match tokio::time::timeout(
                    limit + GRACE,
                    handle.invoke_remoting(&target, request, limit_ms),
                )
                .await
                {
                    Ok(Ok(response)) => Ok(response),
                    Ok(Err(error)) => Err(classify(&error, &link.address)),
                    Err(_) => Err(Error::Timeout),
                }
            }
            Port::Wide(client) => {
                let target = link.address.as_str().into();
                match tokio::time::timeout(
                    limit + GRACE,
                    client.invoke_request(Some(&target), request, limit_ms),
                )
                .await
                {
                    Ok(Ok(OutboundRequestOutcome::Response(response))) => Ok(response),
                    Ok(Ok(OutboundRequestOutcome::Rejected(rejection))) => {
                        Err(match rejection.reason() {
                            OutboundRequestRejectionReason::DeadlineExpired => Error::Timeout,
                            OutboundRequestRejectionReason::QueueSaturated => Error::Busy {
                                reason: "too many requests in flight to one broker".to_owned(),
                            },
                            other => unavailable(&link.address, &format!("{other:?}")),
                        })
                    }
                    Ok(Ok(OutboundRequestOutcome::Contract(_))) => {
                        Err(unavailable(&link.address, "no such endpoint"))
                    }
                    Ok(Err(error)) => Err(unavailable(&link.address, &format!("{error:?}"))),
                    Err(_) => Err(Error::Timeout),
                }
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

impl Link {
    async fn close(&self, limit: Duration) {
        let ended = match &self.port {
            Port::Handles { idle, .. } => {
                let handles = std::mem::take(&mut *lock(idle));
                tokio::time::timeout(limit, async {
                    for handle in &handles {
                        handle.shutdown_owned().await;
                    }
                })
                .await
                .is_ok()
            }
            Port::Wide(client) => {
                tokio::time::timeout(limit, client.shutdown_until(ShutdownDeadline::after(limit)))
                    .await
                    .is_ok()
            }
        };
        if !ended {
            log::debug!(
                "the connection to {} did not close in {limit:?}",
                self.address
            );
        }
    }
}

/// A handle taken out of a link's pool, given back when dropped, also when the request was given up half-way.
struct Lease<'a> {
    link: &'a Link,
    handle: Option<ClientInstanceHandle>,
}

impl<'a> Lease<'a> {
    fn take(links: &Links, link: &'a Link) -> Result<Lease<'a>, Error> {
        let Port::Handles {
            config,
            domain,
            idle,
        } = &link.port
        else {
            return Err(internal("a lease on a link without handles"));
        };
        let pooled = lock(idle).pop();
        let handle = match pooled {
            Some(handle) => handle,
            None => ClientInstanceHandle::get_or_create(
                &links.runtime,
                *domain,
                (**config).clone(),
                None,
            )
            .map_err(|error| classify(&error, &link.address))?,
        };
        Ok(Lease {
            link,
            handle: Some(handle),
        })
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let (Some(handle), Port::Handles { idle, .. }) = (self.handle.take(), &self.link.port) {
            lock(idle).push(handle);
        }
    }
}

/// Takes the link out of use, and closes it once the requests that others have on it are through.
fn discard(slot: &Slot, link: &Arc<Link>) {
    {
        let mut current = lock(&slot.current);
        if !current
            .as_ref()
            .is_some_and(|found| Arc::ptr_eq(found, link))
        {
            return;
        }
        *current = None;
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

/// Resolves the address, and succeeds with it when something there accepts a connection.
async fn reach(address: &str) -> Result<String, Error> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => match stream.peer_addr() {
            Ok(peer) => Ok(peer.to_string()),
            Err(error) => Err(unavailable(address, &error.to_string())),
        },
        Ok(Err(error)) => Err(unavailable(address, &error.to_string())),
        Err(_) => Err(unavailable(
            address,
            &format!("no connection within {CONNECT_TIMEOUT:?}"),
        )),
    }
}

fn classify(error: &ClientError, address: &str) -> Error {
    if error.is(&rocketmq_error::CORE_OPERATION_TIMED_OUT) {
        Error::Timeout
    } else if error.is(&rocketmq_error::TRANSPORT_ADMISSION_QUEUE_SATURATED) {
        Error::Busy {
            reason: "too many requests in flight to one broker".to_owned(),
        }
    } else {
        unavailable(address, &error.to_string())
    }
}

fn unavailable(address: &str, reason: &str) -> Error {
    Error::Unavailable {
        reason: format!("{address}: {reason}"),
    }
}

fn internal(reason: &str) -> Error {
    Error::Unavailable {
        reason: format!("the client library does not start: {reason}"),
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
