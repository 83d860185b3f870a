//! How full the broker's queue for a client is: `struct mosquitto_msg_data` in the client's record.

use std::ffi::c_int;

use super::broker::Broker;
use super::c;
use super::client_record::{ClientRecords, Layout, Record};
use crate::pressure::QueueState;

/// The socket, or -1.
const SOCKET: usize = 4;

// Fields of `struct mosquitto_msg_data`, in bytes from its start.
const INFLIGHT: usize = 0;
const QUEUED: usize = 8;
const BYTES: usize = 0x10;
const BYTES_12: usize = 0x18;
const COUNT: usize = 0x20;
const COUNT_12: usize = 0x24;
const QUEUED_BYTES_12: usize = 0x30;
const QUEUED_COUNT: usize = 0x38;
const QUEUED_COUNT_12: usize = 0x3c;
/// `inflight_quota`, and behind it `inflight_maximum`; from the end of the counts.
const QUOTA: usize = 0x28;
const QUOTA_APART: usize = 0x40;

impl ClientRecords {
    /// The queue of `client`.
    ///
    /// # Safety
    /// `client` is the client of the event at hand, or one that is connected.
    pub(super) unsafe fn queue(
        &self,
        broker: &Broker,
        client: *const c::mosquitto,
    ) -> Option<QueueState> {
        // SAFETY: as the caller promises.
        let (record, layout) = unsafe { self.record(broker, client) }?;
        record.queue(layout)
    }
}

impl Record {
    /// `None` when the fields can't be what they should be.
    pub(super) fn queue(&self, layout: &Layout) -> Option<QueueState> {
        let at = |field| layout.queue + field;
        let count = |field| u32::try_from(self.int(at(field))).ok();
        let bytes = |field| u64::try_from(self.long(at(field))).ok();
        let (inflight, queued) = (self.pointer(at(INFLIGHT)), self.pointer(at(QUEUED)));
        let (all, all_12) = (count(COUNT)?, count(COUNT_12)?);
        let (all_bytes, all_bytes_12) = (bytes(BYTES)?, bytes(BYTES_12)?);
        let (waiting, waiting_bytes, held, agree) = if layout.apart {
            let (later, later_12) = (count(QUEUED_COUNT)?, count(QUEUED_COUNT_12)?);
            let agree =
                (all == 0) == (inflight == 0) && (later == 0) == (queued == 0) && later_12 <= later;
            let held = all_12.saturating_add(later_12);
            (later_12, bytes(QUEUED_BYTES_12)?, held, agree)
        } else {
            let agree = (all == 0) == (inflight == 0 && queued == 0);
            (all_12, all_bytes_12, all_12, agree)
        };
        let quota = at(if layout.apart { QUOTA_APART } else { QUOTA });
        let in_flight_max = self.short(quota + 4);
        let possible = agree
            && all_12 <= all
            && all_bytes_12 <= all_bytes
            && self.int(quota) <= c_int::from(in_flight_max).max(0);
        possible.then(|| QueueState {
            connected: self.int(SOCKET) != -1,
            waiting,
            waiting_bytes,
            held,
            held_bytes: all_bytes + if layout.apart { waiting_bytes } else { 0 },
            in_flight_max: u32::from(in_flight_max),
            out_packets: u32::try_from(self.int(layout.out_packets)).unwrap_or(0),
            heads: (inflight, queued),
        })
    }
}
