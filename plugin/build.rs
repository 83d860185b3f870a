//! Tells the linker about the plugin's one library and about how it is unloaded.

fn main() {
    // `mosquitto_property_read_*` lives in libmosquitto.so.1: an upstream broker
    // does not export it (Debian's does, and then the broker's own copy wins).
    println!("cargo:rustc-link-lib=dylib=mosquitto");
    // Mosquitto calls dlclose after clean-up. Keeping the code mapped makes that
    // harmless for whatever thread-local destructor the main thread still has.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
