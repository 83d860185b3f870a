//! Options whose value is one of a few words.

use std::time::Duration;

use super::units;

/// An enum whose variants are words of the configuration.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// The words, for error messages.
            pub(super) const WORDS: &'static [&'static str] = &[$($word),+];

            pub(super) fn parse(text: &str) -> Option<$name> {
                match text { $($word => Some($name::$variant),)+ _ => None }
            }

            /// The word that stands for it in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What happens to QoS 1 and 2 messages when the spool is full.
    SpoolFull {
        /// They are refused: the client gets no acknowledgement.
        Refuse = "refuse",
        /// They are acknowledged and delivered locally, not bridged, and counted.
        Drop = "drop",
    }
}

words! {
    /// Who starts the sidecar.
    SidecarMode {
        /// The plugin.
        Spawn = "spawn",
        /// Someone else, such as systemd.
        External = "external",
    }
}

words! {
    /// How the broker's thread is woken for downlink messages.
    Wake {
        /// The eventfd where the broker is known to take it, else the PINGREQ connection.
        Auto = "auto",
        /// An eventfd in the broker's epoll set.
        Eventfd = "eventfd",
        /// An MQTT connection of the plugin's own that sends a PINGREQ.
        Pingreq = "pingreq",
    }
}

words! {
    /// How MQTT topics and properties stand in RocketMQ messages.
    Layout {
        /// This bridge's own names (`docs/mapping.md`).
        Native = "native",
        /// The names of Alibaba's MQTT service and of rocketmq-mqtt.
        Apsara = "apsara",
    }
}

words! {
    /// Where a downlink starts in a RocketMQ topic that the group has no offset in.
    StartFrom {
        /// With what comes from now on.
        Latest = "latest",
        /// With the oldest message that RocketMQ still has.
        Earliest = "earliest",
    }
}

words! {
    /// The least severe log lines that are written.
    Level {
        /// Errors only.
        Error = "error",
        /// And warnings.
        Warn = "warn",
        /// And notable events.
        Info = "info",
        /// And what helps to find a fault.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

/// When the spool is synced to the disk (power loss; a killed process loses nothing in any case).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpoolSync {
    /// When the kernel sees fit.
    None,
    /// At this interval, by a thread of its own.
    Interval(Duration),
    /// Before each acknowledgement.
    Always,
}

impl SpoolSync {
    pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
    pub(super) const ALLOWED: &str =
        "none, always, interval, or interval with a time of 1ms to 10min, such as interval 500ms";

    pub(super) fn parse(text: &str) -> Option<SpoolSync> {
        let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        match (word, rest.trim()) {
            ("none", "") => Some(SpoolSync::None),
            ("always", "") => Some(SpoolSync::Always),
            ("interval", "") => Some(SpoolSync::Interval(SpoolSync::DEFAULT_INTERVAL)),
            ("interval", time) => {
                let interval = units::parse_duration(time, Some(units::MILLISECOND))?;
                let range = Duration::from_millis(1)..=Duration::from_secs(600);
                range
                    .contains(&interval)
                    .then_some(SpoolSync::Interval(interval))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for SpoolSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SpoolSync::None => f.write_str("none"),
            SpoolSync::Always => f.write_str("always"),
            SpoolSync::Interval(interval) => {
                write!(f, "interval {}", units::format_duration(*interval))
            }
        }
    }
}
