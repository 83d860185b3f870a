//! Whether RocketMQ is there: a name server answers, and one of the masters does.
//!
//! All of them are asked at once, and each gets a short time: one that hangs must not hide the others. Who asks every second has
//! an answer within one and a half, also while nobody is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::client::{Cluster, TOPIC_OF_EVERY_BROKER};
use crate::link::Purpose;
use crate::route::Route;
use crate::{Error, answer, heartbeat};

/// What each of them may take.
const LIMIT: Duration = Duration::from_millis(700);
/// Beyond that, so that the link to one that hangs is given up by itself and made anew.
const MARGIN: Duration = Duration::from_millis(40);

pub(crate) async fn run(cluster: &Arc<Cluster>) -> Result<(), Error> {
    let servers = cluster.names.addresses().iter().cloned();
    let asked = servers.map(|address| {
        let cluster = Arc::clone(cluster);
        async move {
            let names = &cluster.names;
            let asked = names.route_from(&cluster.links, &address, TOPIC_OF_EVERY_BROKER, LIMIT);
            match asked.await {
                Err(Error::TopicMissing { .. }) => Ok(Route::default()),
                other => other,
            }
        }
    });
    let route = first(asked, "no name server is configured").await?;
    let masters = route.masters.into_values().map(|address| {
        let cluster = Arc::clone(cluster);
        async move { master(&cluster, &address, LIMIT).await }
    });
    first(masters, "no broker is registered at the name server").await
}

/// Whether this master answers.
pub(crate) async fn master(cluster: &Cluster, address: &str, limit: Duration) -> Result<(), Error> {
    let request = heartbeat::of_producer(&cluster.instance, &cluster.producer_group)?;
    let answered = cluster
        .links
        .call(Purpose::Requests, address, request, limit);
    answer::check(&answered.await?, "")
}

/// The first success, else the last failure.
async fn first<T: Send + 'static>(
    tries: impl Iterator<Item = impl Future<Output = Result<T, Error>> + Send + 'static>,
    none: &str,
) -> Result<T, Error> {
    let mut failure = Error::Unavailable {
        reason: none.to_owned(),
    };
    let mut running: JoinSet<_> = JoinSet::new();
    for one in tries {
        running.spawn(async move {
            let limited = tokio::time::timeout(LIMIT + MARGIN, one);
            limited.await.unwrap_or(Err(Error::Timeout))
        });
    }
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => failure = error,
            Err(error) => {
                failure = Error::Unavailable {
                    reason: error.to_string(),
                }
            }
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_hangs_does_not_hide_the_others() {
        let answers = [None, Some(Err(Error::Timeout)), Some(Ok(7))];
        let tries = answers.into_iter().map(|answer| async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        });
        assert_eq!(first(tries, "none").await, Ok(7));
        let hang = std::iter::once(std::future::pending::<Result<(), Error>>());
        assert_eq!(first(hang, "none").await, Err(Error::Timeout));
        let nobody = std::iter::empty::<std::future::Pending<Result<(), Error>>>();
        assert!(first(nobody, "none").await.is_err());
    }
}
