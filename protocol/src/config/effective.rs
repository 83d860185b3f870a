//! The configuration as text: `options.conf` in the spool.

use super::Config;
use super::options::OPTIONS;

impl Config {
    /// Text that [`super::parse_options_file`] and [`Config::from_options`] read back to this configuration: each option
    /// with its value, also where that is the default, and every rule, also of the rules file, which is not named.
    pub fn effective_options(&self) -> String {
        let mut text = String::from(
            "# Written by the plugin at start and at reload. Changes here are lost.\n",
        );
        for spec in OPTIONS.iter().filter(|spec| spec.name != "rules_file") {
            for value in (spec.show)(self) {
                text.push_str(spec.name);
                text.push(' ');
                text.push_str(&value);
                text.push('\n');
            }
        }
        text
    }
}
