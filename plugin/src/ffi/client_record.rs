//! The broker's own record of a client, `struct mosquitto`, for what the API does not tell: its queue (`client_queue`),
//! the packet that came last from it (`in_packet`), and on 2.0 whether its session stays.
//!
//! The offsets are those of the sources of each version, with and without `WITH_ADNS` (Debian builds with it). They are
//! believed only while what the API does tell of the same client stands where they say, before and behind the queue,
//! and the queue's own fields agree with each other. Else nothing is known, for good.

use std::cell::Cell;
use std::ffi::{c_char, c_int};

use super::broker::Broker;
use super::c;
use super::in_packet::InPacket;
use crate::events::BrokerVersion;

/// Where the fields are, in bytes from the start of the record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    version: (u32, u32, u32),
    // What the API tells too.
    address: usize,
    id: usize,
    keepalive: usize,
    subscriptions: usize,
    // What it does not.
    pub(super) in_packet: InPacket,
    pub(super) out_packets: usize,
    /// Seconds that the session outlives its connection. 2.1 tells.
    expiry: Option<usize>,
    pub(super) queue: usize,
    /// Later than 2.0.11, the queue counts what is in flight and what waits apart.
    pub(super) apart: bool,
}

/// 2.0 without `WITH_ADNS`.
const fn layout_2_0(
    revision: u32,
    adns: bool,
    queue: usize,
    subscriptions: usize,
    apart: bool,
) -> Layout {
    // A pointer before the protocol, and what aligns it.
    let shift = if adns { 16 } else { 0 };
    Layout {
        version: (2, 0, revision),
        address: 0x10 + shift,
        id: 0x18 + shift,
        keepalive: 0x30 + shift,
        subscriptions: subscriptions + shift,
        in_packet: InPacket::of_2_0(0x50 + shift),
        out_packets: 0xa4 + shift,
        expiry: Some(0x140 + shift),
        queue: queue + shift,
        apart,
    }
}

const fn layout_2_1(revision: u32, adns: bool) -> Layout {
    let shift = if adns { 8 } else { 0 };
    Layout {
        version: (2, 1, revision),
        address: 0x58 + shift,
        id: 0x60 + shift,
        keepalive: 0x7c + shift,
        subscriptions: 0x27c + shift,
        in_packet: InPacket::of_2_1(0xa0 + shift),
        out_packets: 0x10c + shift,
        expiry: None,
        queue: 0x208 + shift,
        apart: true,
    }
}

const LAYOUTS: &[Layout] = &[
    // Debian's, which has a later fix to shared subscriptions, and the original.
    layout_2_0(11, true, 0x180, 0x1d8, false),
    layout_2_0(11, true, 0x180, 0x1e0, false),
    layout_2_0(11, false, 0x180, 0x1d8, false),
    layout_2_0(11, false, 0x180, 0x1e0, false),
    layout_2_0(21, true, 0x198, 0x208, true),
    layout_2_0(21, false, 0x198, 0x208, true),
    layout_2_0(22, true, 0x198, 0x208, true),
    layout_2_0(22, false, 0x198, 0x208, true),
    layout_2_1(2, true),
    layout_2_1(2, false),
];

/// Clients that are looked at before it is said that no layout fits.
const TRIES: u32 = 8;

#[derive(Clone, Copy)]
enum Known {
    /// After so many clients that no layout fitted.
    NotYet(u32),
    As(&'static Layout),
    Not,
}

type Number = unsafe extern "C" fn(*const c::mosquitto) -> c_int;

/// Reads records.
pub(super) struct ClientRecords {
    version: BrokerVersion,
    /// The API's functions, where they are exported.
    keepalive: Option<Number>,
    subscriptions: Option<Number>,
    known: Cell<Known>,
    /// That a packet was another than its message has been said.
    pub(super) told_other_packet: Cell<bool>,
}

impl ClientRecords {
    pub(super) fn new(broker: &Broker) -> ClientRecords {
        let number = |name| {
            let address = broker.own_symbol(name)?;
            // SAFETY: the signature of both functions since 2.0.0.
            Some(unsafe { std::mem::transmute::<*mut std::ffi::c_void, Number>(address) })
        };
        let version = broker.version();
        let keepalive = number(c"mosquitto_client_keepalive");
        let subscriptions = number(c"mosquitto_client_sub_count");
        // Without these no layout could be believed.
        let supported = cfg!(all(target_pointer_width = "64", target_endian = "little"))
            && keepalive.is_some()
            && subscriptions.is_some()
            && LAYOUTS.iter().any(|layout| layout.is_of(version));
        ClientRecords {
            version,
            keepalive,
            subscriptions,
            known: Cell::new(if supported {
                Known::NotYet(0)
            } else {
                Known::Not
            }),
            told_other_packet: Cell::new(false),
        }
    }

    /// Whether records can be read, as far as is known by now.
    pub(super) fn can_read(&self) -> bool {
        !matches!(self.known.get(), Known::Not)
    }

