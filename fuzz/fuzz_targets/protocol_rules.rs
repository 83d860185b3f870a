//! Any text is a rule whose canonical text is the same rule, or a clean error; any text can be looked up in the trie.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::rules::{DownlinkRule, UplinkRule};
use protocol::trie::TopicTrie;

fuzz_target!(|text: &str| {
    if let Ok(rule) = UplinkRule::parse(text) {
        assert_eq!(UplinkRule::parse(&rule.text).as_ref(), Ok(&rule));
    }
    if let Ok(rule) = DownlinkRule::parse(text) {
        assert_eq!(DownlinkRule::parse(&rule.text).as_ref(), Ok(&rule));
    }
    let (filter, topic) = text.split_once('\n').unwrap_or((text, text));
    let mut trie = TopicTrie::new();
    let inserted = trie.insert(filter, ()).is_ok();
    let mut found = 0;
    trie.matches(topic, |()| found += 1);
    assert!(found <= usize::from(inserted));
});
