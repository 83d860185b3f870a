//! The broker's own access check: asking it what everybody else would allow.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use super::broker::Broker;
use super::c;

type AclCheck20 = unsafe extern "C" fn(
    *mut c::mosquitto,
    *const c_char,
    u32,
    *mut c_void,
    u8,
    bool,
    c_int,
) -> c_int;
type AclCheck21 = unsafe extern "C" fn(
    *mut c::mosquitto,
    *const c_char,
    u32,
    *mut c_void,
    u8,
    bool,
    *mut c::mosquitto_property,
    c_int,
) -> c_int;

/// The broker's own access check, where it can be called: Debian's brokers export it.
pub(crate) struct AccessCheck {
    address: *mut c_void,
    takes_properties: bool,
}

impl Broker {
    /// The broker's access check, if it is exported.
    pub(crate) fn access_check(&self, is_2_1: bool) -> Option<AccessCheck> {
        let address = self.own_symbol(c"mosquitto_acl_check")?;
        Some(AccessCheck {
            address,
            takes_properties: is_2_1,
        })
    }
}

impl AccessCheck {
    /// Asks the broker whether `client` may publish. Runs every plugin's ACL_CHECK, ours too.
    ///
    /// # Safety
    /// The pointers are those of an ACL_CHECK event that has not returned yet, or of a client that still exists and
    /// memory that stays for the call.
    pub(crate) unsafe fn may_write(&self, write: &RawWrite) -> bool {
        // SAFETY: as the caller promises.
        unsafe { self.may(write, c::MOSQ_ACL_WRITE) }
    }

    /// The same about a delivery.
    ///
    /// # Safety
    /// As `may_write`.
    pub(crate) unsafe fn may_read(&self, read: &RawWrite) -> bool {
        // SAFETY: as the caller promises.
        unsafe { self.may(read, c::MOSQ_ACL_READ) }
    }

    /// The same about giving up a subscription.
    ///
    /// # Safety
    /// As `may_write`.
    pub(crate) unsafe fn may_unsubscribe(
        &self,
        client: *mut c::mosquitto,
        filter: *const c_char,
    ) -> bool {
        let check = RawWrite {
            client,
            topic: filter,
            payload: ptr::null(),
            properties: ptr::null_mut(),
            len: 0,
            qos: 0,
            retain: false,
        };
        // SAFETY: as the caller promises.
        unsafe { self.may(&check, c::MOSQ_ACL_UNSUBSCRIBE) }
    }

    /// # Safety
    /// As `may_write`.
    unsafe fn may(&self, write: &RawWrite, access: u32) -> bool {
        let payload = write.payload.cast_mut();
        let access = access.cast_signed();
        let result = if self.takes_properties {
            // SAFETY: the signature of mosquitto_acl_check since 2.1.0.
            let check = unsafe { std::mem::transmute::<*mut c_void, AclCheck21>(self.address) };
            // SAFETY: as the caller promises.
            unsafe {
                check(
                    write.client,
                    write.topic,
                    write.len,
                    payload,
                    write.qos,
                    write.retain,
                    write.properties,
                    access,
                )
            }
        } else {
            // SAFETY: the signature of mosquitto_acl_check in 2.0.0 to 2.0.22.
            let check = unsafe { std::mem::transmute::<*mut c_void, AclCheck20>(self.address) };
            // SAFETY: as the caller promises.
            unsafe {
                check(
                    write.client,
                    write.topic,
                    write.len,
                    payload,
                    write.qos,
                    write.retain,
                    access,
                )
            }
        };
        result == c::MOSQ_ERR_SUCCESS
    }
}

/// What an access check is about, as C has it.
#[derive(Clone, Copy)]
pub(crate) struct RawWrite {
    pub(crate) client: *mut c::mosquitto,
    pub(crate) topic: *const c_char,
    pub(crate) payload: *const c_void,
    pub(crate) properties: *mut c::mosquitto_property,
    pub(crate) len: u32,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
}