    /// Whether the session of `client` outlives its connection.
    ///
    /// # Safety
    /// As `record`.
    pub(super) unsafe fn session_stays(
        &self,
        broker: &Broker,
        client: *const c::mosquitto,
    ) -> Option<bool> {
        // SAFETY: as the caller promises.
        let (record, layout) = unsafe { self.record(broker, client) }?;
        layout.expiry.map(|offset| record.int(offset) != 0)
    }

    /// The record of `client`, and where its fields are.
    ///
    /// # Safety
    /// `client` is the client of the event at hand, or one that is connected.
    pub(super) unsafe fn record(
        &self,
        broker: &Broker,
        client: *const c::mosquitto,
    ) -> Option<(Record, &'static Layout)> {
        if client.is_null() {
            return None;
        }
        let layout = match self.known.get() {
            Known::Not => return None,
            Known::As(layout) => layout,
            // SAFETY: as the caller promises.
            Known::NotYet(tried) => unsafe { self.find(broker, client, tried) }?,
        };
        let record = Record(client.cast());
        // SAFETY: as the caller promises.
        if record.pointer(layout.id) == unsafe { broker.raw_id(client) }.addr() {
            return Some((record, layout));
        }
        self.give_up();
        None
    }

    /// # Safety
    /// As `record`.
    unsafe fn find(
        &self,
        broker: &Broker,
        client: *const c::mosquitto,
        tried: u32,
    ) -> Option<&'static Layout> {
        let number = |function: Option<Number>| {
            // SAFETY: as the caller promises.
            function.map(|call| unsafe { call(client) })
        };
        let record = Record(client.cast());
        // SAFETY: as the caller promises.
        let (id, address) = unsafe { (broker.raw_id(client), broker.raw_address(client)) };
        let keepalive = number(self.keepalive)?;
        let subscriptions = number(self.subscriptions)?;
        let fits = |layout: &&Layout| {
            layout.is_of(self.version)
                && record.pointer(layout.id) == id.addr()
                && record.pointer(layout.address) == address.addr()
                && c_int::from(record.short(layout.keepalive)) == keepalive
                && record.int(layout.subscriptions) == subscriptions
                && record.queue(layout).is_some()
        };
        let mut found = LAYOUTS.iter().filter(fits);
        match (found.next(), found.next()) {
            (None, _) if tried >= TRIES => {
                self.give_up();
                None
            }
            (None, _) => {
                self.known.set(Known::NotYet(tried + 1));
                None
            }
            // Both can't be right: another client will tell.
            (Some(one), Some(other)) if one.queue != other.queue => None,
            // Two that differ in the subscriptions alone read the same.
            (Some(one), _) => {
                self.known.set(Known::As(one));
                Some(one)
            }
        }
    }

    fn give_up(&self) {
        self.known.set(Known::Not);
        log::warn!(
            "this build of Mosquitto {} has other records of its clients than those that were tried: the bridge can't \
             wait for clients whose queues are full (downlink_hold), and what MQTT 5 devices publish goes to RocketMQ \
             without its message expiry",
            self.version
        );
    }
}

impl Layout {
    fn is_of(&self, version: BrokerVersion) -> bool {
        self.version == (version.major, version.minor, version.revision)
    }
}

/// A client's record. Its fields are read one by one, unaligned, and never written. All offsets lie within the record
/// of each version that `LAYOUTS` names: the smallest has 632 bytes.
pub(super) struct Record(*const u8);

impl Record {
    /// # Safety
    /// All offsets that are asked for lie within what begins here.
    #[cfg(test)]
    pub(super) unsafe fn at(start: *const u8) -> Record {
        Record(start)
    }

    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: within the record, which lives (`ClientRecords::record`); every pattern of bits is a value of the integers
        // and the pointer that this is used with.
        unsafe { self.0.add(offset).cast::<T>().read_unaligned() }
    }

    pub(super) fn pointer(&self, offset: usize) -> usize {
        self.read(offset)
    }

    /// Where something of the broker's is. Null when it is nowhere.
    pub(super) fn block(&self, offset: usize) -> *const u8 {
        self.read(offset)
    }

    pub(super) fn long(&self, offset: usize) -> i64 {
        self.read(offset)
    }

    pub(super) fn int(&self, offset: usize) -> c_int {
        self.read(offset)
    }

    pub(super) fn word(&self, offset: usize) -> u32 {
        self.read(offset)
    }

    pub(super) fn byte(&self, offset: usize) -> u8 {
        self.read(offset)
    }

    pub(super) fn short(&self, offset: usize) -> u16 {
        self.read(offset)
    }
}

impl Broker {
    /// # Safety
    /// As `client_id`.
    unsafe fn raw_id(&self, client: *const c::mosquitto) -> *const c_char {
        // SAFETY: as the caller promises.
        unsafe { (self.symbols().mosquitto_client_id)(client) }
    }

    /// # Safety
    /// As `client_id`.
    unsafe fn raw_address(&self, client: *const c::mosquitto) -> *const c_char {
        // SAFETY: as the caller promises.
        unsafe { (self.symbols().mosquitto_client_address)(client) }
    }
}
