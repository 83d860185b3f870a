//! The functions that Mosquitto calls: the three of the plugin API, and one callback per event.
//!
//! Each callback is one line into `Plugin`, on Mosquitto's thread alone, and no panic of it reaches Mosquitto.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::borrow::borrow_text;
use super::broker::ERR_PLUGIN_IGNORE;
use super::cluster::SubscriptionEvent;
use super::plugin::Plugin;
use super::{c, sys};

/// Mosquitto asks which of its plugin APIs we speak: the fifth, or none.
///
/// # Safety
/// Called by Mosquitto: `versions` points to `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mosquitto_plugin_version(count: c_int, versions: *const c_int) -> c_int {
    let ours = c::MOSQ_PLUGIN_VERSION.cast_signed();
    let count = usize::try_from(count).unwrap_or(0);
    if versions.is_null() {
        return -1;
    }
    // SAFETY: as the caller promises.
    let versions = unsafe { std::slice::from_raw_parts(versions, count) };
    if versions.contains(&ours) { ours } else { -1 }
}

/// Starts the bridge. Anything but 0 keeps Mosquitto from starting.
///
/// # Safety
/// Called by Mosquitto, once, with the pointers of its plugin API.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mosquitto_plugin_init(
    identifier: *mut c::mosquitto_plugin_id_t,
    userdata: *mut *mut c_void,
    options: *mut c::mosquitto_opt,
    count: c_int,
) -> c_int {
    sys::claim_main_thread();
    let init = AssertUnwindSafe(|| {
        // SAFETY: as the caller promises.
        let options = unsafe { borrow_options(options, count) };
        Plugin::load(identifier, &options)
    });
    match catch_unwind(init) {
        Ok(Some(plugin)) => {
            // SAFETY: a place to write to, as the caller promises.
            unsafe { userdata.write(Box::into_raw(plugin).cast()) };
            c::MOSQ_ERR_SUCCESS
        }
        // Logged in there, or (a panic) by the standard hook.
        Ok(None) | Err(_) => c::MOSQ_ERR_UNKNOWN,
    }
}

/// # Safety
/// `options` is null or points to `count` pairs of C strings, unchanged for `'a`.
unsafe fn borrow_options<'a>(
    options: *const c::mosquitto_opt,
    count: c_int,
) -> Vec<(&'a str, &'a str)> {
    let count = usize::try_from(count).unwrap_or(0);
    if options.is_null() {
        return Vec::new();
    }
    // SAFETY: as the caller promises.
    let options = unsafe { std::slice::from_raw_parts(options, count) };
    // What is not UTF-8 can't be right: the configuration will say which value is wrong.
    let text = |pointer: *mut std::ffi::c_char| {
        // SAFETY: null or a C string, as the caller promises.
        unsafe { borrow_text(pointer) }.text().unwrap_or("\u{fffd}")
    };
    options
        .iter()
        .map(|option| (text(option.key), text(option.value)))
        .collect()
}

/// Ends the bridge: nothing of it runs after this.
///
/// # Safety
/// Called by Mosquitto, once, with what init gave it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mosquitto_plugin_cleanup(
    userdata: *mut c_void,
    _options: *mut c::mosquitto_opt,
    _count: c_int,
) -> c_int {
    if userdata.is_null() {
        return c::MOSQ_ERR_SUCCESS;
    }
    // SAFETY: made by init with Box::into_raw, and taken back once.
    let plugin = unsafe { Box::from_raw(userdata.cast::<Plugin>()) };
    // A panic here must not keep Mosquitto from ending.
    let _ = catch_unwind(AssertUnwindSafe(move || plugin.unload()));
    c::MOSQ_ERR_SUCCESS
}

macro_rules! callback {
    ($(#[$doc:meta])* $name:ident($event:ty) => $method:ident, after a panic $code:expr) => {
        $(#[$doc])*
        pub(crate) unsafe extern "C" fn $name(_: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
            // 2.1 asks about the users of its HTTP API (`listener` with `protocol http_api`) on that API's own thread,
            // with a record that is no client's. Nothing of ours may be touched there: it belongs to the main thread.
            if !sys::is_main_thread() {
                return ERR_PLUGIN_IGNORE;
            }
            let call = AssertUnwindSafe(|| {
                // SAFETY: Mosquitto passes the event's own struct, exclusively ours until we return, and the
                // userdata that was registered, which lives until clean-up.
                let (plugin, event) = unsafe { (&*userdata.cast::<Plugin>(), &mut *data.cast::<$event>()) };
                plugin.$method(event)
            });
            // The plugin's own guard is around all that has state. This one is for the little around that: unwinding
            // out of here would abort the broker.
            catch_unwind(call).unwrap_or($code)
        }
    };
}

// 13 closes the client that published: no acknowledgement, so nothing false.
callback!(on_message(c::mosquitto_evt_message) => message, after a panic c::MOSQ_ERR_UNKNOWN);
callback!(on_acl_check(c::mosquitto_evt_acl_check) => acl_check, after a panic c::MOSQ_ERR_PLUGIN_DEFER);
callback!(on_basic_auth(c::mosquitto_evt_basic_auth) => basic_auth, after a panic c::MOSQ_ERR_PLUGIN_DEFER);
callback!(on_tick(c::mosquitto_evt_tick) => tick, after a panic c::MOSQ_ERR_SUCCESS);
callback!(on_disconnect(c::mosquitto_evt_disconnect) => disconnect, after a panic c::MOSQ_ERR_SUCCESS);
// CONNECT and CLIENT_OFFLINE of 2.1 begin like DISCONNECT: a reserved pointer, then the client.
callback!(on_connect(c::mosquitto_evt_disconnect) => connect, after a panic c::MOSQ_ERR_SUCCESS);
callback!(on_client_offline(c::mosquitto_evt_disconnect) => client_offline, after a panic c::MOSQ_ERR_SUCCESS);
callback!(on_subscribe(SubscriptionEvent) => subscribe_event, after a panic c::MOSQ_ERR_SUCCESS);
callback!(on_unsubscribe(SubscriptionEvent) => unsubscribe_event, after a panic c::MOSQ_ERR_SUCCESS);
callback!(on_reload(c::mosquitto_evt_reload) => reload, after a panic c::MOSQ_ERR_SUCCESS);

#[cfg(test)]
mod tests {
    use super::*;

    type Callback = unsafe extern "C" fn(c_int, *mut c_void, *mut c_void) -> c_int;

    #[test]
    fn on_another_thread_nothing_is_touched() {
        sys::claim_main_thread();
        assert!(sys::is_main_thread());
        let all: [Callback; 10] = [
            on_message,
            on_acl_check,
            on_basic_auth,
            on_tick,
            on_disconnect,
            on_connect,
            on_client_offline,
            on_subscribe,
            on_unsubscribe,
            on_reload,
        ];
        let answers = std::thread::spawn(move || {
            all.map(|callback| {
                let nothing = std::ptr::null_mut();
                // SAFETY: the thread is looked at first, so null is not followed.
                unsafe { callback(0, nothing, nothing) }
            })
        });
        assert_eq!(answers.join().expect("no panic"), [ERR_PLUGIN_IGNORE; 10]);
    }
}
