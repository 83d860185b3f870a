//! How much a client's queue can still take: counted as `db__ready_for_queue` and `db__ready_for_flight` of Mosquitto
//! count it (2.0.11, 2.0.21 and 2.1.2 do it alike).

use protocol::config::mosquitto_conf::QueueLimits;

/// What the broker keeps for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueState {
    pub(crate) connected: bool,
    /// QoS 1 and 2 messages, as the broker compares them with `max_queued_messages`.
    pub(crate) waiting: u32,
    /// As the broker compares them with `max_queued_bytes`.
    pub(crate) waiting_bytes: u64,
    /// QoS 1 and 2 messages that are held for it, those in flight too.
    pub(crate) held: u32,
    /// Bytes of all messages that are held for it.
    pub(crate) held_bytes: u64,
    /// Messages that may be in flight; 0: any number.
    pub(crate) in_flight_max: u32,
    /// Packets that its socket has not taken.
    pub(crate) out_packets: u32,
    /// Addresses of the first messages in flight and waiting: others when it has acknowledged one. Never followed.
    pub(crate) heads: (usize, usize),
}

impl QueueState {
    /// One message more, where nothing more can go in flight.
    pub(super) fn add(&mut self, qos: u8, bytes: u64) {
        if qos == 0 {
            self.out_packets = self.out_packets.saturating_add(1);
            return;
        }
        self.held = self.held.saturating_add(1);
        self.waiting = self.waiting.saturating_add(1);
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
    }
}

/// Messages and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) messages: u32,
    pub(super) bytes: u64,
}

/// Mosquitto's limits, and a bound of our own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    mosquitto: QueueLimits,
    /// Bound of what is held for one client, for the sake of the broker's memory.
    client_bytes_max: u64,
}

impl Limits {
    pub(super) fn new(mosquitto: QueueLimits, client_bytes_max: u64) -> Limits {
        Limits {
            mosquitto,
            client_bytes_max,
        }
    }

    pub(super) fn set(&mut self, mosquitto: QueueLimits) {
        self.mosquitto = mosquitto;
    }

    /// `max_queued_messages`.
    pub(super) fn messages(&self) -> u32 {
        self.mosquitto.messages
    }

    fn bytes(&self) -> u64 {
        match self.mosquitto.bytes {
            0 => self.client_bytes_max,
            bytes => bytes.min(self.client_bytes_max),
        }
    }

    /// What a client that is not watched can take for sure: see `is_tight`.
    pub(super) fn part_of_tick(&self) -> Room {
        Room {
            messages: match self.mosquitto.messages {
                0 => u32::MAX,
                limit => (limit / 4).max(1),
            },
            bytes: (self.bytes() / 4).max(1),
        }
    }

    pub(super) fn room(&self, state: &QueueState) -> Room {
        let limits = &self.mosquitto;
        // Then everything is in flight at once, and nothing is ever dropped.
        let unlimited = state.in_flight_max == 0 && limits.inflight_bytes == 0;
        let messages = match limits.messages {
            0 => u32::MAX,
            _ if unlimited => u32::MAX,
            limit => {
                let queue = limit
                    .saturating_add(state.in_flight_max)
                    .saturating_sub(state.waiting);
                queue.min(limit.saturating_sub(state.out_packets))
            }
        };
        let held = self.client_bytes_max.saturating_sub(state.held_bytes);
        let bytes = match limits.bytes {
            0 => held,
            _ if unlimited => held,
            limit => held.min(
                limit
                    .saturating_add(limits.inflight_bytes)
                    .saturating_sub(state.waiting_bytes),
            ),
        };
        Room { messages, bytes }
    }

    /// Less than three quarters are free.
    pub(super) fn is_tight(&self, room: Room) -> bool {
        let three_quarters = |limit: u64| limit - limit / 4;
        let limit = u64::from(self.mosquitto.messages);
        (limit > 0 && u64::from(room.messages) < three_quarters(limit))
            || room.bytes < three_quarters(self.bytes())
    }

    /// At which QoS a message of this QoS is delivered to a client in this state: the broker tells that of the message,
    /// and the subscription may have a lower one. Nobody has a socket full of packets and nothing to acknowledge who gets
    /// messages of QoS 1.
    pub(super) fn delivered_at(&self, state: &QueueState, qos: u8) -> u8 {
        if state.connected && state.held == 0 && self.socket_is_full(state) {
            0
        } else {
            qos
        }
    }

    fn socket_is_full(&self, state: &QueueState) -> bool {
        is_over(state.out_packets.into(), self.mosquitto.messages.into(), 0)
    }

