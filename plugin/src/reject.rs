//! Which code refuses a publish so that its sender never sees a false acknowledgement.
//!
//! | returned from MESSAGE | MQTT 3.1.1 sees | MQTT 5 sees |
//! |---|---|---|
//! | 12 ACL_DENIED | a normal ack: silent loss | 0x87 |
//! | -6 QUOTA_EXCEEDED on 2.1 | a normal ack: silent loss | 0x97, stays connected |
//! | -6 on 2.0 | closed, no ack | closed, no ack |
//! | 1 NOMEM | closed, no ack | DISCONNECT 0x80, closed, no ack |

use std::ffi::c_int;

use crate::ffi::c;

/// Only in 2.1; there it becomes 0x97 for MQTT 5 clients.
pub(crate) const QUOTA_EXCEEDED: c_int = -6;

/// The answer to a QoS 1 or 2 publish that could not be kept. Never for QoS 0: that one has no acknowledgement to
/// withhold, and refusing it would only stop the local delivery.
pub(crate) fn refusal(mqtt_version: u8, is_2_1: bool) -> c_int {
    if is_2_1 && mqtt_version == 5 {
        QUOTA_EXCEEDED
    } else {
        c::MOSQ_ERR_NOMEM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_gets_a_false_acknowledgement() {
        // 12 never; -6 only where an MQTT 5 client of a 2.1 broker sees 0x97.
        for version in [0, 3, 4] {
            assert_eq!(refusal(version, true), 1);
            assert_eq!(refusal(version, false), 1);
        }
        assert_eq!(refusal(5, true), -6);
        assert_eq!(refusal(5, false), 1);
    }
}
