//! Encoding a message and matching a topic happen on the broker's thread: neither may allocate.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use protocol::message::{Message, Property, PropertyBuffer, RuleIds};
use protocol::trie::TopicTrie;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counter is a plain thread-local number.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

#[test]
fn matching_encoding_and_decoding_allocate_nothing_once_buffers_have_grown() {
    let mut trie = TopicTrie::new();
    for rule in 0..1000u32 {
        trie.insert(&format!("sensors/{rule}/+/#"), rule).unwrap();
    }
    trie.insert("sensors/#", 1000).unwrap();
    let mut ids = Vec::with_capacity(8);
    let mut properties = PropertyBuffer::with_capacity(64);
    let mut frame = vec![0; 4096];
    let payload = [7; 128];
    let mut rules = 0;
    let count = allocations(|| {
        trie.matches("sensors/77/room/temperature", |id| ids.push(*id));
        properties.clear();
        properties.push(&Property::User("unit", "°C")).unwrap();
        let message = Message {
            topic: "sensors/77/room/temperature",
            payload: &payload,
            client_id: "device-77",
            username: Some("user"),
            properties: properties.as_properties(),
            injected: None,
            rules: RuleIds::from_slice(&ids),
            ..Message::default()
        };
        let frame = &mut frame[..message.encoded_len()];
        message.encode_into(frame);
        let decoded = Message::decode(frame).unwrap();
        rules = decoded.rules.iter().count() + decoded.properties.iter().count();
    });
    assert_eq!(count, 0);
    assert_eq!(rules, 3);
    assert_ne!(allocations(|| drop(vec![0u8; 10])), 0, "the counter counts");
}
