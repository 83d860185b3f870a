//! The broker's functions, called safely. Main thread only: `Broker` is not `Send`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::rc::Rc;

use protocol::message::Message;

use super::bindings::library;
use super::borrow::{CText, borrow_text};
use super::c;
use super::properties::OwnedProperties;
use super::sys;
use crate::broker_version;
use crate::events::BrokerVersion;
use crate::inject::{InjectError, Injector};

/// Only in 2.1 and later: registering it tells 2.1 from 2.0.
pub(crate) const EVT_CONNECT: u32 = 11;
/// Only in 2.1 and later.
pub(crate) const EVT_SUBSCRIBE: u32 = 12;
/// Only in 2.1 and later.
pub(crate) const EVT_UNSUBSCRIBE: u32 = 13;
/// Only in 2.1 and later.
pub(crate) const EVT_CLIENT_OFFLINE: u32 = 28;
/// Only in 2.1 and later: "as if this plugin did not exist".
pub(crate) const ERR_PLUGIN_IGNORE: c_int = 32;

/// Longest piece of one log record: Mosquitto formats into 1000 bytes.
const LOG_PIECE_BYTES: usize = 900;

type SetInfo21 =
    unsafe extern "C" fn(*mut c::mosquitto_plugin_id_t, *const c_char, *const c_char) -> c_int;

/// The broker that loaded us.
#[derive(Clone)]
pub(crate) struct Broker {
    symbols: Rc<c::BrokerSymbols>,
}

impl Broker {
    /// Looks up everything that each supported broker exports.
    pub(crate) fn find() -> Result<Broker, libloading::Error> {
        let process = libloading::os::unix::Library::this();
        // SAFETY: the process itself has no initialiser left to run, and the names and
        // types come from the broker's own headers.
        let symbols = unsafe { c::BrokerSymbols::from_library(process) }?;
        Ok(Broker {
            symbols: Rc::new(symbols),
        })
    }

    /// The broker's version: its own, else that of the libmosquitto that is loaded.
    pub(crate) fn version(&self) -> BrokerVersion {
        let address = self.symbols.mosquitto_callback_register as *const ();
        broker_version::of_file_mapped_at(address.addr()).unwrap_or_else(library_version)
    }

    /// Gives 2.1 a name for us in its log; 2.0 has no function for that.
    pub(crate) fn set_plugin_info(&self, identifier: *mut c::mosquitto_plugin_id_t) {
        let Some(address) = self.own_symbol(c"mosquitto_plugin_set_info") else {
            return;
        };
        // SAFETY: the signature of mosquitto_plugin_set_info since 2.1.0.
        let set_info = unsafe { std::mem::transmute::<*mut c_void, SetInfo21>(address) };
        let version = concat!(env!("CARGO_PKG_VERSION"), "\0");
        // SAFETY: init's identifier, and two C strings that the broker copies.
        unsafe {
            set_info(
                identifier,
                c"mosquitto-rocketmq".as_ptr(),
                version.as_ptr().cast(),
            )
        };
    }

    /// Where the broker says that its main loop is to end.
    pub(crate) fn ending(&self) -> Ending {
        // `run` in 2.0, `g_run` in 2.1: an int that the signal handlers set to 0 and the main function to 1.
        let flag = self
            .own_symbol(c"g_run")
            .or_else(|| self.own_symbol(c"run"));
        Ending(flag.map(|address| address.cast_const().cast()))
    }

