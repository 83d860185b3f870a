//! Errors of the configuration: all that is wrong, at once, on one line.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong: where, with which value, why, and what is allowed instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The option, without `plugin_opt_`.
    pub option: String,
    /// Its value as given; empty when it is missing.
    pub value: String,
    /// The file that the value stands in, when it is not `mosquitto.conf`.
    pub file: Option<PathBuf>,
    /// Line in that file, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
    /// What is allowed; may be empty when the problem says it.
    pub allowed: String,
}

impl ConfigError {
    pub(super) fn new(
        option: &str,
        value: &str,
        problem: impl Into<String>,
        allowed: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            option: option.to_owned(),
            value: value.to_owned(),
            file: None,
            line: None,
            problem: problem.into(),
            allowed: allowed.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(
                f,
                "{} line {line}: {}",
                one_line(&file.display().to_string()),
                self.option
            )?,
            (None, Some(line)) => write!(f, "line {line}: {}", self.option)?,
            (Some(file), None) => write!(
                f,
                "{}: {}",
                one_line(&file.display().to_string()),
                self.option
            )?,
            (None, None) => write!(f, "plugin_opt_{}", one_line(&self.option))?,
        }
        if !self.value.is_empty() {
            write!(f, " \"{}\"", one_line(&self.value))?;
        }
        write!(f, ": {}", one_line(&self.problem))?;
        if !self.allowed.is_empty() {
            write!(f, " (allowed: {})", self.allowed)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// The errors.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Longest value that an error repeats whole, in characters.
const SHOWN_MAX: usize = 200;

/// A value as it can stand in one line of a log: no control characters, not endless.
fn one_line(value: &str) -> String {
    let mut shown = String::new();
    for (index, c) in value.chars().enumerate() {
        if index == SHOWN_MAX {
            shown.push('…');
            break;
        }
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
