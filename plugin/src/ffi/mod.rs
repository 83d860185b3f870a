//! The C boundary: everything in the plugin that touches a raw pointer, apart
//! from the few system calls of `sys`.
//!
//! This is not where anything is decided: it turns what Mosquitto hands over into
//! safe Rust values, calls the safe code, and turns its answer back.

/// Made by bindgen from the headers of Mosquitto 2.0.11 (`scripts/bindings`).
/// C enums are constants here, never Rust enums: a later broker's unknown value
/// would be undefined behaviour.
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]
pub(crate) mod bindings {
    // As bindgen wrote them: `scripts/bindings --check` compares them byte by byte.
    #[rustfmt::skip]
    pub(crate) mod broker;
    #[rustfmt::skip]
    pub(crate) mod library;
}
mod access;
mod auth;
pub(crate) mod borrow;
pub(crate) mod broker;
mod client_queue;
mod client_record;
mod cluster;
pub(crate) mod entry;
pub(crate) mod guard;
mod in_packet;
mod load;
mod plugin;
pub(crate) mod properties;
mod refresh;
mod registration;
mod swallow;
pub(crate) mod sys;

pub(crate) use bindings::broker as c;
