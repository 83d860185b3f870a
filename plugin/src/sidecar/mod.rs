//! Starting the sidecar and watching it.
//!
//! The sidecar can crash, hang or be replaced without Mosquitto noticing: a thread of ours starts it again, at once if
//! it had begun its work, and more slowly each time it dies young. It ends with Mosquitto, however that ends: its standard input is a pipe that only
//! we hold, and the kernel sends it SIGTERM when the thread that started it is gone.

mod backoff;
mod binary;
mod child;
mod supervisor;

pub(crate) use binary::{BinaryError, find};
pub(crate) use supervisor::{Command, Supervisor};
