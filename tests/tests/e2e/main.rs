//! End-to-end tests: real Mosquitto brokers, a real RocketMQ, rumqttc and RocketMQ's Java client. One binary, so that they share
//! the Java process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod access;
mod bad_input;
mod catching_up;
mod cli;
mod cluster;
mod compressed;
mod dead_letters;
mod downlink;
mod duplicates;
mod external;
mod full;
mod health;
mod hostile;
mod order;
mod outage;
mod properties;
mod restarts;
mod retain;
mod rules;
mod uplink;
mod versions;
mod wills;

/// A payload of this length that holds every byte value when it is long enough.
fn every_byte(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index.wrapping_mul(167) ^ (index >> 8)) as u8)
        .collect()
}

/// The payload sizes that have to pass unchanged.
const SIZES: [usize; 4] = [0, 1, 128, 1024 * 1024];

/// MQTT topics and client ids in scripts, symbols and lengths that someone will use.
const UTF8: [&str; 6] = [
    "Grüße",
    "温度计",
    "датчик",
    "🦟🚀",
    "a b\"c\\d=e",
    "٣ مستشعر",
];
