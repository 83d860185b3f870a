//! The built `.so` in real Mosquittos: 2.0.11 (`MRMQ_MOSQUITTO_2_0_11`, else `/usr/sbin/mosquitto`), and the others
//! whose commands the environment names (`MRMQ_MOSQUITTO_2_0_21`, `MRMQ_MOSQUITTO_2_1_2`; `scripts/test` does).
//!
//! The sidecar's side is played by the tests, with the hand-off logs. The clients are raw sockets, so that what a
//! client sees is seen byte by byte.

#![allow(clippy::expect_used)] // a test may stop at whatever it did not expect

mod access;
mod client;
mod cluster;
mod downlink;
mod expiry;
mod life;
mod logins;
mod pressure;
mod refusals;
mod support;
mod uplink;
