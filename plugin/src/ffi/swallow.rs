//! Having the broker acknowledge a message and give it to nobody.

use std::ffi::CStr;

use super::c;

/// Makes the message's topic one that nobody subscribes to.
///
/// Denying the message would have it acknowledged and not delivered as well, but 2.0.12 to 2.0.22 then close the connection where
/// `max_queued_messages` is 0, and again each time that the message is sent again. In place, because whose it is to free another topic differs from version to
/// version.
///
/// # Safety
/// `event.topic` is a C string that may be written to, and nothing of it is borrowed.
pub(super) unsafe fn swallow(event: &mut c::mosquitto_evt_message) {
    // SAFETY: as the caller promises.
    unsafe {
        let len = CStr::from_ptr(event.topic).count_bytes();
        // Wildcards don't match what begins with a `$`.
        std::ptr::write_bytes(event.topic.cast::<u8>(), b'$', len);
    }
    event.retain = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_is_another_one_of_the_same_length_and_nothing_is_retained() {
        let topic = c"room/x".to_owned().into_raw();
        // SAFETY: all its fields may be zero.
        let mut event: c::mosquitto_evt_message = unsafe { std::mem::zeroed() };
        (event.topic, event.retain) = (topic, true);
        // SAFETY: the event's topic is ours, and made above.
        let topic = unsafe {
            swallow(&mut event);
            std::ffi::CString::from_raw(topic)
        };
        assert_eq!(topic.as_c_str(), c"$$$$$$");
        assert!(!event.retain && event.topic == topic.as_ptr().cast_mut());
    }
}
