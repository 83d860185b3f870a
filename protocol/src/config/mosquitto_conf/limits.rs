//! What Mosquitto keeps for a client that does not take its messages yet.

/// The limits of a client's queue. 0 is Mosquitto's word for "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// `max_queued_messages`: QoS 1 and 2 messages beyond those in flight.
    pub messages: u32,
    /// `max_queued_bytes`.
    pub bytes: u64,
    /// `max_inflight_bytes`.
    pub inflight_bytes: u64,
}

impl Default for QueueLimits {
    /// Mosquitto's own.
    fn default() -> QueueLimits {
        QueueLimits {
            messages: 1000,
            bytes: 0,
            inflight_bytes: 0,
        }
    }
}

impl QueueLimits {
    /// Takes the line, if it is one of these.
    ///
    /// # Errors
    /// When Mosquitto would refuse the value.
    pub(super) fn line(&mut self, key: &str, text: &str) -> Result<bool, String> {
        let place = match key {
            "max_queued_messages" => {
                // A negative one is taken for none.
                self.messages = u32::try_from(number(key, text)?.max(0)).unwrap_or(u32::MAX);
                return Ok(true);
            }
            "max_queued_bytes" => &mut self.bytes,
            "max_inflight_bytes" => &mut self.inflight_bytes,
            _ => return Ok(false),
        };
        *place = u64::try_from(number(key, text)?).unwrap_or(0);
        Ok(true)
    }
}

fn number(key: &str, text: &str) -> Result<i64, String> {
    let word = text.split(' ').find(|word| !word.is_empty()).unwrap_or("");
    word.parse()
        .map_err(|_| format!("{key} \"{word}\" is not a number"))
}
