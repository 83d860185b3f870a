//! Any bytes are a message that encodes to the same bytes, or a clean error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::message::{Identity, Message};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::decode(bytes) {
        let mut again = vec![0; message.encoded_len()];
        message.encode_into(&mut again);
        assert_eq!(again, bytes);
        message.properties.iter().for_each(drop);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(identity) = Identity::parse(text)
    {
        assert_eq!(identity.to_string(), text);
    }
});
