//! The seal of a message, the second half of `mqtt_lane`: by it a message that a lane of ours has put into a queue is told from one
//! into which somebody has copied its properties.
//!
//! The CRC-32C of `<topic>\n<broker>\n<queue id>\n` and the body behind it. This is not a signature: who wants to forge it can.

use rocketmq::Queue;

/// Digits of a seal.
pub(crate) const LEN: usize = 8;

/// The seal of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal(u32);

impl Seal {
    pub(crate) fn of(queue: &Queue) -> Seal {
        let text = format!("{}\n{}\n{}\n", queue.topic, queue.broker, queue.id);
        Seal(crc32c::crc32c(text.as_bytes()))
    }

    /// The number that stands on a message with this body.
    pub(crate) fn on(self, body: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, body)
    }

    /// The same as it stands there.
    pub(crate) fn text(self, body: &[u8]) -> String {
        format!("{:08x}", self.on(body))
    }

    /// Whether this stands on a message with this body.
    pub(crate) fn is_on(self, body: &[u8], text: &str) -> bool {
        self.text(body) == text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(topic: &str, broker: &str, id: i32) -> Queue {
        Queue {
            topic: topic.into(),
            broker: broker.into(),
            id,
        }
    }

    #[test]
    fn a_seal_fits_one_queue_and_one_body() {
        let seal = Seal::of(&queue("T", "b", 0));
        assert_eq!(seal.text(b"123456789"), "d4dba4db", "of every build");
        assert_eq!(seal.text(b"").len(), LEN);
        assert!(seal.is_on(b"x", &seal.text(b"x")));
        assert!(!seal.is_on(b"y", &seal.text(b"x")));
        for other in [queue("U", "b", 0), queue("T", "c", 0), queue("T", "b", 1)] {
            assert!(!Seal::of(&other).is_on(b"x", &seal.text(b"x")));
        }
    }
}
