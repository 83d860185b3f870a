//! MQTT 5 properties between Mosquitto's lists and ours.

use std::ffi::{CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use protocol::message::{Properties, Property, PropertyBuffer};

use super::bindings::library;
use super::borrow::borrow_text;
use super::broker::Broker;
use super::c;
use crate::inject::InjectError;

const PAYLOAD_FORMAT: c_int = c::MQTT_PROP_PAYLOAD_FORMAT_INDICATOR.cast_signed();
const EXPIRY: c_int = c::MQTT_PROP_MESSAGE_EXPIRY_INTERVAL.cast_signed();
const CONTENT_TYPE: c_int = c::MQTT_PROP_CONTENT_TYPE.cast_signed();
const RESPONSE_TOPIC: c_int = c::MQTT_PROP_RESPONSE_TOPIC.cast_signed();
const CORRELATION_DATA: c_int = c::MQTT_PROP_CORRELATION_DATA.cast_signed();
const USER_PROPERTY: c_int = c::MQTT_PROP_USER_PROPERTY.cast_signed();

/// The properties of an event: the broker's, until the callback returns.
#[derive(Clone, Copy)]
pub(crate) struct BorrowedProperties<'a> {
    list: *const c::mosquitto_property,
    _life: PhantomData<&'a c::mosquitto_property>,
}

impl BorrowedProperties<'_> {
    /// No property at all.
    #[cfg(test)]
    pub(crate) const NONE: BorrowedProperties<'static> = BorrowedProperties {
        list: ptr::null(),
        _life: PhantomData,
    };

    /// # Safety
    /// `list` is null or a list that stays unchanged for the lifetime.
    pub(crate) unsafe fn new(list: *const c::mosquitto_property) -> Self {
        BorrowedProperties {
            list,
            _life: PhantomData,
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(self) -> bool {
        self.list.is_null()
    }

    /// Names the list while the event lasts: the same address is the same list.
    pub(crate) fn address(self) -> usize {
        self.list.addr()
    }

    /// Reads what the bridge carries into `out`; the message expiry is returned.
    ///
    /// The public API hands strings out only as copies that it allocates: the one allocation of the uplink path, and
    /// only for MQTT 5 messages with properties.
    pub(crate) fn read_into(self, out: &mut PropertyBuffer) -> Option<u32> {
        out.clear();
        let mut expiry = None;
        let mut at = self.list;
        while !at.is_null() {
            // SAFETY: an element of the list.
            match unsafe { library::mosquitto_property_identifier(at) } {
                EXPIRY => expiry = read_int32(at),
                id => read_one(at, id, out),
            }
            // SAFETY: an element of the list; null at its end.
            at = unsafe { library::mosquitto_property_next(at) };
        }
        expiry
    }
}

fn read_int32(at: *const c::mosquitto_property) -> Option<u32> {
    let mut value = 0;
    // SAFETY: an element of the list, and a place to write to.
    let found =
        unsafe { library::mosquitto_property_read_int32(at, EXPIRY, &raw mut value, false) };
    (!found.is_null()).then_some(value)
}

/// A string or block that libmosquitto allocated for us.
struct Taken<T>(*mut T);

impl<T> Drop for Taken<T> {
    fn drop(&mut self) {
        // SAFETY: null or from libmosquitto's calloc, and ours to free.
        unsafe { libc::free(self.0.cast()) };
    }
}

fn push(out: &mut PropertyBuffer, property: &Property<'_>) {
    if let Err(error) = out.push(property) {
        // Cannot be: MQTT bounds every one of these by 65535 bytes.
        log::error!("an MQTT 5 property was left out: {error}");
    }
}

fn text_of<'a>(taken: &'a Taken<c_char>) -> &'a str {
    // SAFETY: null or a C string that lives as long as `taken`. The broker has checked that it is UTF-8.
    unsafe { borrow_text::<'a>(taken.0) }.text().unwrap_or("")
}