    /// A symbol of the broker's own file: a library may well have a `run` of another kind.
    pub(super) fn own_symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: a C string; null is looked for.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        let known = self.symbols.mosquitto_callback_register as *const c_void;
        let same_file = !address.is_null() && sys::file_base(address) == sys::file_base(known);
        same_file.then_some(address)
    }

    /// Writes to Mosquitto's log. Long lines go out in pieces, line breaks as blanks.
    pub(crate) fn log(&self, level: log::Level, text: &str) {
        let level = match level {
            log::Level::Error => c::MOSQ_LOG_ERR,
            log::Level::Warn => c::MOSQ_LOG_WARNING,
            log::Level::Info => c::MOSQ_LOG_INFO,
            log::Level::Debug | log::Level::Trace => c::MOSQ_LOG_DEBUG,
        };
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let mut rest = clean.as_str();
        loop {
            let cut = rest.floor_char_boundary(LOG_PIECE_BYTES);
            let (piece, tail) = rest.split_at(cut);
            if let Ok(line) = CString::new(format!("mosquitto-rocketmq: {piece}")) {
                // SAFETY: "%s" takes exactly the one C string that is passed.
                unsafe {
                    (self.symbols.mosquitto_log_printf)(
                        level.cast_signed(),
                        c"%s".as_ptr(),
                        line.as_ptr(),
                    );
                }
            }
            if tail.is_empty() {
                return;
            }
            rest = tail;
        }
    }

    /// Registers a callback; the result is Mosquitto's.
    ///
    /// # Safety
    /// `identifier` is the one of init, and `userdata` outlives the registration.
    pub(crate) unsafe fn register(
        &self,
        identifier: *mut c::mosquitto_plugin_id_t,
        event: u32,
        callback: c::MOSQ_FUNC_generic_callback,
        userdata: *mut c_void,
    ) -> c_int {
        // SAFETY: as the caller promises; the callback is one of `entry`.
        unsafe {
            (self.symbols.mosquitto_callback_register)(
                identifier,
                event.cast_signed(),
                callback,
                ptr::null(),
                userdata,
            )
        }
    }

    /// Takes a callback back.
    ///
    /// # Safety
    /// `identifier` is the one of init.
    pub(crate) unsafe fn unregister(
        &self,
        identifier: *mut c::mosquitto_plugin_id_t,
        event: u32,
        callback: c::MOSQ_FUNC_generic_callback,
    ) -> c_int {
        // SAFETY: as the caller promises.
        unsafe {
            (self.symbols.mosquitto_callback_unregister)(
                identifier,
                event.cast_signed(),
                callback,
                ptr::null(),
            )
        }
    }

    /// A client's id.
    ///
    /// # Safety
    /// `client` is null or the client of the event at hand; the result is the broker's until the callback returns.
    pub(crate) unsafe fn client_id<'a>(&self, client: *const c::mosquitto) -> CText<'a> {
        // SAFETY: null is answered with null, and the broker keeps the string.
        unsafe { borrow_text((self.symbols.mosquitto_client_id)(client)) }
    }

    /// A client's user name.
    ///
    /// # Safety
    /// As `client_id`.
    pub(crate) unsafe fn client_username<'a>(&self, client: *const c::mosquitto) -> CText<'a> {
        // SAFETY: as above.
        unsafe { borrow_text((self.symbols.mosquitto_client_username)(client)) }
    }

    /// 3, 4 or 5; 0 when not known.
    ///
    /// # Safety
    /// As `client_id`.
    pub(crate) unsafe fn client_version(&self, client: *const c::mosquitto) -> u8 {
        // SAFETY: null is answered with 0.
        let version = unsafe { (self.symbols.mosquitto_client_protocol_version)(client) };
        u8::try_from(version).unwrap_or(0)
    }

    /// The address that a client connects from.
    ///
    /// # Safety
    /// As `client_id`, or a client that is connected.
    pub(crate) unsafe fn client_address<'a>(&self, client: *const c::mosquitto) -> CText<'a> {
        // SAFETY: as above.
        unsafe { borrow_text((self.symbols.mosquitto_client_address)(client)) }
    }

    pub(super) fn symbols(&self) -> &c::BrokerSymbols {
        &self.symbols
    }

    /// A copy of `bytes` in the broker's heap, NUL-terminated as the broker's own payloads are. From the broker's
    /// allocator, because the broker frees it and keeps count (`memory_limit`).
    fn malloc_copy(&self, bytes: &[u8]) -> Option<*mut c_void> {
        // SAFETY: any size is allowed; null is looked for.
        let copy = unsafe { (self.symbols.mosquitto_malloc)(bytes.len() + 1) };
        if copy.is_null() {
            return None;
        }
        // SAFETY: the block has len + 1 bytes, and is new, so it overlaps nothing.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), copy.cast::<u8>(), bytes.len()) };
        // SAFETY: the last byte of the block.
        unsafe { copy.cast::<u8>().add(bytes.len()).write(0) };
        Some(copy)
    }
}

fn library_version() -> BrokerVersion {
    let (mut major, mut minor, mut revision) = (0, 0, 0);
    // SAFETY: three valid places to write to.
    unsafe { library::mosquitto_lib_version(&raw mut major, &raw mut minor, &raw mut revision) };
    let part = |value: c_int| u32::try_from(value).unwrap_or(0);
    BrokerVersion {
        major: part(major),
        minor: part(minor),
        revision: part(revision),
    }
}

/// The broker's "keep running" flag, where it is exported.
pub(crate) struct Ending(Option<*const c_int>);

impl Ending {
    /// Whether the main loop is over, or will be after this pass. False where it can't be known.
    pub(crate) fn is_ending(&self) -> bool {
        // SAFETY: the address of an int of the broker, which a signal handler may change at any time.
        self.0
            .is_some_and(|flag| unsafe { flag.read_volatile() } == 0)
    }
}

impl Injector for Broker {
    fn inject(&self, message: &Message<'_>, expiry_s: Option<u32>) -> Result<(), InjectError> {
        let topic = CString::new(message.topic).map_err(|_| InjectError::ZeroByte("topic"))?;
        let client = match message.client_id {
            "" => None,
            id => Some(CString::new(id).map_err(|_| InjectError::ZeroByte("client id"))?),
        };
        let len = c_int::try_from(message.payload.len()).map_err(|_| InjectError::TooLarge)?;
        let properties = OwnedProperties::build(self, message.properties, expiry_s)?;
        let payload = self
            .malloc_copy(message.payload)
            .ok_or(InjectError::OutOfMemory)?;
        // SAFETY: NUL-terminated strings, a payload of `len` bytes from the broker's allocator, and a list made by
        // the broker's own functions. On success the broker owns the last two, on an error we still do.
        let result = unsafe {
            (self.symbols.mosquitto_broker_publish)(
                client.as_ref().map_or(ptr::null(), |id| id.as_ptr()),
                topic.as_ptr(),
                len,
                payload,
                c_int::from(message.qos.as_u8()),
                message.retain,
                properties.as_raw(),
            )
        };
        if result == c::MOSQ_ERR_SUCCESS {
            properties.into_broker();
            return Ok(());
        }
        // SAFETY: still ours, from mosquitto_malloc.
        unsafe { (self.symbols.mosquitto_free)(payload) };
        Err(InjectError::Refused(result))
    }
}
