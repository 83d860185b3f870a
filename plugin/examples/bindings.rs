//! Writes (or, with `--check`, compares) `plugin/src/ffi/bindings/`, made by
//! bindgen from the headers of Mosquitto 2.0.11 that `mosquitto-dev` and
//! `libmosquitto-dev` install. Run it through `scripts/bindings`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the plugin uses of the broker; looked up in the process that loads it.
const BROKER_FUNCTIONS: &str = "mosquitto_(broker_publish|callback_register|callback_unregister\
    |malloc|free|log_printf|client_id|client_username|client_protocol_version|client_address\
    |property_add_byte|property_add_int32|property_add_string|property_add_string_pair\
    |property_add_binary|property_free_all)";
const BROKER_TYPES: &str = "mosquitto_evt_(reload|acl_check|basic_auth|message|tick|disconnect)\
    |mosquitto_opt|mosquitto_plugin_id_t|mosquitto|MOSQ_FUNC_generic_callback|mosquitto_property|mqtt5__property";
const CONSTANTS: &str =
    "MOSQ_ERR_.*|MOSQ_EVT_.*|MOSQ_LOG_.*|MOSQ_ACL_.*|MOSQ_PLUGIN_VERSION|MQTT_PROP_.*";

/// What the plugin uses of libmosquitto.so.1, linked in the ordinary way.
const LIBRARY_FUNCTIONS: &str = "mosquitto_property_(identifier|next|read_byte|read_int32|read_string\
    |read_string_pair|read_binary)\
    |mosquitto_lib_version";

fn builder(includes: &str) -> bindgen::Builder {
    bindgen::Builder::default()
        .header_contents("wrapper.h", includes)
        .layout_tests(true)
        .generate_comments(false)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .use_core()
        .formatter(bindgen::Formatter::Prettyplease)
}

fn generate() -> Result<Vec<(&'static str, String)>, bindgen::BindgenError> {
    let broker = builder(
        "#include <stdbool.h>\n#include <stdint.h>\n#include <time.h>\n\
         #include <mosquitto.h>\n#include <mosquitto_broker.h>\n\
         #include <mosquitto_plugin.h>\n#include <mqtt_protocol.h>\n",
    )
    .allowlist_function(BROKER_FUNCTIONS)
    .allowlist_type(BROKER_TYPES)
    .allowlist_var(CONSTANTS)
    .allowlist_item("mosq_err_t|mosquitto_plugin_event|mqtt5_property")
    .dynamic_library_name("BrokerSymbols")
    .dynamic_link_require_all(true)
    .generate()?;
    let library = builder("#include <stdbool.h>\n#include <mosquitto.h>\n")
        .allowlist_function(LIBRARY_FUNCTIONS)
        .allowlist_recursively(false)
        .raw_line("use super::broker::mosquitto_property;")
        .generate()?;
    Ok(vec![
        ("broker.rs", broker.to_string()),
        ("library.rs", library.to_string()),
    ])
}

fn differences(dir: &Path, files: &[(&str, String)]) -> Vec<PathBuf> {
    files
        .iter()
        .map(|(name, text)| (dir.join(name), text))
        .filter(|(path, text)| std::fs::read_to_string(path).ok().as_ref() != Some(*text))
        .map(|(path, _)| path)
        .collect()
}

fn main() -> ExitCode {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            eprintln!("unknown argument `{other}`: only --check is known");
            return ExitCode::from(2);
        }
    };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ffi/bindings");
    let files = match generate() {
        Ok(files) => files,
        Err(error) => {
            eprintln!(
                "bindgen failed: {error} (are mosquitto-dev, libmosquitto-dev and libclang installed?)"
            );
            return ExitCode::FAILURE;
        }
    };
    let changed = differences(&dir, &files);
    if check {
        for path in &changed {
            eprintln!(
                "{} does not match the installed headers: run scripts/bindings",
                path.display()
            );
        }
        return if changed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    for (name, text) in &files {
        if let Err(error) = std::fs::write(dir.join(name), text) {
            eprintln!("cannot write {}: {error}", dir.join(name).display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