fn read_one(at: *const c::mosquitto_property, id: c_int, out: &mut PropertyBuffer) {
    match id {
        PAYLOAD_FORMAT => {
            let mut value = 0;
            // SAFETY: an element of the list, and a place to write to.
            unsafe { library::mosquitto_property_read_byte(at, id, &raw mut value, false) };
            push(out, &Property::PayloadFormat(value));
        }
        CONTENT_TYPE | RESPONSE_TOPIC => {
            let mut text = Taken(ptr::null_mut());
            // SAFETY: as above.
            unsafe { library::mosquitto_property_read_string(at, id, &raw mut text.0, false) };
            let text = text_of(&text);
            let property = if id == CONTENT_TYPE {
                Property::ContentType(text)
            } else {
                Property::ResponseTopic(text)
            };
            push(out, &property);
        }
        CORRELATION_DATA => {
            let mut block = Taken::<c_void>(ptr::null_mut());
            let mut len = 0;
            // SAFETY: as above.
            unsafe {
                library::mosquitto_property_read_binary(
                    at,
                    id,
                    &raw mut block.0,
                    &raw mut len,
                    false,
                )
            };
            // SAFETY: null, or `len` bytes that live as long as `block`.
            let data = unsafe { super::borrow::borrow_bytes(block.0, u32::from(len)) };
            push(out, &Property::CorrelationData(data));
        }
        USER_PROPERTY => {
            let mut name = Taken(ptr::null_mut());
            let mut value = Taken(ptr::null_mut());
            // SAFETY: as above.
            unsafe {
                library::mosquitto_property_read_string_pair(
                    at,
                    id,
                    &raw mut name.0,
                    &raw mut value.0,
                    false,
                );
            }
            push(out, &Property::User(text_of(&name), text_of(&value)));
        }
        // Topic alias, subscription identifier, will delay: between client and broker.
        _ => {}
    }
}

/// A list for `mosquitto_broker_publish`: ours until the broker has taken it.
pub(crate) struct OwnedProperties<'a> {
    broker: &'a Broker,
    list: *mut c::mosquitto_property,
}

impl<'a> OwnedProperties<'a> {
    /// Builds the broker's list with the broker's functions.
    pub(crate) fn build(
        broker: &'a Broker,
        properties: Properties<'_>,
        expiry_s: Option<u32>,
    ) -> Result<OwnedProperties<'a>, InjectError> {
        let mut built = OwnedProperties {
            broker,
            list: ptr::null_mut(),
        };
        for property in properties.iter() {
            built.add(&property)?;
        }
        if let Some(seconds) = expiry_s {
            let list = &raw mut built.list;
            // SAFETY: the address of a list head that is null or the broker's.
            check(unsafe {
                (broker.symbols().mosquitto_property_add_int32)(list, EXPIRY, seconds)
            })?;
        }
        Ok(built)
    }

    fn add(&mut self, property: &Property<'_>) -> Result<(), InjectError> {
        let symbols = self.broker.symbols();
        let list = &raw mut self.list;
        let c_text = |text: &str| CString::new(text).map_err(|_| InjectError::ZeroByte("property"));
        check(match property {
            // SAFETY (each arm): a list head that is null or the broker's, and arguments that live for the call; the
            // broker copies them.
            Property::PayloadFormat(value) => {
                // SAFETY: see above.
                unsafe { (symbols.mosquitto_property_add_byte)(list, PAYLOAD_FORMAT, *value) }
            }
            Property::ContentType(text) => {
                let text = c_text(text)?;
                // SAFETY: see above.
                unsafe {
                    (symbols.mosquitto_property_add_string)(list, CONTENT_TYPE, text.as_ptr())
                }
            }
            Property::ResponseTopic(text) => {
                let text = c_text(text)?;
                // SAFETY: see above.
                unsafe {
                    (symbols.mosquitto_property_add_string)(list, RESPONSE_TOPIC, text.as_ptr())
                }
            }
            Property::CorrelationData(data) => {
                let len = u16::try_from(data.len()).map_err(|_| InjectError::TooLarge)?;
                // SAFETY: see above.
                unsafe {
                    (symbols.mosquitto_property_add_binary)(
                        list,
                        CORRELATION_DATA,
                        data.as_ptr().cast(),
                        len,
                    )
                }
            }
            Property::User(name, value) => {
                let (name, value) = (c_text(name)?, c_text(value)?);
                // SAFETY: see above.
                unsafe {
                    (symbols.mosquitto_property_add_string_pair)(
                        list,
                        USER_PROPERTY,
                        name.as_ptr(),
                        value.as_ptr(),
                    )
                }
            }
        })
    }

    /// For the call only.
    pub(crate) fn as_raw(&self) -> *mut c::mosquitto_property {
        self.list
    }

    /// The broker has taken the list.
    pub(crate) fn into_broker(mut self) {
        self.list = ptr::null_mut();
    }
}

impl Drop for OwnedProperties<'_> {
    fn drop(&mut self) {
        if !self.list.is_null() {
            // SAFETY: a list made by the broker's functions, that the broker has not taken.
            unsafe { (self.broker.symbols().mosquitto_property_free_all)(&raw mut self.list) };
        }
    }
}

fn check(result: c_int) -> Result<(), InjectError> {
    if result == c::MOSQ_ERR_SUCCESS {
        Ok(())
    } else {
        Err(InjectError::Property(result))
    }
}
