//! `mosquitto-rocketmq`: the process between the hand-off log and RocketMQ, and the commands for its operators.
#![forbid(unsafe_code)]

mod metrics;

fn main() {}
