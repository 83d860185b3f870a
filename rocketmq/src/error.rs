//! What can go wrong between us and RocketMQ, told apart by whether trying again can help.

/// An operation on RocketMQ failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// RocketMQ could not be reached, or said that it cannot serve now. A retry helps once it is back.
    #[error("RocketMQ is not available: {reason}")]
    Unavailable {
        /// What was tried and how it failed.
        reason: String,
    },
    /// RocketMQ was reached and is overloaded. A retry helps after a pause.
    #[error("RocketMQ is busy: {reason}")]
    Busy {
        /// RocketMQ's own words.
        reason: String,
    },
    /// RocketMQ itself said that the topic does not exist. Never guessed from a failed connection.
    #[error("RocketMQ has no topic {topic:?}")]
    TopicMissing {
        /// The topic asked for.
        topic: String,
    },
    /// RocketMQ will never take this: too large, not permitted, or malformed. A retry is useless.
    #[error("RocketMQ refused it for good (code {code}): {reason}")]
    Refused {
        /// RocketMQ's response code, or the code that it would answer when we refused on its behalf.
        code: i32,
        /// RocketMQ's own words, or the limit that was passed.
        reason: String,
    },
    /// RocketMQ has stored the messages, but not as safely as it is set up to: its disk or its slave was late or away. If the
    /// master is lost now, so are they. A retry stores them once more.
    #[error("RocketMQ has stored it with reservations: {reason}")]
    Reserved {
        /// What is not safe.
        reason: String,
    },
    /// No answer in time. Whether RocketMQ has stored the messages is unknown: a retry may duplicate them.
    #[error("RocketMQ did not answer in time")]
    Timeout,
}
