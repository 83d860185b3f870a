//! One connection: how the library makes it, and one request on it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rocketmq_client_rust::{ClientConfig, ClientError, ClientInstanceHandle};
use rocketmq_protocol::RemotingCommand;
use rocketmq_runtime::ShutdownDeadline;
use rocketmq_transport::api::{
    DefaultRequestProcessor, FrameLimits, OutboundRequestOutcome, OutboundRequestRejectionReason,
    RemotingClient, TransportClientConfig,
};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::{Links, Purpose, internal, lock};
use crate::Error;

/// How long a TCP connect may take before the address counts as dead.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the library may take to make a client. It only starts tasks then; but everybody waits who wants this address.
const START_TIMEOUT: Duration = Duration::from_secs(2);
/// What the library may take for an answer beyond its own time limit before we give up on it.
const GRACE: Duration = Duration::from_millis(500);

/// A connection to one address, as the library has it.
pub(super) struct Link {
    address: String,
    port: Port,
    watch: OnceLock<AbortHandle>,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.get() {
            watch.abort();
        }
    }
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
    pub(super) async fn open(&self, purpose: Purpose, address: &str) -> Result<Link, Error> {
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
            watch: OnceLock::new(),
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

    pub(super) async fn invoke(
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
}

impl Link {
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Who watches its broker, which is to end with it.
    pub(super) fn is_watched_by(&self, watch: AbortHandle) {
        // There is one in the life of a link.
        let _ = self.watch.set(watch);
    }

    pub(super) async fn close(&self, limit: Duration) {
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
