//! Any text is a configuration that its effective options give back, or errors on one line; any text is a
//! `mosquitto.conf`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::config::mosquitto_conf::MosquittoConf;
use protocol::config::{Config, parse_options_file};

fn read(text: &str) -> Option<Config> {
    let options = parse_options_file(text).ok()?;
    // A rules file would be read from this machine's disk.
    if options.iter().any(|(name, _)| name == "rules_file") {
        return None;
    }
    match Config::from_options(
        options
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    ) {
        Ok(config) => Some(config),
        Err(errors) => {
            assert!(!errors.to_string().contains(char::is_control));
            None
        }
    }
}

fuzz_target!(|text: &str| {
    if let Some(config) = read(text) {
        let effective = config.effective_options();
        let again = read(&effective).map(|config| config.effective_options());
        assert_eq!(again, Some(effective));
    }
    if !text.contains("include_dir") {
        assert!(MosquittoConf::parse(text).is_ok_and(|conf| !conf.listeners.is_empty()));
    }
});
