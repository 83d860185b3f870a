//! Where Mosquitto saves its sessions.

use std::path::{Path, PathBuf};

/// The lines about Mosquitto's own database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Persistence {
    /// `persistence`.
    pub enabled: bool,
    /// `persistence_location`.
    pub location: Option<PathBuf>,
    /// `persistence_file`.
    pub file: Option<PathBuf>,
}

impl Persistence {
    /// The database, if there may be one. Relative to where Mosquitto was started when the lines are.
    pub fn path(&self) -> Option<PathBuf> {
        let file = self.file.as_deref();
        let file = file.unwrap_or(Path::new("mosquitto.db"));
        let path = match &self.location {
            // Not `join`: Mosquitto puts them together also when the file's path is absolute.
            Some(location) => {
                let mut path = location.clone().into_os_string();
                path.push("/");
                path.push(file);
                path.into()
            }
            None => file.to_owned(),
        };
        self.enabled.then_some(path)
    }

    /// Takes the line, if it is one of these.
    ///
    /// # Errors
    /// When Mosquitto would refuse the value.
    pub(super) fn line(&mut self, key: &str, text: &str) -> Result<bool, String> {
        match key {
            "persistence" | "retained_persistence" => {
                self.enabled = super::parse::boolean(key, text)?;
            }
            "persistence_location" => self.location = Some(super::parse::path_value(key, text)?),
            "persistence_file" => self.file = Some(super::parse::path_value(key, text)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}