    /// Whether Mosquitto will drop a message that is delivered at this QoS to a client in this state.
    pub(super) fn will_drop(&self, state: &QueueState, qos: u8) -> bool {
        let limits = &self.mosquitto;
        let messages = u64::from(limits.messages);
        if !state.connected {
            // Nothing in flight, and QoS 0 is not kept anyway.
            return qos > 0
                && (is_over(state.waiting.into(), messages, 0)
                    || is_over(state.waiting_bytes, limits.bytes, 0));
        }
        if state.in_flight_max == 0 && limits.inflight_bytes == 0 {
            return false;
        }
        if qos == 0 {
            return self.socket_is_full(state);
        }
        is_over(state.waiting.into(), messages, state.in_flight_max.into())
            || is_over(state.waiting_bytes, limits.bytes, limits.inflight_bytes)
    }
}

/// Whether there are as many waiting as the limit and what is free besides; 0 is no limit.
fn is_over(waiting: u64, limit: u64, free: u64) -> bool {
    limit > 0 && waiting >= limit.saturating_add(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOSQUITTO: QueueLimits = QueueLimits {
        messages: 100,
        bytes: 0,
        inflight_bytes: 0,
    };

    fn state(waiting: u32) -> QueueState {
        QueueState {
            connected: true,
            waiting,
            in_flight_max: 20,
            ..QueueState::default()
        }
    }

    #[test]
    fn a_queue_takes_what_is_in_flight_besides_the_limit() {
        let limits = Limits::new(MOSQUITTO, 1 << 20);
        assert_eq!(limits.room(&state(0)).messages, 100, "as for QoS 0");
        assert_eq!(limits.room(&state(119)).messages, 1);
        assert_eq!(limits.room(&state(120)).messages, 0);
        assert!(!limits.will_drop(&state(119), 1));
        assert!(limits.will_drop(&state(120), 1));
        let away = QueueState {
            connected: false,
            ..state(100)
        };
        assert!(limits.will_drop(&away, 1) && !limits.will_drop(&away, 0));
    }

    #[test]
    fn packets_that_the_socket_does_not_take_count_too() {
        let limits = Limits::new(MOSQUITTO, 1 << 20);
        let stuck = QueueState {
            out_packets: 100,
            ..state(0)
        };
        assert_eq!(limits.room(&stuck).messages, 0);
        assert!(limits.will_drop(&stuck, 0) && !limits.will_drop(&stuck, 1));
    }

    #[test]
    fn a_subscription_of_qos_0_is_known_by_its_full_socket() {
        let limits = Limits::new(MOSQUITTO, 1 << 20);
        let full = QueueState {
            out_packets: 100,
            ..state(0)
        };
        assert_eq!(limits.delivered_at(&full, 1), 0);
        // Its messages wait to be acknowledged.
        assert_eq!(limits.delivered_at(&QueueState { held: 20, ..full }, 1), 1);
        assert_eq!(limits.delivered_at(&state(0), 1), 1);
    }

    #[test]
    fn no_limit_is_no_limit_but_memory_has_one() {
        for (messages, in_flight_max) in [(0, 20), (100, 0)] {
            let limits = Limits::new(
                QueueLimits {
                    messages,
                    ..MOSQUITTO
                },
                1000,
            );
            let many = QueueState {
                held_bytes: 990,
                in_flight_max,
                ..state(1_000_000)
            };
            assert_eq!(limits.room(&many).messages, u32::MAX);
            assert_eq!(limits.room(&many).bytes, 10);
            assert!(limits.is_tight(limits.room(&many)));
            assert!(!limits.will_drop(&many, 1));
        }
    }

    #[test]
    fn bytes_are_counted_as_mosquitto_counts_them() {
        let limits = Limits::new(
            QueueLimits {
                bytes: 500,
                inflight_bytes: 100,
                ..MOSQUITTO
            },
            1 << 20,
        );
        let full = QueueState {
            waiting_bytes: 590,
            ..state(1)
        };
        assert_eq!(limits.room(&full).bytes, 10);
        assert!(!limits.will_drop(&full, 1));
        assert!(limits.will_drop(
            &QueueState {
                waiting_bytes: 600,
                ..full
            },
            1
        ));
    }

    #[test]
    fn who_is_not_watched_has_room_for_a_tick_and_its_copies() {
        for messages in [1, 2, 3, 7, 100, 1000] {
            let limits = Limits::new(
                QueueLimits {
                    messages,
                    ..MOSQUITTO
                },
                1 << 20,
            );
            for waiting in 0..=messages + 20 {
                let room = limits.room(&state(waiting));
                let part = limits.part_of_tick();
                assert!(limits.is_tight(room) || room.messages >= part.messages);
            }
        }
    }
}
