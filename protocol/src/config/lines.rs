//! Files of `key value` lines: `options.conf` in the spool, and the rules file.

use std::path::Path;

use super::errors::{ConfigError, ConfigErrors};

/// One line of such a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line<'t> {
    /// From 1.
    pub(super) number: usize,
    pub(super) key: &'t str,
    /// The rest of the line without blanks around it; may be empty.
    pub(super) value: &'t str,
}

/// The lines that say something: neither blank nor a comment (`#` first).
pub(super) fn split(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        Some(Line {
            number: index + 1,
            key,
            value: value.trim(),
        })
    })
}

/// Reads the text of `options.conf`: the `plugin_opt_` lines without their prefix, to be given to
/// [`super::Config::from_options`].
///
/// # Errors
/// With every line that has no value.
pub fn parse_options_file(text: &str) -> Result<Vec<(String, String)>, ConfigErrors> {
    let (mut options, mut errors) = (Vec::new(), Vec::new());
    for line in split(text) {
        if line.value.is_empty() {
            let mut error = ConfigError::new(
                line.key,
                "",
                "has no value",
                "an option, a blank and its value",
            );
            error.line = Some(line.number);
            errors.push(error);
        } else {
            options.push((line.key.to_owned(), line.value.to_owned()));
        }
    }
    if errors.is_empty() {
        Ok(options)
    } else {
        Err(ConfigErrors(errors))
    }
}

/// Reads a file as text, with an error that names the option.
pub(super) fn read(option: &str, path: &Path) -> Result<String, Box<ConfigError>> {
    const ALLOWED: &str = "a readable UTF-8 text file";
    let shown = path.display().to_string();
    let fail = |problem: &str| Box::new(ConfigError::new(option, &shown, problem, ALLOWED));
    let bytes = std::fs::read(path).map_err(|error| fail(&format!("can't be read: {error}")))?;
    String::from_utf8(bytes).map_err(|_| fail("is not UTF-8"))
}
