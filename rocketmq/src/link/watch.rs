//! Notices at once that a broker is gone.
//!
//! The client library leaves a request that was on its way unanswered when its connection breaks, until the request's time is over.
//! For a pull that a broker may hold that is seven seconds. So beside the connection for pulls there is another, on which nothing is
//! ever said: when that one is closed, so is the other.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::connection::{CONNECT_TIMEOUT, Link};
use super::{Slot, take_out};

/// Brokers close a connection on which nothing is said for two minutes: it is made anew before that.
const RENEW_EVERY: Duration = Duration::from_secs(30);
const CLOSE_LIMIT: Duration = Duration::from_millis(300);

/// Watches the broker of a link, for as long as there is the link.
pub(super) fn watch(slot: &Arc<Slot>, link: &Arc<Link>) -> AbortHandle {
    let (slot, address) = (Arc::clone(slot), link.address().to_owned());
    let link: Weak<Link> = Arc::downgrade(link);
    let watching = async move {
        until_gone(&address).await;
        if let Some(link) = link.upgrade() {
            log::debug!("{address} is gone");
            take_out(&slot, &link);
            link.close(CLOSE_LIMIT).await;
        }
    };
    tokio::spawn(watching).abort_handle()
}

/// Ends when the address closes a connection, or takes none.
async fn until_gone(address: &str) {
    loop {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
        let Ok(Ok(mut stream)) = connecting.await else {
            return;
        };
        let mut said = [0];
        if tokio::time::timeout(RENEW_EVERY, stream.read(&mut said))
            .await
            .is_ok()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn one_that_closes_its_connections_or_takes_none_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let watching = tokio::spawn(async move { until_gone(&address).await });
        let (stream, peer) = listener.accept().await.expect("a connection");
        assert!(!watching.is_finished(), "{peer} is there");
        drop(stream);
        watching.await.expect("it ends");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        until_gone(&address).await;
    }
}
