//! The border: what the sidecar asks of RocketMQ, in our own words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{Error, Properties};

/// One queue of a topic on one broker: the unit in which RocketMQ keeps order.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Queue {
    /// The topic.
    pub topic: String,
    /// The name of the broker (a master and its slaves share it).
    pub broker: String,
    /// The number of the queue on that broker.
    pub id: i32,
}

/// A message on its way into RocketMQ. Topic and queue are the batch's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// The body. RocketMQ refuses an empty one.
    pub body: Bytes,
    /// The tag that consumers filter by.
    pub tag: Option<String>,
    /// Keys for look-ups, separated by blanks.
    pub keys: Option<String>,
    /// User properties, in the order given.
    pub properties: Properties,
}

impl Outgoing {
    /// About how many bytes the message holds in memory and on the wire.
    pub fn weight(&self) -> usize {
        let properties = self.properties.as_str().len();
        let option = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.body.len() + properties + option(&self.tag) + option(&self.keys)
    }
}

/// A message out of RocketMQ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The queue it stood in.
    pub queue: Queue,
    /// Its offset in that queue.
    pub offset: i64,
    /// The producer's id (`UNIQ_KEY`), else the id that the broker gave.
    pub message_id: String,
    /// The body.
    pub body: Bytes,
    /// The tag.
    pub tag: Option<String>,
    /// The keys, separated by blanks.
    pub keys: Option<String>,
    /// User properties alone: those that RocketMQ uses itself are taken out.
    pub properties: Vec<(String, String)>,
    /// When its producer made it, unix milliseconds by the producer's clock.
    pub born_at_ms: i64,
    /// When the broker stored it, unix milliseconds by the broker's clock.
    pub stored_at_ms: i64,
    /// It was passed over when its queue was read at this place, and is of interest since: it comes out of turn.
    pub is_read_back: bool,
    /// Why it can't be delivered. Its body is compressed still then; or it could not be decoded at all, and the body is all of it.
    pub problem: Option<String>,
}

/// A topic to read, and which of its messages.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// Which messages.
    pub select: Select,
}

/// Which messages of a topic are read.
#[derive(Debug, Clone)]
pub enum Select {
    /// `*`, or tags as `A||B`.
    Tags(String),
    /// What is of interest at the time. Beside another subscription of the same topic it is `*` that is read.
    Interest(watch::Receiver<Arc<Interest>>),
}

/// The tags that are of interest, and since when.
///
/// A tag that is new here is read in each queue from its time on, also where reading has gone further already: what it had passed
/// over comes with [`Incoming::is_read_back`], and what follows in its turn, each message once and those of a tag in order. A tag's time counts
/// when the tag is new, and not when it is changed afterwards. What was stored up to some seconds before that time may come too: where reading
/// was at a time is known to about a second, to about six in a queue in which nothing of interest was, and by the broker's
/// clock alone where it is longer ago than a minute.
///
/// The same holds for what is of interest when reading starts, and was since before that. But in a queue for which the group has an offset,
/// what is of interest since [`Interest::settled_ms`] or longer is taken to have been read up to that offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// Everything is, since this time (Unix milliseconds by this machine's clock; 0: from the oldest message kept).
    pub all_since_ms: Option<i64>,
    /// Each tag, with the time since which it is. None of them is read otherwise: without any, nothing is.
    pub tags: BTreeMap<String, i64>,
    /// The time that [`Consumer::settled_ms`] gave in the last run, once all that had been polled by then was handed over; 0 when it
    /// is not known, which has everything read back. Counts when reading starts in a queue. A tag that is added with a time at or
    /// before it is not settled: the time to remember goes back to before that one.
    pub settled_ms: i64,
}

/// Where reading starts in a queue for which the group has no offset yet.
///
/// Of a topic that this group reads for the first time: a group that has an offset in one of its queues reads all others from
/// their beginning, for they were added since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// Behind the last message that there is when the topic is first asked for. In a queue that shows later, because its broker
    /// was away or because it was added, at the first message stored since, by the clocks, or up to ten minutes before.
    #[default]
    Latest,
    /// At the oldest message kept.
    Earliest,
    /// Behind the last message that there is, also where the group has an offset, and none is committed: for a reader that wants what
    /// was stored until now, and comes again another time. What it wants of that comes with [`Incoming::is_read_back`].
    Present,
}

/// A RocketMQ cluster.
#[async_trait]
pub trait Backbone: Send + Sync + 'static {
    /// Succeeds when a name server answers and at least one of its brokers does.
    async fn probe(&self) -> Result<(), Error>;

    /// The queues of the topic that may be written, freshly asked for and sorted. Never empty.
    ///
    /// A topic that does not exist is created when the brokers create topics by themselves, else it is
    /// [`Error::TopicMissing`].
    async fn write_queues(&self, topic: &str) -> Result<Vec<Queue>, Error>;

    /// Stores all the messages in the queue, in their order. On an error none, some or all may be stored; with
    /// [`Error::Reserved`] all are, on the master alone.
    async fn send(&self, queue: &Queue, batch: &[Outgoing]) -> Result<(), Error>;

    /// Starts reading. Does not wait for RocketMQ nor for the topics: what isn't there yet is looked for again.
    async fn subscribe(
        &self,
        group: &str,
        subscriptions: Vec<Subscription>,
        start: StartAt,
    ) -> Result<Box<dyn Consumer>, Error>;

    /// Ends the connections. Takes at most 3 s.
    async fn shutdown(&self);
}

/// A reader of topics in a group of its own.
#[async_trait]
pub trait Consumer: Send {
    /// At most `max` messages, in order per queue; empty when `timeout` passed without one.
    async fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<Incoming>, Error>;

    /// Stores in RocketMQ, for each queue, the offset of the next message to read.
    async fn commit(&mut self, offsets: &[(Queue, i64)]) -> Result<(), Error>;

    /// How many messages wait in RocketMQ for this group; none while unknown.
    async fn lag(&self) -> Option<u64>;

    /// What is of interest since this time or longer was given by [`Consumer::poll`], in each queue up to where that has come; nothing
    /// of it is yet to be read back. None while something is, or the newest change of the interest has not been taken up in all
    /// queues, or there is no queue. Queues of a broker that has been away since the start are not known of.
    fn settled_ms(&self) -> Option<i64> {
        None
    }

    /// By this machine's clock: what was of interest, and stored in the topic before this time, was given by [`Consumer::poll`], in all
    /// queues that are known. None while one of them has not been read to its end, with nothing left to be read back.
    fn read_until_ms(&self, _topic: &str) -> Option<i64> {
        None
    }

    /// Ends the reading. Takes at most 3 s. Commits nothing.
    async fn close(self: Box<Self>);
}

/// How to reach RocketMQ.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name servers, `host:port` separated by `;`.
    pub namesrv: String,
    /// The producer group.
    pub producer_group: String,
    /// Tells this process from others on the same host.
    pub instance: String,
    /// How long one request may take.
    pub send_timeout: Duration,
}
