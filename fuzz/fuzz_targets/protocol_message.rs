//! Any bytes are a frame of the uplink log that encodes to the same bytes, or a clean error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::message::{Identity, Message, UplinkFrame};

fn check(message: &Message<'_>, bytes: &[u8]) {
    let mut again = vec![0; message.encoded_len()];
    message.encode_into(&mut again);
    assert_eq!(again, bytes);
    message.properties.iter().for_each(drop);
}

fuzz_target!(|bytes: &[u8]| {
    match UplinkFrame::decode(bytes) {
        Ok(UplinkFrame::Message(message)) => check(&message, bytes),
        Ok(UplinkFrame::Returned(returned)) => {
            let mut again = vec![0; returned.encoded_len()];
            returned.encode_into(&mut again);
            assert_eq!(again, bytes);
            if let Ok(message) = Message::decode(returned.payload) {
                check(&message, returned.payload);
            }
        }
        Err(_) => assert!(Message::decode(bytes).is_err()),
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(identity) = Identity::parse(text)
    {
        assert_eq!(identity.to_string(), text);
    }
});
